"""Charts by matplotlib, in the colours of the page they stand on."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from kvpaged.figures.svg import label, mark, path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, DIM, LINE, LIT = "#1a1a1a", "#5c5c5c", "#b5b5b5", "#0a7d91"
_PAGE_COLOURS = {INK: "var(--kv-ink)", DIM: "var(--kv-dim)", LINE: "var(--kv-line)", LIT: "var(--kv-lit)"}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify_threshold": 1.0,
    "font.size": 12,
    "text.color": INK,
    "axes.titlecolor": DIM,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titlepad": 10,
    "axes.labelcolor": DIM,
    "axes.edgecolor": LINE,
    "axes.autolimit_mode": "round_numbers",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2.4,
}


@contextmanager
def chart(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """Give a figure of this size in pixels, with axes to plot on; it is to be drawn while the context lasts."""
    # A first import on a machine may take its time over the fonts, and says so where outputs are compared.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained", frameon=False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.margins(0, tight=False)
        axes.tick_params(left=False, bottom=False, labelsize=11, labelcolor=DIM)
        yield figure, axes


def drawing(figure: "Figure") -> str:
    """Draw a figure: the paths and texts of matplotlib's SVG, without ids, in the page's colours."""
    written = StringIO()
    figure.savefig(written, format="svg")
    marks = []
    for element in ElementTree.fromstring(written.getvalue()).iter():
        name = element.tag.rpartition("}")[2]
        style = re.sub(r"font-family:[^;]*; |(?<=[:;]) ", "", element.get("style", ""))
        style = re.sub("|".join(_PAGE_COLOURS), lambda found: _PAGE_COLOURS[found[0]], style)
        if name == "path":
            steps = element.get("d", "").split()
            marks.append(path(*(float(step) if step[-1].isdigit() else step for step in steps), style=style))
        elif name == "text":
            x, y = (float(element.get(axis, "0")) for axis in "xy")
            marks.append(label(x, y, element.text or "", style=style))
    return mark("g", "".join(marks), class_="y")


def written(value: float, unit: str = "") -> str:
    """Write a number briefly with its unit: 1,500; 0.25%; 3.2 MB."""
    for size, prefix in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.3g} {prefix}{unit.strip()}"
    if value == round(value):
        return f"{value:,.0f}{unit}"
    return (f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}") + unit
