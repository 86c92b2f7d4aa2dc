"""Each chapter is laid out alike: a reader knows where to find what."""

import re
from pathlib import Path

import pytest

from kvpaged import EventKind
from kvpaged.engine import EngineEvent
from notebook_form import read

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("[0-9][0-9]-*.ipynb"))
PARTS = [
    "Where we are",
    "The problem, running",
    "The idea, small",
    "Break it",
    "Measure it",
    "In production",
    "Exercises",
    "What now holds",
]


def parts(chapter: Path) -> dict[str, str]:
    """What stands under each heading of the second level, in order; code counts as text."""
    whole = "\n\n".join(cell.source if cell.cell_type == "markdown" else "code" for cell in read(chapter).cells)
    return dict(part.split("\n", 1) for part in re.split(r"^## ", whole + "\n", flags=re.MULTILINE)[1:])


def test_the_chapters_are_numbered_without_a_gap() -> None:
    assert [int(chapter.name[:2]) for chapter in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_its_eight_parts_in_order_and_none_is_empty(chapter: Path) -> None:
    found = parts(chapter)
    assert list(found) == PARTS
    for heading, text in found.items():
        assert re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE).strip(), f"nothing stands under {heading!r}"


def test_the_page_before_the_rooms_names_every_kind_of_event() -> None:
    page = (Path(__file__).parents[1] / "chapters" / "words-and-rooms.ipynb").read_text(encoding="utf-8")
    named = re.findall(r"\| `([a-z ]+)` \| .*? \| \d+ \|", page)
    kinds = [word for name, word in vars(EventKind).items() if name.isupper()]
    assert sorted(named) == sorted([*kinds, *EngineEvent])
