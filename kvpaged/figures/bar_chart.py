"""Bars: a few named values, each with its number."""

from collections.abc import Mapping

from kvpaged.figures.axis import written
from kvpaged.figures.language import listed
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label, path, rect, text_width

_WIDTH = 720


def bar_chart(values: Mapping[str, float], *, unit: str = "", title: str = "", bound: float | None = None) -> Picture:
    """Draw a few named values as bars, each with its number; `bound` is a value that a line marks.

    Raises ValueError when there is no value, or one is negative.
    """
    if not values or min(values.values()) < 0:
        raise ValueError(f"bars need at least one value, and none below 0; these are {dict(values)}")
    left = 14 + max(text_width(name) for name in values)
    most = max([*values.values(), bound or 0]) or 1
    room = _WIDTH - left - 16 - max(text_width(written(value, unit)) for value in values.values())
    top = 24 if title or bound is not None else 4
    drawn = [label(2, 10, title, class_="d")] if title else []
    for index, (name, value) in enumerate(values.items()):
        y, width = top + index * 28, room * value / most
        drawn.append(label(left - 8, y + 11, name, class_="e"))
        drawn.append(rect(left, y, max(width, 1.0), 22, class_="t"))
        drawn.append(label(left + width + 8, y + 11.5, written(value, unit), class_="b"))
    height = top + 28 * len(values)
    alt = f"Bars{f', {title}' if title else ''}: "
    alt += listed(f"{name} {written(value, unit)}" for name, value in values.items())
    if bound is not None:
        x = left + room * bound / most
        drawn.append(path("M", x, top - 6, "V", height, class_="a", stroke_dasharray="4 3"))
        drawn.append(label(x, 10, f"bound {written(bound, unit)}", class_="e" if x > _WIDTH / 2 else None))
        alt += f"; the bound is {written(bound, unit)}"
    return Picture("".join(drawn), _WIDTH, height, alt + ".")
