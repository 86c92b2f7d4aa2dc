"""vLLM #25780: a hit rate that rises when memory is short."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kvpaged import mini
from kvpaged.exercises.exercise import Function, Seen
from kvpaged.exercises.museum.piece import BY_COUNT, piece
from kvpaged.exercises.museum.played import Beginning
from kvpaged.exercises.museum.serving import servings
from kvpaged.figures.picture import Picture


def hit_rate(beginnings: list[Beginning]) -> float:
    """Of all prompt tokens asked for, the part that was found."""
    asked = sum(tokens for _, tokens, _ in beginnings)
    return sum(found for _, _, found in beginnings) / asked


def _mended(beginnings: list[Beginning]) -> float:
    first = {name: (tokens, found) for name, tokens, found in reversed(beginnings)}
    asked = sum(tokens for tokens, _ in first.values())
    return sum(found for _, found in first.values()) / asked


@dataclass
class Rate:
    """What the function said."""

    steps: int
    rate: str
    objection: str = ""

    def seen(self) -> Seen:
        """The rate, as it would stand on a dashboard."""
        return {"the hit rate": self.rate}

    def draw(self) -> dict[str, Picture]:
        """A number needs no picture."""
        return {}


@dataclass(frozen=True)
class Watched:
    """An hour of serving, and how its requests began."""

    steps: int
    beginnings: tuple[Beginning, ...]

    def words(self, steps: int | None = None) -> str:
        """The call."""
        return f"`hit_rate({[*self.beginnings]})`"

    def play(self, function: Function) -> Rate:
        """Ask for the rate."""
        return Rate(self.steps, f"{function([*self.beginnings]):.4f}")


def _watched(chance: Random, size: int) -> Watched:
    played = servings("preempt")(chance, size).play(mini.preempt)
    return Watched(played.steps, tuple(played.beginnings))


PIECE = piece(
    number="M.14",
    title="a hit rate that rises when memory is short",
    broken=hit_rate,
    mended=_mended,
    trials=_watched,
    convicted_by=BY_COUNT,
    against="a rate that is counted by hand",
    hints=(
        "Some requests begin twice. Why, and what do they find the second time?",
        "A preempted request that begins again finds what it computed itself. Nobody's work was spared.",
        "Count the first beginning of each request, and no other: its tokens and what was found of them.",
    ),
)
