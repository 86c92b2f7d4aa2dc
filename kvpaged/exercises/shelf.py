"""Where an exercise stands: `4.2` in `chapter_04`, `M.2` in the museum. A shelf is read when somebody asks for it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from kvpaged.exercises.exercise import Exercise


def find(number: str) -> Exercise:
    """The exercise of that number. Raises ValueError if there is none, and says which there are."""
    if not isinstance(number, str):  # 10.10 is 10.1 to Python
        raise TypeError(f"{number!r} is no exercise's number: write it in quotes, as in '4.1'")
    chapter = number.partition(".")[0]
    shelf = next((name for name in _shelves() if _chapter(name) == chapter), None)
    there = {each.number: each for each in _read(shelf)} if shelf else {}
    if number in there:
        return there[number]
    known = ", ".join(there) or "chapters " + ", ".join(_chapter(name) for name in _shelves())
    raise ValueError(f"no exercise {number!r} to check: there are {known}")


def exercises() -> list[Exercise]:
    """All exercises that can be checked, in the book's order."""
    return [exercise for shelf in _shelves() for exercise in _read(shelf)]


def _shelves() -> list[str]:
    import kvpaged.exercises as room

    return sorted(each.name for each in iter_modules(room.__path__) if each.name.startswith(("chapter_", "museum")))


def _chapter(shelf: str) -> str:
    return "M" if shelf == "museum" else str(int(shelf.removeprefix("chapter_")))


def _read(shelf: str) -> list[Exercise]:
    return list(import_module(f"kvpaged.exercises.{shelf}").EXERCISES)
