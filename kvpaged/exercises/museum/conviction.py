"""A piece of the museum at work: the bug in place, random histories, and the first who objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from kvpaged import mini
from kvpaged.exercises.exercise import Seen
from kvpaged.exercises.museum.in_place import in_place_of
from kvpaged.exercises.museum.piece import BY_COUNT, Piece, Trial
from kvpaged.exercises.verdict import Verdict
from kvpaged.wording import count_of

MOST_STEPS = 1_000


@dataclass(frozen=True)
class Conviction:
    """After how many random steps somebody objected, in which history, and what was said."""

    number: str
    steps: int
    words: str
    objection: str

    def __repr__(self) -> str:
        return repr(self._verdict())

    def _repr_html_(self) -> str:
        return self._verdict()._repr_html_()

    def _verdict(self) -> Verdict:
        first = f"convicted after {count_of(self.steps, 'random step')}."
        return Verdict(self.number, False, (first, self.words, self.objection))


def convict(piece: Piece, seed: int = 0) -> Conviction:
    """Play random histories with the bug in place, the short ones first, until the judge objects.

    Where no law is broken, what can be counted is compared with the small engine. Raises AssertionError if nobody
    objects within a thousand steps.
    """
    chance, steps = Random(f"{piece.exercise.number}/{seed}"), 0
    for turn in range(MOST_STEPS):
        trial = piece.trials(chance, 1 + turn // piece.exercise.cases_per_size)
        taken, objection = _try(piece, trial)
        steps += taken
        if steps > MOST_STEPS:
            break
        if objection:
            return Conviction(piece.exercise.number, steps, trial.words(taken), objection)
    raise AssertionError(f"nobody objects to {piece.exercise.number} within {MOST_STEPS} random steps")


@contextmanager
def bug_in_place(piece: Piece) -> Iterator[None]:
    """Let the small engine run with the bug. Raises ValueError for a function that the small engine does not have."""
    if not hasattr(mini, piece.exercise.name):
        raise ValueError(f"the small engine has no {piece.exercise.name}: convict({piece.exercise.number!r}) plays it")
    with in_place_of(piece.exercise.name, piece.broken):
        yield


def _try(piece: Piece, trial: Trial) -> tuple[int, str]:
    try:
        played = trial.play(piece.broken)
    except Exception as error:
        return 1, f"it raised {type(error).__name__}: {error}"
    if played.objection:
        return played.steps, f"The judge, {played.objection}"
    if piece.convicted_by != BY_COUNT:
        return played.steps, ""
    return played.steps, _difference(played.seen(), trial.play(piece.exercise.reference).seen())


def _difference(seen: Seen, expected: Seen) -> str:
    differing = [name for name in expected if seen.get(name) != expected[name]]
    told = [f"{name}: {seen.get(name)}, and it should be {expected[name]}" for name in differing]
    return f"{BY_COUNT}, but {'; '.join(told)}" if told else ""
