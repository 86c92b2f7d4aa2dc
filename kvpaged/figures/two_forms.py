"""The small engine beside the package: what the package adds to each piece, in how many lines, and where it stands."""

from pathlib import Path
from typing import NamedTuple

import kvpaged

_ROOM = Path(kvpaged.__file__).parent


class Row(NamedTuple):
    """What belongs to one chapter. files: patterns under `kvpaged/`; shown: of these, what to link, by a name in it."""

    chapter: int
    files: tuple[str, ...]
    shown: dict[str, str]
    beyond: str


ROWS = (
    Row(
        3,
        ("page.py",),
        {"page.py": "PageStorage"},
        "numbers of 16 bits; a wrong slot refused before a byte is written; pages as views",
    ),
    Row(
        4,
        ("page_pool.py",),
        {"page_pool.py": "PagePool"},
        "many pages at once, or none; errors that name the page and the remedy; a million pages open in a blink",
    ),
    Row(5, ("page_table.py",), {"page_table.py": "PageTable"}, "going back; tokens that are not there refused"),
    Row(
        6,
        ("attention.py", "reader.py"),
        {"attention.py": "paged_attention"},
        "the formula, a gathering form and a streaming form, each checked by the others",
    ),
    Row(
        7,
        ("prefix_cache.py", "tokens.py"),
        {"prefix_cache.py": "PrefixCache"},
        "a hit to the token by one search, however many siblings; an eviction that need not look at every page",
    ),
    Row(
        9,
        ("sequence.py", "memory.py", "cache.py"),
        {"sequence.py": "Sequence", "memory.py": "Memory"},
        "going back; its place in the trie kept, where the small engine walks from the root at each step",
    ),
    Row(
        10,
        ("paged_step.py", "engine/*.py"),
        {"engine/engine.py": "Engine", "engine/scheduler.py": "Scheduler"},
        "sampling, several samples, beams, guesses; text as it comes, stop strings, cancelling; a step that fails and "
        "loses nothing; metrics",
    ),
    Row(
        11,
        ("events.py", "metrics.py", "replay.py", "laws.py", "poison.py"),
        {"events.py": "EventLog", "laws.py": "check", "poison.py": "PoisonedStorage"},
        "what happened, in order; measures of it; the judge of the laws, and a storage that stops who breaks them",
    ),
    Row(
        12,
        ("kernel/*.py",),
        {"kernel/__init__.py": "attention"},
        "attention and layers compiled, on pages in place and all threads; the same bits in any batch",
    ),
)


class TwoForms:
    """A table with a row for each piece. Lines are those that are not blank; the package's, to the nearest hundred."""

    def _repr_markdown_(self) -> str:
        heads = ["", "small engine", "package", "where", "what the package adds"]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *self._cells()))

    def __repr__(self) -> str:
        return "\n".join(
            f"{piece}: {ours} lines and {theirs}. {adds}" for piece, ours, theirs, _, adds in self._cells()
        )

    def _cells(self) -> list[list[str]]:
        pieces, cells, total = pieces_of_the_small_engine(), list[list[str]](), 0
        for chapter, files, shown, beyond in ROWS:
            title, ours = pieces.get(chapter, ("", 0))
            theirs = sum(_num_lines(path) for pattern in files for path in _ROOM.glob(pattern))
            where = ", ".join(f'[`{file}`](../kvpaged/{file} "{name}")' for file, name in shown.items())
            name = f"chapter {chapter}: {title}" if title else f"chapter {chapter}"
            cells.append([name, str(ours or "none"), _rounded(theirs), where, beyond])
            total += theirs
        return [*cells, ["in all, with headings", str(_num_lines(_ROOM / "mini.py")), _rounded(total), "", ""]]


def two_forms() -> TwoForms:
    """Show what the package adds to each piece of the small engine."""
    return TwoForms()


def pieces_of_the_small_engine() -> dict[int, tuple[str, int]]:
    """Of each chapter that adds to `kvpaged/mini.py`: its title, and the lines."""
    pieces: dict[int, tuple[str, int]] = {}
    for part in (_ROOM / "mini.py").read_text(encoding="utf-8").split("# Chapter ")[1:]:
        heading, code = part.split("\n", 1)
        chapter, title = heading.split(": ")
        pieces[int(chapter)] = title, _count(code)
    return pieces


def _num_lines(path: Path) -> int:
    return _count(path.read_text(encoding="utf-8"))


def _count(code: str) -> int:
    return sum(bool(line.strip()) for line in code.split("\n"))


def _rounded(lines: int) -> str:
    return f"{round(lines, -2):,}"
