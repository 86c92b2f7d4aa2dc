"""Every picture of the book has a caption, and a name by which the prose can refer to it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

from notebook_form import read

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("[0-9][0-9]-*.ipynb"))
PICTURE = re.compile(r"""class=["']kvf\b""")
MAP = "system_map("  # the sign at the door of each chapter, no figure


def pictures(chapter: Path) -> Iterator[NotebookNode]:
    """The cells that show a picture; those in what a checker answers to a reader are no figures of the book."""
    for cell in read(chapter).cells:
        answers = "exercise" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and MAP not in cell.source and not answers:
            kinds = {kind: value for output in cell.outputs for kind, value in output.get("data", {}).items()}
            if PICTURE.search(kinds.get("text/html", "")) or "image/png" in kinds:
                yield cell


def figure(cell: NotebookNode) -> dict[str, str]:
    return cell.metadata.get("mystnb", {}).get("figure", {})


NAMES = Counter(figure(cell).get("name", "") for chapter in CHAPTERS for cell in pictures(chapter))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_picture_has_a_caption_and_a_name_of_its_own(chapter: Path) -> None:
    for cell in pictures(chapter):
        caption, name = figure(cell).get("caption", ""), figure(cell).get("name", "")
        assert len(caption.split()) >= 4, f"no caption says what it is:\n{cell.source}"
        assert caption.endswith("."), caption
        assert re.fullmatch(r"fig-[a-z0-9-]+", name), f"no name to refer to it by:\n{cell.source}"
        assert NAMES[name] == 1, f"two figures are called {name}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_has_a_caption_is_a_picture(chapter: Path) -> None:
    shown = {cell.id for cell in pictures(chapter)}
    assert {cell.id for cell in read(chapter).cells if figure(cell)} <= shown


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_prose_refers_to_figures_that_are_there(chapter: Path) -> None:
    for name in re.findall(r"\{numref\}`(?:[^`<]*<)?([^`>]+)", chapter.read_text(encoding="utf-8")):
        assert name in NAMES, f"no figure is called {name}"
