"""The museum of real bugs: each bug is convicted, and in the way its page says; what the reader mends is acquitted."""

import ast
import difflib
import inspect
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest

from kvpaged import mini
from kvpaged.exercises import check
from kvpaged.exercises.museum import PIECES, broken, convict, conviction
from kvpaged.exercises.museum.conviction import MOST_STEPS
from kvpaged.exercises.museum.in_place import in_place_of
from kvpaged.exercises.museum.piece import Piece
from notebook_form import read

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("[0-9][0-9]-*.ipynb"))
PAGE = read(Path(__file__).parents[1] / "chapters" / "museum.ipynb")
each_piece = pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
MOST_LINES = 15


def function_of(source: str, name: str) -> ast.FunctionDef:
    """The function of that name, without the words that say of what kind its values are."""

    class Bare(ast.NodeTransformer):
        def visit_arg(self, node: ast.arg) -> ast.arg:
            return ast.arg(node.arg)

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.returns = None
            return self.generic_visit(node)

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            assert node.value
            return ast.Assign([node.target], node.value, lineno=node.lineno)

    tree = Bare().visit(ast.parse(source))
    [found] = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
    return found


def stub_of(piece: Piece) -> str:
    """The cell in which the reader meets the bug."""
    [cell] = [
        each.source
        for each in PAGE.cells
        if "exercise" in each.metadata.get("tags", []) and f'check("{piece.exercise.number}"' in each.source
    ]
    return cell


def parts_of_the_page() -> dict[str, str]:
    """The prose of the page about each piece, by its number."""
    prose = "\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown")
    return {part.split(" ", 1)[0]: part for part in prose.split("\n### ")[1:]}


def test_there_are_a_dozen_pieces_and_each_has_its_report_on_the_page() -> None:
    assert len(PIECES) >= 12
    parts = parts_of_the_page()
    assert parts.keys() >= PIECES.keys()
    for number in PIECES:
        assert "https://github.com/" in parts[number], f"{number} has no report"


def test_a_chapter_sends_its_reader_to_the_piece_with_the_report_that_it_names() -> None:
    parts, links = parts_of_the_page(), 0
    for paragraph in (line for chapter in CHAPTERS for cell in read(chapter).cells for line in cell.source.split("\n")):
        for link in re.finditer(r"\[(M\.\d+)\]\(museum\.ipynb\)", paragraph):
            named = re.findall(r"CVE-[\d-]+|#\d+", paragraph[: link.start()])
            told = re.findall(r"CVE-[\d-]+|#\d+", parts[link[1]])
            assert set(named) & set(told), f"{link[1]} tells none of {named}: {paragraph}"
            links += 1
    assert links >= 8


@each_piece
@pytest.mark.parametrize("seed", range(5))
def test_a_bug_is_convicted_within_a_thousand_steps_in_the_way_it_says(piece: Piece, seed: int) -> None:
    found = convict(piece.exercise.number, seed)
    assert found.steps <= MOST_STEPS
    assert piece.convicted_by in found.objection
    assert f"convicted after {found.steps} random step" in repr(found)
    assert piece.exercise.number in found._repr_html_()


@each_piece
def test_the_page_shows_the_conviction_and_the_very_bug(piece: Piece) -> None:
    number, name = piece.exercise.number, piece.exercise.name
    assert any(f'convict("{number}")' in cell.source for cell in PAGE.cells)
    shown, kept = function_of(stub_of(piece), name), function_of(inspect.getsource(piece.broken), name)
    assert ast.unparse(shown) == ast.unparse(kept)


@each_piece
def test_a_bug_is_a_small_change(piece: Piece) -> None:
    if not hasattr(mini, piece.exercise.name):
        right = inspect.getsource(piece.exercise.reference).replace("_mended", piece.exercise.name)
    else:
        right = inspect.getsource(getattr(mini, piece.exercise.name))
    bare = [
        ast.unparse(function_of(dedent(source), piece.exercise.name)).splitlines()
        for source in (right, inspect.getsource(piece.broken))
    ]
    changed = [line for line in difflib.ndiff(*bare) if line.startswith(("+ ", "- "))]
    assert len([line for line in changed if line.startswith("+ ")]) <= MOST_LINES


@each_piece
def test_whatever_is_right_is_acquitted(piece: Piece) -> None:
    right = replace(piece, broken=piece.exercise.reference)
    with pytest.raises(AssertionError, match="nobody objects"):
        conviction.convict(right)


def test_the_small_engine_is_itself_again_after_a_bug_whatever_happened() -> None:
    before = vars(mini).copy()
    with broken("M.1"):
        assert mini.forget is not before["forget"]
    with pytest.raises(ZeroDivisionError), in_place_of("release", lambda pool, page: None):
        raise ZeroDivisionError
    for number in PIECES:
        convict(number)
        check(number, lambda *arguments: None, keep_it=False)
    assert vars(mini) == before


def test_a_piece_that_is_not_there_or_is_no_function_of_the_small_engine_is_told() -> None:
    with pytest.raises(ValueError, match=r"no piece 'M\.99' in the museum: there are M\.1, "):
        convict("M.99")
    with pytest.raises(ValueError, match="the small engine has no finish"):
        broken("M.6").__enter__()


@each_piece
def test_the_picture_shows_each_owner_that_the_judge_counts(piece: Piece) -> None:
    told = 0
    for seed in range(30):
        played = piece.trials(Random(seed), 8).play(piece.broken)
        found = re.search(r"page (\d+) has .* but \d+ owners?: (.*)", played.objection)
        if not found or found[2] == "nobody":
            continue
        told += 1
        shown = repr(played.draw()["the pool afterwards"])
        for owner in {*found[2].split(", ")}:
            owned = re.findall(rf"(?i){owner}(?: alone)? owns pages? ([\d–, ]+)", shown)
            assert int(found[1]) in set().union(*map(numbers_in, owned)), f"{played.objection}: {shown}"
    assert told or piece.exercise.number not in {"M.1", "M.2", "M.3", "M.4"}


def numbers_in(ranges: str) -> set[int]:
    """What "0–2, 5" stands for."""
    runs = [[int(end) for end in run.split("–")] for run in ranges.strip(", ").split(", ")]
    return {number for run in runs for number in range(run[0], run[-1] + 1)}
