"""Lengths as they were measured somewhere, kept as a few quantiles: the shape of a trace without the trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple


class MeasuredLengths(NamedTuple):
    """Lengths in tokens: as many of a measured kind are near one of `quantiles` as near any other."""

    quantiles: Sequence[int]

    @property
    def mean(self) -> float:
        """The mean of the quantiles, near that of what was measured."""
        return sum(self.quantiles) / len(self.quantiles)

    def scaled(self, mean: float, most: int) -> MeasuredLengths:
        """Return the same shape with another mean, the longest cut to `most`. Raises ValueError if that cannot be."""
        if not 1 <= mean < most:
            raise ValueError(f"lengths with mean {mean} and at most {most}: the mean must be from 1 to below the most")

        def scale(factor: float) -> MeasuredLengths:
            return MeasuredLengths([max(1, min(most, round(each * factor))) for each in self.quantiles])

        low, high = 0.0, float(most)
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if scale(middle).mean < mean else (low, middle)
        return scale(high)

    def draw(self, count: int, rng: random.Random) -> list[int]:
        """Return so many lengths."""
        return rng.choices(self.quantiles, k=count)
