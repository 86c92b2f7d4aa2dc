"""A few charts in the book's visual language: lines, steps and bars, labelled directly."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from kvpaged.figures.language import COLOURS, count_of, listed
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label, mark, path, rect, text_width
from kvpaged.metrics import MemoryUse

_WIDTH, _HEIGHT = 720, 280
_TOP, _BOTTOM = 30, 44
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "4 2", "1 3")  # lines are told apart without colour
_MOST_POINTS = 400

Points = Sequence[tuple[float, float]] | Sequence[float]


def line_chart(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    *,
    steps: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    unit: str = "",
) -> Picture:
    """Draw named series, each (x, y) pairs or y values at x = 0, 1, 2, ...; each line carries its name at its end.

    `steps` holds each value until the next; `unit` follows the numbers of the y axis ("%", " B", " ms").
    Raises ValueError when a series is empty, or has a value that a logarithmic axis cannot show.
    """
    lines = {name: _thin(_pairs(name, points), steps) for name, points in series.items()}
    if not lines:
        raise ValueError("there is no series to draw; hand in at least one")
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    x_axis = _Axis(xs, log_x, from_zero=False)
    y_axis = _Axis(ys, log_y, from_zero=True)
    left = 16 + max(text_width(_number(tick) + unit, 11) for tick in y_axis.ticks)
    right = _WIDTH - 12 - max(text_width(name) for name in lines)
    bottom = _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x_axis.share(x) * (right - left), bottom - y_axis.share(y) * (bottom - _TOP)

    drawn = [label(2, 10, y_label, class_="d")]
    for tick in y_axis.ticks:
        _, y = place(x_axis.low, tick)
        drawn.append(path("M", left, y, "L", right, y, class_="g"))
        drawn.append(label(left - 6, y, _number(tick) + unit, class_="e d", font_size=11))
    for tick in x_axis.ticks:
        x, _ = place(tick, y_axis.low)
        drawn.append(path("M", x, bottom, "v", 4, class_="g"))
        drawn.append(label(x, bottom + 13, _number(tick), class_="m d", font_size=11))
    drawn.append(label((left + right) / 2, _HEIGHT - 10, x_label, class_="m d"))
    names = _spread({name: place(*line[-1])[1] for name, line in lines.items()})
    for number, (name, line) in enumerate(lines.items()):
        places = [place(*point) for point in line]
        curve = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
        for (_, before), (x, y) in pairwise(places):
            curve += f"H{x:.1f}V{y:.1f}" if steps and y != before else f"H{x:.1f}" if steps else f"L{x:.1f} {y:.1f}"
        colour, dashes = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
        drawn.append(mark("path", d=curve, class_="q", stroke_dasharray=dashes, stroke_opacity=".75"))
        drawn.append(mark("path", d=curve, class_="y", stroke=colour, stroke_dasharray=dashes))
        drawn.append(label(right + 6, names[name], name))
    return Picture("".join(drawn), _WIDTH, _HEIGHT, _describe_lines(lines, x_label, y_label, unit))


def memory_chart(
    samples: Iterable[MemoryUse] | Mapping[str, Points], *, x_label: str = "events", y_label: str = "pages"
) -> Picture:
    """Draw memory over time: what `memory_over_time` returns, or several series of your own, as steps.

    Samples show the pages in use, how many of them only the prefix cache keeps, and how many the tables of live
    sequences would need if nothing were shared.
    """
    if isinstance(samples, Mapping):
        return line_chart(samples, x_label, y_label, steps=True)
    uses = list(samples)
    series: dict[str, Points] = {"in use": [(use.event, use.used) for use in uses]}
    if any(use.saved_by_sharing for use in uses):
        series["if nothing were shared"] = [(use.event, use.used + use.saved_by_sharing) for use in uses]
    if any(use.idle for use in uses):
        series["kept by the prefix cache alone"] = [(use.event, use.idle) for use in uses]
    return line_chart(series, x_label, y_label, steps=True)


def bar_chart(values: Mapping[str, float], *, unit: str = "", title: str = "", bound: float | None = None) -> Picture:
    """Draw a few named values as bars, each with its number; `bound` is a value that a line marks.

    Raises ValueError when there is no value, or one is negative.
    """
    if not values or min(values.values()) < 0:
        raise ValueError(f"bars need at least one value, and none below 0; these are {dict(values)}")
    left = 14 + max(text_width(name) for name in values)
    most = max([*values.values(), bound or 0]) or 1
    room = _WIDTH - left - 16 - max(text_width(_number(value) + unit) for value in values.values())
    top = 24 if title or bound is not None else 4
    drawn = [label(2, 10, title, class_="d")] if title else []
    for index, (name, value) in enumerate(values.items()):
        y, width = top + index * 28, room * value / most
        drawn.append(label(left - 8, y + 11, name, class_="e"))
        drawn.append(rect(left, y, max(width, 1.0), 22, fill=COLOURS[index % len(COLOURS)], class_="u"))
        drawn.append(label(left + width + 8, y + 11.5, _number(value) + unit, class_="b"))
    height = top + 28 * len(values)
    alt = f"Bars{f', {title}' if title else ''}: " + listed(f"{name} {_number(value)}{unit}" for name, value in values.items())
    if bound is not None:
        x = left + room * bound / most
        drawn.append(path("M", x, top - 6, "V", height, class_="a", stroke_dasharray="4 3"))
        drawn.append(label(x, 10, f"bound {_number(bound)}{unit}", class_="e" if x > _WIDTH / 2 else None))
        alt += f"; the bound is {_number(bound)}{unit}"
    return Picture("".join(drawn), _WIDTH, height, alt + ".")


class _Axis:
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


def _round_step(step: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _number(value: float) -> str:
    """Write a number briefly: 1,500; 0.25; 3.2 million."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.3g} M" if abs(value) < 1e9 else f"{value / 1e9:,.3g} G"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _pairs(name: str, points: Points) -> list[tuple[float, float]]:
    pairs = [
        (float(point[0]), float(point[1])) if isinstance(point, tuple | list) else (float(index), float(point))
        for index, point in enumerate(points)
    ]
    if not pairs:
        raise ValueError(f"series {name!r} is empty; leave it out")
    return pairs


def _thin(points: list[tuple[float, float]], steps: bool) -> list[tuple[float, float]]:
    """Drop points that would not be seen: those inside a level step, then whatever lies closer than a pixel."""
    if steps:
        kept = [point for before, point, after in zip(points, points[1:], points[2:], strict=False) if not before[1] == point[1] == after[1]]
        points = [points[0], *kept, *points[-1:]] if len(points) > 1 else points
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-len(points) // (_MOST_POINTS // 2))
    thinned = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        thinned += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [points[0], *thinned[1:-1], points[-1]]


def _spread(places: dict[str, float]) -> dict[str, float]:
    """Move names apart that would be written over one another."""
    moved: dict[str, float] = {}
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        moved[name] = max([y, *(other + 15 for other in moved.values())])
    over = max(moved.values()) - (_HEIGHT - _BOTTOM + 4)
    if over > 0:
        limit = _HEIGHT - _BOTTOM + 4.0
        for name in reversed(moved):
            moved[name] = min(moved[name], limit)
            limit = moved[name] - 15
    return moved


def _describe_lines(
    lines: Mapping[str, list[tuple[float, float]]], x_label: str, y_label: str, unit: str
) -> str:
    words = [f"{count_of(len(lines), 'line')} of {y_label} over {x_label}."]
    for name, line in lines.items():
        peak_x, peak = max(line, key=lambda point: point[1])
        sentence = f"{name}: from {_number(line[0][1])}{unit} to {_number(line[-1][1])}{unit}"
        if peak > max(line[0][1], line[-1][1]):
            sentence += f", at most {_number(peak)}{unit} (at {_number(peak_x)})"
        words.append(sentence + ".")
    return " ".join(words)
