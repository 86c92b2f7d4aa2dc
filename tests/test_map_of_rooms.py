"""The map of rooms in CONTRIBUTING.md names every room that there is, and tests that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = dict(re.findall(r"^\| `([\w./]+)` \| [^|]+ \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M))
MODULES = sorted((ROOT / "kvpaged").rglob("*.py"))


def test_the_map_names_every_room_and_no_other() -> None:
    modules = {path.name for path in (ROOT / "kvpaged").glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.relative_to(ROOT / 'kvpaged').as_posix()}/" for path in MODULES} - {"./"}
    assert MAP.keys() == modules | folders, "give each room its line in CONTRIBUTING.md"


@pytest.mark.parametrize("room", MAP)
def test_the_map_names_tests_that_are_there(room: str) -> None:
    named = re.findall(r"`(\w+\.py)`", MAP[room])
    assert named or room == "adapters/"
    assert all((ROOT / "tests" / name).is_file() for name in named)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_in_its_first_line_what_it_is_for(module: Path) -> None:
    first = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    assert re.search(r"\w.{10,}[.?`]$", first), "a whole sentence, in one line"


def num_lines(lines: list[str]) -> int:
    """As the small engine's are counted: comments and docstrings too, blank lines not."""
    return sum(bool(line.strip()) for line in lines)


def lines_about_codes(module: Path, functions: set[str]) -> list[str]:
    """Some functions of the kernel whole, and where the others call them, or hand on what they need."""
    lines = module.read_text(encoding="utf-8").splitlines()
    taken = {number for number, line in enumerate(lines) if re.search(r"\bcoded\b|CODED|CodedPages|by_page", line)}
    for number, line in enumerate(lines):
        if "coded_at" in line:  # a line of its own, or a call of `read_block`
            taken |= set(range(number, number + 5 if line.endswith("if coded_at:") else number + 1))
    found = set()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            found.add(node.name)
            first = min([node, *node.decorator_list], key=lambda part: part.lineno).lineno
            taken |= set(range(first - 1, node.end_lineno or 0))
    assert found == functions
    return [lines[number] for number in sorted(taken)]


def test_what_each_chapter_of_the_third_part_adds_is_at_most_five_hundred_lines() -> None:
    """Layers of several kinds; pages of fewer bits, with what the kernel has for them; a second tier, with transfers.

    Not counted is what stands elsewhere: the follower of events, which is a router's, in `lab/`.
    """
    package = ROOT / "kvpaged"
    rooms = {
        room: [line for path in sorted((package / room).glob("*.py")) for line in path.read_text("utf-8").splitlines()]
        for room in ("hybrid", "quantised", "tier")
    }
    rooms["quantised"] += lines_about_codes(package / "kernel" / "compiled.py", {"read_block", "_read_rows"})
    rooms["quantised"] += lines_about_codes(package / "kernel" / "__init__.py", {"attention_on_codes"})
    rooms["tier"] += (package / "transfers.py").read_text("utf-8").splitlines()
    assert {room: max(num_lines(lines), 500) for room, lines in rooms.items()} == dict.fromkeys(rooms, 500)
