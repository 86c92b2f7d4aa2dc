"""Which exercises somebody has solved, kept in a file of the folder in which they work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kvpaged.exercises.shelf import exercises

FILE = ".kvpaged-progress.json"
VARIABLE = "KVPAGED_PROGRESS"  # another file; empty: keep nothing, as in the tests and the build of the book


def keep(number: str) -> None:
    """Remember that an exercise is solved. A folder that cannot be written to keeps nothing, and nobody is stopped."""
    file = _file()
    if file and number not in (solved := _solved()):
        try:
            file.write_text(json.dumps(sorted({*solved, number})) + "\n", encoding="utf-8")
        except OSError:
            return


@dataclass(frozen=True)
class Progress:
    """Which exercises are solved, by chapter."""

    solved: frozenset[str]
    numbers: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([self._first(), *(f"{chapter}: {self._line(chapter)}" for chapter in self._chapters())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row' style='white-space:nowrap'>{each}</th><td>{self._line(each)}</td></tr>"
            for each in self._chapters()
        )
        return f"<p>{self._first()}</p><table><tbody>{rows}</tbody></table>"

    def _first(self) -> str:
        return f"{len(self.solved & {*self.numbers})} of {len(self.numbers)} exercises solved"

    def _chapters(self) -> Iterable[str]:
        return dict.fromkeys(_chapter(number) for number in self.numbers)

    def _line(self, chapter: str) -> str:
        mine = [number for number in self.numbers if _chapter(number) == chapter]
        return "  ".join(f"{'✓' if number in self.solved else '○'} {number}" for number in mine)


def progress() -> Progress:
    """What is solved so far, in this folder."""
    return Progress(frozenset(_solved()), tuple(exercise.number for exercise in exercises()))


def _chapter(number: str) -> str:
    chapter = number.partition(".")[0]
    return "Museum" if chapter == "M" else f"Chapter {chapter}"


def _file() -> Path | None:
    name = os.environ.get(VARIABLE, FILE)
    return Path(name) if name else None


def _solved() -> set[str]:
    file = _file()
    try:
        return {str(number) for number in json.loads(file.read_text(encoding="utf-8"))} if file else set()
    except (OSError, ValueError, TypeError):
        return set()  # not there yet, or not ours
