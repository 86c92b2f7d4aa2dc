"""Bars: a few named values, each with its number."""

from collections.abc import Mapping

from kvpaged.figures.chart import INK, LIT, chart, drawing, written
from kvpaged.figures.language import listed
from kvpaged.figures.picture import Picture

_WIDTH = 720


def bar_chart(values: Mapping[str, float], *, unit: str = "", title: str = "", bound: float | None = None) -> Picture:
    """Draw a few named values as bars, each with its number; `bound` is a value that a line marks.

    Raises ValueError when there is no value, or one is negative.
    """
    if not values or min(values.values()) < 0:
        raise ValueError(f"bars need at least one value, and none below 0; these are {dict(values)}")
    numbers = {name: written(value, unit) for name, value in values.items()}
    alt = f"Bars{f', {title}' if title else ''}: " + listed(f"{name} {number}" for name, number in numbers.items())
    height = 28 * len(values) + (28 if title else 4) + (20 if bound is not None else 0)
    with chart(_WIDTH, height) as (figure, axes):
        bars = axes.barh(list(values), list(values.values()), height=0.75, color=LIT, clip_on=False)
        axes.bar_label(bars, list(numbers.values()), padding=8, fontweight="semibold")
        axes.set_title(title)
        axes.margins(y=0)
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        if bound is not None:
            axes.axvline(bound, color=INK, linestyle="--", linewidth=2, clip_on=False)
            at_bound = axes.get_xaxis_transform()
            axes.text(bound, -0.04, f"bound {written(bound, unit)}", transform=at_bound, va="top", ha="center")
            alt += f"; the bound is {written(bound, unit)}"
        drawn = drawing(figure)
    return Picture(drawn, _WIDTH, height, alt + ".")
