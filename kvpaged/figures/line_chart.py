"""Lines and steps: one value over another, each line with its name at its end."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from kvpaged.figures.axis import Axis, written
from kvpaged.figures.language import count_of, owner_colour
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label, mark, path, text_width

_WIDTH, _HEIGHT = 720, 280
_TOP, _BOTTOM = 30, 44
_MOST_POINTS = 400
# Lines are told apart without colour. The owners' colours are left to the owners.
_PAINTS = (("1", None), ("2", "8 3"), ("3", "2 3"), ("1", "10 3 2 3"), ("2", "4 2"), ("3", "12 4"))

Points = Iterable[tuple[float, float] | float]


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
    x_axis = Axis(xs, log_x, from_zero=False)
    y_axis = Axis(ys, log_y, from_zero=True)
    left = 16 + max(text_width(written(tick, unit), 11) for tick in y_axis.ticks)
    right = _WIDTH - 40 - max(text_width(name) for name in lines)
    bottom = _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x_axis.share(x) * (right - left), bottom - y_axis.share(y) * (bottom - _TOP)

    drawn = [label(2, 10, y_label, class_="d")]
    for tick in y_axis.ticks:
        _, y = place(x_axis.low, tick)
        drawn.append(path("M", left, y, "L", right, y, class_="g"))
        drawn.append(label(left - 6, y, written(tick, unit), class_="e d", font_size=11))
    for tick in x_axis.ticks:
        x, _ = place(tick, y_axis.low)
        drawn.append(path("M", x, bottom, "v", 4, class_="g"))
        drawn.append(label(x, bottom + 13, written(tick), class_="m d", font_size=11))
    drawn.append(label((left + right) / 2, _HEIGHT - 10, x_label, class_="m d"))
    names = _spread({name: place(*line[-1])[1] for name, line in lines.items()})
    for number, (name, line) in enumerate(lines.items()):
        places = [place(*point) for point in line]
        curve = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
        for (_, before), (x, y) in pairwise(places):
            curve += f"H{x:.1f}V{y:.1f}" if steps and y != before else f"H{x:.1f}" if steps else f"L{x:.1f} {y:.1f}"
        drawn.append(_line(curve, name, number))
        drawn.append(_line(f"M{right + 8:.1f} {names[name]:.1f}h22", name, number))
        drawn.append(label(right + 34, names[name], name))
    return Picture("".join(drawn), _WIDTH, _HEIGHT, _describe_lines(lines, x_label, y_label, unit))


def _line(curve: str, name: str, number: int) -> str:
    """A line; one named with a single letter is a sequence's, and has its colour."""
    paint, dashes = _PAINTS[number % len(_PAINTS)]
    if len(name) == 1 and name.isupper():
        drawn = mark("path", d=curve, class_="q", stroke_dasharray=dashes)
        return drawn + mark("path", d=curve, class_="k", stroke=owner_colour(name), stroke_dasharray=dashes)
    return mark("path", d=curve, class_=f"y y{paint}", stroke_dasharray=dashes)


def _pairs(name: str, points: Points) -> list[tuple[float, float]]:
    pairs = [
        (float(point[0]), float(point[1])) if isinstance(point, tuple) else (float(index), float(point))
        for index, point in enumerate(points)
    ]
    if not pairs:
        raise ValueError(f"series {name!r} is empty; leave it out")
    return pairs


def _thin(points: list[tuple[float, float]], steps: bool) -> list[tuple[float, float]]:
    """Drop points that would not be seen: those inside a level step, then whatever lies closer than a pixel."""
    if steps:
        inner = range(1, len(points) - 1)
        levels = [y for _, y in points]
        kept = [points[index] for index in inner if not levels[index - 1] == levels[index] == levels[index + 1]]
        points = [points[0], *kept, *points[1:][-1:]]
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


def _describe_lines(lines: Mapping[str, list[tuple[float, float]]], x_label: str, y_label: str, unit: str) -> str:
    words = [f"{count_of(len(lines), 'line')} of {y_label} over {x_label}."]
    for name, line in lines.items():
        peak_x, peak = max(line, key=lambda point: point[1])
        sentence = f"{name}: from {written(line[0][1], unit)} to {written(line[-1][1], unit)}"
        if peak > max(line[0][1], line[-1][1]):
            sentence += f", at most {written(peak, unit)} (at {written(peak_x)})"
        words.append(sentence + ".")
    return " ".join(words)
