"""What the book shows of the package's source is the source, cut where it says so."""

import ast

import pytest

from kvpaged import OutOfPages, PagePool, PageTable, PrefixCache
from kvpaged.figures import show_source
from kvpaged.page import PageStorage
from kvpaged.sequence import Sequence


def test_source_is_the_packages_own_one_block_for_one_file():
    source = show_source(PagePool.share, PagePool.release, PageTable.lookup)
    shown = source._repr_markdown_()
    assert shown.count("```python") == 2
    assert shown.startswith("```python\ndef share(self, page_id: int) -> None:")
    assert '*from* [`kvpaged/page_pool.py`](../kvpaged/page_pool.py "PagePool.share, PagePool.release")' in shown
    bare = repr(show_source(PagePool.release, without_docstring=True))
    assert '"""' not in bare
    assert "self.ref_counts[page_id] -= 1" in bare
    assert "def num_free" in repr(show_source(PagePool.num_free))


def test_source_without_docstrings_is_still_the_same_program():
    def bare_tree(code):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
                del node.body[0]
        return ast.dump(tree)

    for thing in (PagePool, PageTable, PrefixCache, OutOfPages):
        full, bare = (show_source(thing, without_docstring=without).parts[0].code for without in (False, True))
        assert bare_tree(full) == bare_tree(bare)


def test_only_the_packages_source_is_shown():
    with pytest.raises(ValueError, match="kvpaged only"):
        show_source(pytest.raises)
    with pytest.raises(TypeError, match="no source"):
        show_source(42)


def cut(thing, **options):
    (part,) = show_source(thing, without_docstring=True, **options).parts
    return part.code


def test_a_cut_takes_a_statement_with_its_block_and_says_what_it_was():
    whole = cut(Sequence.append)
    shown = cut(Sequence.append, leave_out={"if self._events.listeners:": "recording"})
    assert whole.split("\n")[:-3] == shown.split("\n")[:-1]
    assert whole.split("\n")[-2].strip() == "if self._events.listeners:"
    assert shown.split("\n")[-1] == "    # … recording"


def test_a_branch_is_cut_without_its_condition():
    shown = cut(Sequence.append, leave_out={"else:": "the slow way"})
    assert "    # … the slow way\n    self.tokens.append(token)" in shown
    assert "make_room" not in shown
    assert "table.num_tokens = num_tokens + 1" in shown


def test_cuts_that_follow_each_other_are_one_line():
    same = cut(Sequence.append, leave_out={"table = ": "short names", "num_tokens = ": "short names"})
    assert same.count("# … short names\n") == 1
    assert "num_tokens = table.num_tokens\n" not in same
    other = cut(Sequence.append, leave_out={"if token": "checks", "table = ": "short names"})
    assert "    # … checks; short names\n" in other


def test_a_comment_goes_with_the_statement_that_it_is_about():
    comment, statement = cut(Sequence.begin).split("\n")[-2:]
    assert comment.lstrip().startswith("# ")
    shown = cut(Sequence.begin, leave_out={statement.strip(): "the second attempt"})
    assert comment not in shown
    assert shown.endswith("            raise\n    # … the second attempt")


def test_a_comment_can_be_cut_alone():
    comment, statement = cut(Sequence.begin).split("\n")[-2:]
    shown = cut(Sequence.begin, leave_out={comment.strip(): "why"})
    assert shown.endswith(f"    # … why\n{statement}")


def test_arguments_on_lines_of_their_own_are_cut_together():
    def shown(**options):
        return cut(PageStorage.__init__, **options).split("\n")

    (first, *others), short = shown(), shown(leave_out={"self,": "sizes"})
    assert [first, "    # … sizes", ") -> None:"] == short[:3]
    assert short[2:] == others[-len(short[2:]) :]


def test_a_cut_that_finds_nothing_is_refused_with_its_words():
    with pytest.raises(ValueError, match=r"nothing in Sequence\.append, Sequence\.fork begins 'if self\.recording'"):
        show_source(Sequence.append, Sequence.fork, leave_out={"if self.recording": "recording"})


def test_a_cut_is_noted_beside_the_link():
    assert show_source(Sequence.append, leave_out={"table": "names"})._repr_markdown_().endswith('"), *shortened*')
    assert not show_source(Sequence.append)._repr_markdown_().endswith("shortened*")
