"""From logical pages to physical ones: each entry of a page table points at its page in the pool."""

from collections.abc import Iterable

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import listed, owner_colour
from kvpaged.figures.page_shape import PageShape
from kvpaged.figures.page_view import PageView, pages_of
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Row, rows_of
from kvpaged.figures.svg import arrow, label, rect
from kvpaged.page_pool import PagePool
from kvpaged.page_table import PageTable
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of

_ENTRY, _GAP, _DROP, _MOST = 34, 8, 84, 10


def table_arrows(
    sequences: Sequence | PageTable | Iterable[Sequence | PageTable], memory: PagedKVCache | PagePool | None = None
) -> Picture:
    """Draw the tables above, the pages below, an arrow for each entry.

    With `memory`, all its pages stand below if they are at most 10; otherwise those that the tables map.
    """
    rows = rows_of(sequences)
    pages = _pages(rows, memory)
    shape = PageShape(rows[0].page_size)
    tables_width = sum(_table_width(row) for row in rows) + 24 * (len(rows) - 1)
    pages_width = len(pages) * (shape.width + _GAP) - _GAP
    width = max(tables_width, pages_width) + 4
    place = {page.page_id: index for index, page in enumerate(pages)}
    below = 64 + _DROP
    left_of_pages = (width - pages_width) / 2
    boxes, arrows = [], []
    x = (width - tables_width) / 2
    for row in rows:
        boxes.append(row.heading(x, 2, "page table"))
        for index, page_id in enumerate(row.page_ids):
            left = x + index * _ENTRY
            boxes.append(label(left + _ENTRY / 2, 32, str(index), class_="m s d"))
            boxes.append(rect(left, 40, _ENTRY, 24, class_="p"))
            boxes.append(label(left + _ENTRY / 2, 52.5, str(page_id), class_="m b"))
            target = left_of_pages + place[page_id] * (shape.width + _GAP) + shape.width / 2
            target += _aside(rows, row, page_id)
            arrows.append(arrow(left + _ENTRY / 2, 64, target, below, owner_colour(row.owner)))
        x += _table_width(row) + 24
    for index, page in enumerate(pages):
        boxes.append(shape.draw(left_of_pages + index * (shape.width + _GAP), below, page))
    return Picture("".join(arrows + boxes), width, below + shape.height + 2, _describe(rows, pages))


def _pages(rows: list[Row], memory: PagedKVCache | PagePool | None) -> list[PageView]:
    mapped = {page_id for row in rows for page_id in row.page_ids}
    seen: dict[int, PageView] = {}
    for row in rows:
        for index, page_id in enumerate(row.page_ids):
            page = seen.setdefault(page_id, PageView(page_id))
            page.uses |= row.page(index).uses
            page.ref_count += 1
    if memory is None:
        return [seen[page_id] for page_id in sorted(seen)]
    pages, _ = pages_of(memory, page_size=rows[0].page_size)
    if isinstance(memory, PagePool):  # which counts owners, and does not know them
        for page in pages:
            page.uses = seen[page.page_id].uses if page.page_id in seen else {}
    return pages if len(pages) <= _MOST else [page for page in pages if page.page_id in mapped]


def _table_width(row: Row) -> int:
    return max(_ENTRY * len(row.page_ids), 100)


def _aside(rows: list[Row], row: Row, page_id: int) -> float:
    """Let arrows to a shared page arrive beside one another."""
    sharing = [each for each in rows if page_id in each.page_ids]
    return 12 * (sharing.index(row) - (len(sharing) - 1) / 2)


def _describe(rows: list[Row], pages: list[PageView]) -> str:
    words = []
    for row in rows:
        entries = ", ".join(f"{index} to page {page_id}" for index, page_id in enumerate(row.page_ids))
        words.append(f"{row.name}'s page table maps {row.title}: logical page {entries}.")
    shared = [page for page in pages if len(page.uses) > 1]
    for page in shared:
        names = listed(row.name for row in rows if page.page_id in row.page_ids)
        words.append(f"Page {page.page_id} is in the tables of {names}.")
    others = len(pages) - len({page_id for row in rows for page_id in row.page_ids})
    if others:
        words.append(f"{count_of(others, 'other page')} of the pool {'is' if others == 1 else 'are'} shown below.")
    return " ".join(words)
