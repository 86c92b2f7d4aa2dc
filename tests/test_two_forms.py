"""The list of the small engine beside the package counts what is there."""

import re
from pathlib import Path

import kvpaged
from kvpaged.figures import two_forms
from kvpaged.figures.two_forms import ROWS, pieces_of_the_small_engine

ROOM = Path(kvpaged.__file__).parent


def lines_of(file: str) -> int:
    return sum(bool(line.strip()) for line in (ROOM / file).read_text(encoding="utf-8").split("\n"))


def test_every_piece_of_the_small_engine_has_a_row_with_its_lines() -> None:
    pieces = pieces_of_the_small_engine()
    assert {row.chapter for row in ROWS} >= set(pieces)
    shown = re.findall(r"^Chapter (\d+), (.*?): (\d+) lines", repr(two_forms()), re.MULTILINE)
    assert {int(chapter): (title, int(lines)) for chapter, title, lines in shown} == pieces
    headings_and_head = len(pieces) + 2
    assert sum(lines for _, lines in pieces.values()) + headings_and_head == lines_of("mini.py")


def test_every_pattern_finds_a_file_and_every_link_leads_to_a_name() -> None:
    for row in ROWS:
        found = [path for pattern in row.files for path in ROOM.glob(pattern)]
        assert len(found) >= len(row.files)
        for file, name in row.shown.items():
            assert ROOM / file in found
            assert re.search(rf"^(?:class|def) {name}\b", (ROOM / file).read_text(encoding="utf-8"), re.MULTILINE)
            assert f'](../kvpaged/{file} "{name}")' in two_forms()._repr_markdown_()


def test_the_packages_lines_are_rounded_to_hundreds() -> None:
    first, last = two_forms()._repr_markdown_().split("\n")[:: len(ROWS)]
    (pages,) = re.findall(r"lines, ([\d,]+)\*\* in the package", first)
    assert abs(int(pages) - lines_of("page.py")) <= 50
    assert f"{lines_of('mini.py')} lines, " in last


def test_it_says_the_same_in_words() -> None:
    assert repr(two_forms()).count("\n") == len(ROWS)
