"""What an exercise is: a question with instances without end, or a function to write and cases to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from kvpaged.figures.picture import Picture

Function = Callable[..., Any]
Seen = dict[str, Any]  # what can be seen of a run, by name; two runs agree if these are equal


@dataclass(frozen=True)
class Question:
    """One instance of a question: its words, and the right answer (an integer, or a tuple of them, or a word)."""

    words: str
    answer: Any


@dataclass(frozen=True)
class Predict:
    """A question with instances without end: `instance` makes one from a source of chance."""

    number: str
    title: str
    instance: Callable[[Random], Question]
    hints: tuple[str, ...]
    kind: str = "predict"


class Drawn(NamedTuple):
    """What can be seen of a run, and the same in pictures, by name: made only where somebody looks at them."""

    seen: Seen
    draw: Callable[[], Mapping[str, Picture]] = dict


@dataclass(frozen=True)
class Case:
    """One thing to try on a function, in surroundings of its own.

    run: calls the function it is given, and returns what can be seen afterwards. It must build all that it hands over
    anew, since it is run with the reader's function and with the reference.
    """

    words: str
    run: Callable[[Function], Seen | Drawn]

    def try_on(self, function: Function) -> Drawn:
        """Run it."""
        came = self.run(function)
        return came if isinstance(came, Drawn) else Drawn(came)


@dataclass(frozen=True)
class Build:
    """A function to write (`build`), or to mend (`debug`).

    name: what the function is called. cases: makes a case of a given size (1 is the smallest) from a source of chance.
    reference: a function that is right. hints: the first is shown beside a failed check.
    """

    number: str
    name: str
    title: str
    cases: Callable[[Random, int], Case]
    reference: Function
    hints: tuple[str, ...]
    kind: str = "build"
    against: str = "the small engine"
    sizes: int = 10
    cases_per_size: int = 30


Exercise = Predict | Build


def outcome(function: Function, *arguments: Any, refusals: tuple[type[Exception], ...] = ()) -> Seen:
    """What came of a call: what it returned, or with which of the refusals it answered. Other errors go through."""
    try:
        return {"it returned": function(*arguments)}
    except refusals as refusal:
        return {"it raised": type(refusal).__name__}
