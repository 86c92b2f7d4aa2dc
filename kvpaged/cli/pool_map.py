"""The pool as a map: a character for each page."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from kvpaged.cache import PagedKVCache

FREE, CACHED, OWNED = "·", "░", "█"
_STYLES = {FREE: "dim", CACHED: "cyan", OWNED: "green"}


def pool_map(cache: PagedKVCache, width: int, max_rows: int) -> Group:
    """Pages in the order of their ids, `width` to a row, with a legend; what does not fit is only counted.

    16 to 64 pages to a row and 1 to 16 rows, whatever the terminal is like.
    """
    width, max_rows = max(16, min(width, 64)), max(1, min(max_rows, 16))
    cached = {node.page_id for node in cache.prefix.nodes()}
    counts, num_pages = cache.pool.ref_counts, cache.pool.num_pages
    shown = min(num_pages, width * max_rows)
    symbols = []
    for page_id in range(shown):
        owners = counts[page_id] if page_id < len(counts) else 0
        if owners - (page_id in cached) > 1:
            symbols.append(str(min(9, owners - (page_id in cached))))
        elif owners == 0:
            symbols.append(FREE)
        else:
            symbols.append(CACHED if owners == 1 and page_id in cached else OWNED)
    rows = []
    for start in range(0, shown, width):
        row = Text()
        for symbol in symbols[start : start + width]:
            row.append(symbol, _STYLES.get(symbol, "bold yellow"))
        rows.append(row)
    if shown < num_pages:
        rows.append(Text(f"and {num_pages - shown} more pages", "dim"))
    return Group(*rows, Text(f"{FREE} free   {CACHED} cached only   {OWNED} one sequence   2-9 that share", "dim"))
