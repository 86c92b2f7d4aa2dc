"""What holds of every chapter as it is stored; that its outputs are still true is checked by running it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

from check_site import says_what_it_shows
from notebook_form import normalise, read, text

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
IGNORED_OUTPUTS_ALLOWED = 2
CLASS_LINES_ALLOWED = 10
NOT_OURS = {"_asdict", "_python_dispatch"}  # Python's and PyTorch's
ONE_MACHINE = re.compile(
    rf"{re.escape(str(ROOT))}|/(?:home|root|Users|tmp|opt|usr|var)/\w|site-packages|ipykernel_\d|\bat 0x[0-9a-f]{{6,}}"
)

pytestmark = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def code_cells(chapter: Path) -> list[NotebookNode]:
    return [cell for cell in read(chapter).cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def output_texts(cell: NotebookNode) -> Iterator[str]:
    """Every piece of text among the outputs of a cell."""
    for output in cell.outputs:
        yield from (value for key, value in output.get("data", {}).items() if key.startswith(("text/", "image/svg")))
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))


def python(cell: NotebookNode) -> ast.Module:
    """The syntax tree of a cell, without the lines that speak to the notebook (%magic, !shell)."""
    return ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))


def test_no_class_is_longer_than_ten_lines(chapter: Path) -> None:
    for cell in code_cells(chapter):
        for node in ast.walk(python(cell)):
            if isinstance(node, ast.ClassDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= CLASS_LINES_ALLOWED, f"class {node.name} has {lines} lines: it belongs in kvpaged"


def test_a_class_has_a_cell_of_its_own(chapter: Path) -> None:
    for cell in code_cells(chapter):
        kinds = {type(node) for node in python(cell).body}
        assert ast.ClassDef not in kinds or kinds <= {ast.ClassDef, ast.Import, ast.ImportFrom}, cell.source


def test_what_is_taught_has_no_underscore(chapter: Path) -> None:
    for cell in code_cells(chapter):
        private = set(re.findall(r"\b_[a-z]\w*", ast.unparse(python(cell)))) - NOT_OURS
        assert not private, f"give what a chapter uses a public name: {', '.join(sorted(private))}"


def test_every_cell_has_run_in_order_and_its_outputs_are_stored(chapter: Path) -> None:
    cells = code_cells(chapter)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ends_in_print = cell.source.rstrip().split("\n")[-1].startswith(("print(", "plt.show("))
        assert cell.outputs or not ends_in_print, f"no output is stored of the cell:\n{cell.source}"


def test_it_is_stored_in_normal_form(chapter: Path) -> None:
    assert chapter.read_text(encoding="utf-8") == text(normalise(read(chapter))), "run tools/refresh.py on it"


def test_a_cell_raises_exactly_when_it_says_so(chapter: Path) -> None:
    for cell in code_cells(chapter):
        raises = any(output.output_type == "error" for output in cell.outputs)
        assert raises == ("raises-exception" in tags(cell)), cell.source


def test_every_picture_says_in_words_what_it_shows(chapter: Path) -> None:
    for cell in code_cells(chapter):
        if any(kind in output.get("data", {}) for output in cell.outputs for kind in ("image/png", "image/jpeg")):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert says_what_it_shows(alt), f"its alt text, {alt!r}, does not say what it shows:\n{cell.source}"
        for shown in output_texts(cell):
            for picture in re.findall(r"<svg[^>]*>|<img[^>]*>", shown):
                alt = re.search(r"""(?:aria-label|alt)=(["'])(.*?)\1""", picture)
                named = alt and says_what_it_shows(alt[2])
                assert named or 'aria-hidden="true"' in picture, f"no text says what it shows: {picture[:200]}"


def test_markdown_pictures_have_alt_text(chapter: Path) -> None:
    for cell in read(chapter).cells:
        if cell.cell_type == "markdown":
            for alt in re.findall(r"!\[(.*?)\]\(", cell.source):
                assert says_what_it_shows(alt), f"{alt!r} does not say what the picture shows:\n{cell.source}"


def test_no_output_names_a_path_or_an_address_of_one_machine(chapter: Path) -> None:
    for cell in code_cells(chapter):
        for shown in output_texts(cell):
            found = ONE_MACHINE.search(shown)
            assert not found, f"{shown[found.start() :][:80]!r} in the output of\n{cell.source}"


def test_nearly_every_output_is_compared(chapter: Path) -> None:
    ignored = [cell.source for cell in code_cells(chapter) if blinds_the_check(cell)]
    assert len(ignored) <= IGNORED_OUTPUTS_ALLOWED, ignored


def blinds_the_check(cell: NotebookNode) -> bool:
    comment = re.search(r"^\s*#\s*(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP|PYTEST_VALIDATE_IGNORE_OUTPUT)", cell.source, re.M)
    return bool(comment) or any(tag in ("nbval-ignore-output", "nbval-skip", "skip-execution") for tag in tags(cell))
