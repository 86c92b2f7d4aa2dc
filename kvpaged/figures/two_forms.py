"""The small engine beside the package: what the package adds to each piece, in how many lines, and where it stands."""

from collections.abc import Iterator
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
        "Numbers of 16 bits; a wrong slot refused before a byte is written; pages as views.",
    ),
    Row(
        4,
        ("page_pool.py",),
        {"page_pool.py": "PagePool"},
        "Many pages at once, or none; errors that name the page and the remedy; a million pages open in a blink.",
    ),
    Row(5, ("page_table.py",), {"page_table.py": "PageTable"}, "Going back; tokens that are not there refused."),
    Row(
        6,
        ("attention.py", "reader.py"),
        {"attention.py": "paged_attention"},
        "The formula, a gathering form and a streaming form, each checked by the others.",
    ),
    Row(
        7,
        ("prefix_cache.py", "tokens.py"),
        {"prefix_cache.py": "PrefixCache"},
        "A hit to the token by one search, however many siblings; an eviction that need not look at every page.",
    ),
    Row(
        9,
        ("sequence.py", "memory.py", "cache.py"),
        {"sequence.py": "Sequence", "memory.py": "Memory"},
        "Going back; its place in the trie kept, where the small engine walks from the root at each step.",
    ),
    Row(
        10,
        ("paged_step.py", "engine/*.py"),
        {"engine/engine.py": "Engine", "engine/scheduler.py": "Scheduler"},
        "Sampling, several samples, beams, guesses; text as it comes, stop strings, cancelling; a step that fails and "
        "loses nothing; metrics.",
    ),
    Row(
        11,
        ("events.py", "metrics.py", "replay.py", "laws.py", "poison.py"),
        {"events.py": "EventLog", "laws.py": "check", "poison.py": "PoisonedStorage"},
        "What happened, in order; measures of it; the judge of the laws, and a storage that stops who breaks them.",
    ),
    Row(
        12,
        ("kernel/*.py",),
        {"kernel/__init__.py": "attention"},
        "Attention and layers compiled, on pages in place and all threads; the same bits in any batch.",
    ),
)


class TwoForms:
    """A list with an entry for each piece. Lines are those not blank; the package's, to the nearest hundred.

    The book renders plain Markdown, which has no tables, and makes of its links ways to the pages of the source.
    """

    def _repr_markdown_(self) -> str:
        entries = []
        for piece, ours, theirs, row in _counted():
            links = ", ".join(f'[`{file}`](../kvpaged/{file} "{name}")' for file, name in row.shown.items())
            entries.append(f"- **{piece}: {ours}, {theirs}** in the package. {row.beyond} ({links})")
        return "\n".join([*entries, f"- **{_in_all()}**"])

    def __repr__(self) -> str:
        entries = [f"{piece}: {ours}, {theirs} in the package. {row.beyond}" for piece, ours, theirs, row in _counted()]
        return "\n".join([*entries, _in_all()])


def two_forms() -> TwoForms:
    """Show what the package adds to each piece of the small engine."""
    return TwoForms()


def _counted() -> Iterator[tuple[str, str, str, Row]]:
    """Each piece, its lines in the small engine and in the package, and its row."""
    pieces = pieces_of_the_small_engine()
    for row in ROWS:
        title, ours = pieces.get(row.chapter, ("", 0))
        name = f"Chapter {row.chapter}" + (f", {title}" if title else "")
        yield name, f"{ours} lines" if ours else "nothing", _rounded(_lines_of(row)), row


def _in_all() -> str:
    total = sum(map(_lines_of, ROWS))
    return f"In all, with headings: {_num_lines(_ROOM / 'mini.py')} lines, {_rounded(total)} in the package"


def _lines_of(row: Row) -> int:
    return sum(_num_lines(path) for pattern in row.files for path in _ROOM.glob(pattern))


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
