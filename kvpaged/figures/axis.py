"""Axes of the book's charts: a range of values, round numbers to mark on it, and how numbers are written."""

import math
from collections.abc import Sequence


class Axis:
    """A range of values, and the round numbers to mark on it."""

    def __init__(self, values: Sequence[float], logarithmic: bool, from_zero: bool) -> None:
        self.logarithmic = logarithmic
        low, high = min(values), max(values)
        if logarithmic:
            if low <= 0:
                raise ValueError(f"a logarithmic axis cannot show {low}; leave it out or use a linear axis")
            first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
            self.ticks = [10.0**power for power in range(first, max(last, first + 1) + 1)]
            self.low, self.high = (self.ticks[0], self.ticks[-1]) if from_zero else (low, max(high, low * 1.001))
            self.ticks = [tick for tick in self.ticks if self.low <= tick <= self.high] or [low]
            return
        self.low = min(0.0, low) if from_zero else low
        step = _round_step(max(high - self.low, 1e-9) / 5)
        count = math.ceil((high - self.low) / step - 1e-9) if from_zero else 0
        self.high = max(self.low + count * step, high, self.low + 1e-9)
        start = math.ceil(self.low / step - 1e-9)
        self.ticks = [number * step for number in range(start, math.floor(self.high / step + 1e-9) + 1)]

    def share(self, value: float) -> float:
        """Where a value stands between the ends of the axis: 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def written(value: float, unit: str = "") -> str:
    """Write a number briefly with its unit: 1,500; 0.25%; 3.2 MB."""
    for size, prefix in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.3g} {prefix}{unit.strip()}"
    if value == round(value):
        return f"{value:,.0f}{unit}"
    return (f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}") + unit


def _round_step(step: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
