"""Memory over time: pages in use, kept by the prefix cache, saved by sharing."""

from collections.abc import Iterable, Mapping

from kvpaged.figures.line_chart import Points, line_chart
from kvpaged.figures.picture import Picture
from kvpaged.metrics import MemoryUse


def memory_chart(samples: Iterable[MemoryUse] | Mapping[str, Points], *, x_label: str = "events") -> Picture:
    """Draw memory over time: what `memory_over_time` returns, or several series of your own, as steps.

    Samples show the pages in use, how many of them only the prefix cache keeps, and how many the tables of live
    sequences would need if nothing were shared.
    """
    if isinstance(samples, Mapping):
        return line_chart(samples, x_label, "pages", steps=True)
    uses = list(samples)
    series: dict[str, Points] = {"in use": [(use.event, use.used) for use in uses]}
    if any(use.saved_by_sharing for use in uses):
        series["if nothing were shared"] = [(use.event, use.used + use.saved_by_sharing) for use in uses]
    if any(use.idle for use in uses):
        series["kept by the prefix cache alone"] = [(use.event, use.idle) for use in uses]
    return line_chart(series, x_label, "pages", steps=True)
