"""Text laid over its pages: which word lives in which page and slot."""

from collections.abc import Iterable

from kvpaged.cache import PagedKVCache
from kvpaged.figures.page_shape import PageShape, slot_width_for
from kvpaged.figures.page_view import pages_of
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Decode, Row, rows_of
from kvpaged.sequence import Sequence

_WIDTH, _GAP = 740, 10


def text_on_pages(
    cache: PagedKVCache, sequences: Sequence | Iterable[Sequence] | None = None, decode: Decode | None = None
) -> Picture:
    """Draw the pages of each sequence in logical order, a word in each slot. All live sequences, if none are named.

    `decode` turns a token into its word; without it the token ids stand in the slots.
    """
    chosen = sorted(cache.sequences, key=lambda each: each.id) if sequences is None else sequences
    rows = rows_of(chosen, decode)
    pages, page_size = pages_of(cache)
    shape = PageShape(page_size, slot_width_for([word for row in rows for word in row.words]), 20)
    per_line = max(1, int((_WIDTH + _GAP) // (shape.width + _GAP)))
    drawn, y = [], 2.0
    for row in rows:
        drawn.append(row.heading(2, y, row.title))
        y += 26
        for index, page_id in enumerate(row.page_ids):
            line, column = divmod(index, per_line)
            place = 2 + column * (shape.width + _GAP), y + line * (shape.height + _GAP)
            drawn.append(shape.draw(*place, pages[page_id], row.words_in(index)))
        y += -(-len(row.page_ids) // per_line) * (shape.height + _GAP) + 8
    columns = min(per_line, max(len(row.page_ids) for row in rows))
    width = max(180.0, columns * (shape.width + _GAP) - _GAP + 4)
    return Picture("".join(drawn), width, y - 14, " ".join(map(describe_text, rows)))


def describe_text(row: Row) -> str:
    """Say which words are in which page."""
    pages = "; ".join(f"page {page_id}: {' '.join(row.words_in(index))}" for index, page_id in enumerate(row.page_ids))
    waiting = row.num_tokens - row.num_computed
    spare = f", the last {waiting} not computed yet" if waiting else ""
    return f"{row.name} has {row.title}{spare}. In order, {pages}."
