"""A trial of the reader's code: many random cases beside the reference, and the smallest in which they part."""

from __future__ import annotations

import contextlib
import io
import linecache
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Case, Drawn, Function
from kvpaged.exercises.time_limit import Stopped, time_limit
from kvpaged.figures.picture import Picture

SECONDS = 5
_PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Failure:
    """A case in which the reader's code did something else, or did not come to an end."""

    case: Case
    expected: Drawn
    yours: Drawn  # empty if it failed
    error: str  # how it failed, in words; empty if it only differs
    printed: str

    def differences(self) -> list[tuple[str, Any, Any]]:
        """What is not as expected: its name, the reader's, the expected. None stands for what is not there."""
        if self.error:
            return []
        seen, expected = self.yours.seen, self.expected.seen
        pairs = [(name, seen.get(name), expected.get(name)) for name in expected | seen]
        return [(name, yours, right) for name, yours, right in pairs if yours != right]

    def pictures(self) -> list[tuple[str, Picture]]:
        """The case in pictures, by name; where the reader's is another than the expected, both."""
        if self.error:
            return []
        try:
            yours = self.yours.draw()
        except Exception:  # it left what is no memory
            return []
        pictures = []
        for name, expected in self.expected.draw().items():
            if repr(yours[name]) == repr(expected):
                pictures.append((name, expected))
            else:
                pictures += [(f"{name}, yours", yours[name]), (f"{name}, expected", expected)]
        return pictures


def try_out(exercise: Build, function: Function) -> tuple[int, Failure | None]:
    """Try a function on all the cases of an exercise, the small ones first.

    Returns how many were tried, and the failure with the shortest words among those of the smallest size that fails.
    """
    chance = Random(exercise.number)
    tried = 0
    for size in range(1, exercise.sizes + 1):
        failures: list[Failure] = []
        for _ in range(exercise.cases_per_size):
            tried += 1
            failure = _try(exercise, function, exercise.cases(chance, size))
            if failure:
                failures.append(failure)
                if "did not end" in failure.error:
                    break  # the others would take as long
        if failures:
            return tried, min(failures, key=lambda each: (len(each.case.words), each.case.words))
    return tried, None


def _try(exercise: Build, function: Function, case: Case) -> Failure | None:
    expected = case.try_on(exercise.reference)
    printed, yours, error = io.StringIO(), Drawn({}), ""
    try:
        with contextlib.redirect_stdout(printed), time_limit(SECONDS):
            yours = case.try_on(function)
    except Stopped as stopped:
        error = f"it did not end within {SECONDS} seconds" + _where(stopped, "; it was at")
    except Exception as raised:
        error = f"it raised {type(raised).__name__}: {' '.join(str(raised).split())}" + _where(raised, ", at")
    if not error and yours.seen == expected.seen:
        return None
    return Failure(case, expected, yours, error, printed.getvalue())


def _where(error: BaseException, lead: str) -> str:
    """The reader's own line that an error came from: the last frame outside of the package."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(_PACKAGE)]
    if not frames:
        return ""
    line = (linecache.getline(frames[-1].filename, frames[-1].lineno or 0) or frames[-1].line or "").strip()
    return f"{lead} line {frames[-1].lineno}" + (f": `{line}`" if line else "")
