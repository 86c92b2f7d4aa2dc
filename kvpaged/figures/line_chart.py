"""Lines and steps: one value over another, under a key of the lines."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import log2
from typing import TYPE_CHECKING, Any

from kvpaged.figures.chart import DIM, INK, LIT, chart, drawing, written
from kvpaged.figures.language import owner_colour
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import text_width
from kvpaged.wording import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _KEY_ROW = 720, 260, 18
_KEY_WIDTH = 320  # what a phone shows of a picture when the page opens
# Lines are told apart without colour too. The owners' colours are left to the owners.
_LINES = ((LIT, "-"), (INK, (0, (4, 1.5))), (DIM, (0, (1, 1.2))), (LIT, (0, (5, 1.5, 1, 1.5))), (INK, (0, (2, 1))))

_KEY = {
    "alignment": "left",
    "borderpad": 0,
    "borderaxespad": 0.8,
    "columnspacing": 1.2,
    "fontsize": 12,
    "frameon": False,
    "handlelength": 2.2,
    "title_fontsize": 12,
}

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
    """Draw named series, each (x, y) pairs or y values at x = 0, 1, 2, ...; each line is named in the key.

    `steps` holds each value until the next; `unit` follows the numbers of the y axis ("%", " B", " ms").
    Raises ValueError when a series is empty, or has a value that a logarithmic axis cannot show.
    """
    lines = {name: _pairs(name, points) for name, points in series.items()}
    if not lines:
        raise ValueError("there is no series to draw; hand in at least one")
    columns = max(1, int(_KEY_WIDTH / (44 + max(map(text_width, lines)))))
    height = _HEIGHT + _KEY_ROW * -(-len(lines) // columns)
    with chart(_WIDTH, height) as (figure, axes):
        xs, ys = zip(*chain(*lines.values()), strict=True)
        if log_x:
            axes.set_xscale("log", base=_log_base(xs))
        if log_y:
            axes.set_yscale("log", base=_log_base(ys))
        axes.minorticks_off()
        for number, (name, line) in enumerate(lines.items()):
            _plot(axes, number, name, line, steps)
        if not log_x and min(xs) < max(xs):
            axes.set_xlim(min(xs), max(xs))
        if not log_y:
            axes.locator_params(axis="y", nbins=6)
            axes.set_ylim(bottom=min(0, *ys))
        axes.xaxis.set_major_formatter(lambda value, _: written(value))
        axes.yaxis.set_major_formatter(lambda value, _: written(value, unit))
        axes.set_xlabel(x_label)
        axes.grid(axis="y", clip_on=False)
        key = axes.legend(title=y_label, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), **_KEY)
        key.get_title().set_color(DIM)
        drawn = drawing(figure)
    return Picture(drawn, _WIDTH, height, _describe_lines(lines, x_label, y_label, unit))


def _pairs(name: str, points: Points) -> list[tuple[float, float]]:
    pairs = [point if isinstance(point, tuple) else (index, point) for index, point in enumerate(points)]
    if not pairs:
        raise ValueError(f"series {name!r} is empty; leave it out")
    return [(float(x), float(y)) for x, y in pairs]


def _log_base(values: Sequence[float]) -> int:
    """Return 2 if powers of two are what is to be marked on an axis, or 10."""
    if min(values) <= 0:
        raise ValueError(f"a logarithmic axis cannot show {min(values)}; leave it out or use a linear axis")
    return 2 if all(log2(value).is_integer() for value in values) else 10


def _plot(axes: "Axes", number: int, name: str, line: list[tuple[float, float]], steps: bool) -> None:
    """Draw a line. One named with a single letter is a sequence's."""
    from matplotlib.patheffects import withStroke

    colour, dashes = _LINES[number % len(_LINES)]
    look: dict[str, Any] = {"color": colour, "linestyle": dashes}
    if len(name) == 1 and name.isupper():
        look |= {"color": owner_colour(name), "path_effects": [withStroke(linewidth=4, foreground=INK)]}
    axes.plot(*zip(*line, strict=True), drawstyle="steps-post" if steps else None, clip_on=False, label=name, **look)


def _describe_lines(lines: Mapping[str, list[tuple[float, float]]], x_label: str, y_label: str, unit: str) -> str:
    words = [f"{count_of(len(lines), 'line')} of {y_label} over {x_label}."]
    for name, line in lines.items():
        peak_x, peak = max(line, key=lambda point: point[1])
        sentence = f"{name}: from {written(line[0][1], unit)} to {written(line[-1][1], unit)}"
        if peak > max(line[0][1], line[-1][1]):
            sentence += f", at most {written(peak, unit)} (at {written(peak_x)})"
        words.append(sentence + ".")
    return " ".join(words)
