"""The table of the small engine beside the package counts what is there."""

import re
from pathlib import Path

import kvpaged
from kvpaged import mini
from kvpaged.figures import two_forms
from kvpaged.figures.two_forms import ROWS, pieces_of_the_small_engine

ROOM = Path(kvpaged.__file__).parent


def cells() -> list[list[str]]:
    lines = two_forms()._repr_markdown_().split("\n")[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_piece_of_the_small_engine_has_a_row() -> None:
    pieces = pieces_of_the_small_engine()
    assert {row.chapter for row in ROWS} >= set(pieces)
    assert [row[1] for row in cells() if row[1] != "none"][:-1] == [str(lines) for _, lines in pieces.values()]


def test_every_pattern_finds_a_file_and_every_link_leads_to_a_name() -> None:
    for row in ROWS:
        found = [path for pattern in row.files for path in ROOM.glob(pattern)]
        assert len(found) >= len(row.files)
        for file, name in row.shown.items():
            assert ROOM / file in found
            assert re.search(rf"^(?:class|def) {name}\b", (ROOM / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_a_line_is_one_that_is_not_blank() -> None:
    first, last = cells()[0], cells()[-1]
    whole = [line for line in Path(mini.__file__).read_text(encoding="utf-8").split("\n") if line.strip()]
    assert last[:2] == ["in all, with headings", str(len(whole))]
    storage = [line for line in (ROOM / "page.py").read_text(encoding="utf-8").split("\n") if line.strip()]
    assert abs(int(first[2]) - len(storage)) <= 50


def test_it_says_the_same_in_words() -> None:
    text = repr(two_forms())
    assert text.count("\n") == len(ROWS)
    assert text.startswith("chapter 3: pages: 6 lines and ")
