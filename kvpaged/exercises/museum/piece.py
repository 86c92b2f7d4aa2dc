"""A piece of the museum: a bug in our own code, the exercise to mend it, and who convicts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Seen
from kvpaged.figures.picture import Picture


class Outcome(Protocol):
    """What came of a trial: how many steps it took, who objected, and what can be compared."""

    steps: int
    objection: str

    def seen(self) -> Seen: ...

    def draw(self) -> Mapping[str, Picture]: ...


class Trial(Protocol):
    """Something that happens with a function in the place of the small engine's."""

    def words(self, steps: int | None = None) -> str: ...

    def play(self, function: Function) -> Outcome: ...


BY_COUNT = "No law is broken"
Trials = Callable[[Random, int], Trial]


@dataclass(frozen=True)
class Piece:
    """broken: the bug, as the reader meets it. convicted_by: words that its conviction says.

    BY_COUNT, if no law is broken: then what can be counted is compared.
    """

    exercise: Build
    broken: Function
    trials: Trials
    convicted_by: str


def piece(
    number: str,
    title: str,
    broken: Function,
    mended: Function,
    trials: Trials,
    convicted_by: str,
    hints: tuple[str, ...],
    against: str = "the small engine",
    sizes: int = 10,
) -> Piece:
    """A piece whose exercise is to mend `broken`, judged on random trials beside `mended`."""

    def cases(chance: Random, size: int) -> Case:
        trial = trials(chance, size)

        def run(function: Function) -> Drawn:
            outcome = trial.play(function)
            return Drawn(outcome.seen(), outcome.draw)

        return Case(trial.words(), run)

    exercise = Build(number, broken.__name__, title, cases, mended, hints, kind="debug", against=against, sizes=sizes)
    return Piece(exercise, broken, trials, convicted_by)
