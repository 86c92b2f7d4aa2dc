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
