"""What a picture must know of a page, read from a cache, from a pool alone, or from a replayed log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import Owner
from kvpaged.page_pool import PagePool
from kvpaged.replay import Replay


class Use(NamedTuple):
    """How one owner uses a page: its first `tokens` slots have a token, of which the first `computed` have K and V.

    times: how often its table names the page; once, unless the table is wrong.
    """

    tokens: int
    computed: int
    times: int = 1


def use_of_page(index: int, num_tokens: int, num_computed: int, page_size: int) -> Use:
    """How a sequence uses its logical page `index`."""
    first = index * page_size
    return Use(min(page_size, num_tokens - first), max(0, min(page_size, num_computed - first)))


@dataclass
class PageView:
    """One page, as it is to be drawn."""

    page_id: int
    uses: dict[Owner, Use] = field(default_factory=dict)
    cached: int = 0  # tokens that the prefix cache keeps in it; 0 when it does not own the page
    ref_count: int = 0
    moving: int = 0  # transfers that own it
    null: bool = False  # it stands in tables where there is no page

    @property
    def free(self) -> bool:
        """Whether nobody owns it, be he counted or not: in a broken pool the two may differ."""
        return self.ref_count == 0 and not self.uses and not self.cached

    @property
    def idle(self) -> bool:
        """Whether only the prefix cache owns it: nobody by name, and nobody who is only counted."""
        return self.cached > 0 and not self.uses and not self.moving and self.unknown <= 0

    @property
    def unknown(self) -> int:
        """Owners that are counted but not known by name; below zero, if more are known than counted."""
        named = sum(use.times for use in self.uses.values())
        return 0 if self.null else self.ref_count - named - (self.cached > 0) - self.moving


_MOST = 512
SLOTS = 4  # drawn in a page, where its size is not known


def pages_of(
    memory: PagedKVCache | PagePool | Replay,
    *,
    holders: Mapping[str, Iterable[int]] | None = None,
    num_pages: int | None = None,
    page_size: int = SLOTS,
) -> tuple[list[PageView], int]:
    """Look at every page of a cache, a pool or a replayed log; return the views and the page size.

    Raises ValueError for more pages than can be seen, and for a replay without `num_pages`, which it does not know.
    """
    if isinstance(memory, Replay) and num_pages is None:
        raise ValueError("a replay does not know how many pages the pool has; say num_pages=")
    pool = memory.pool if isinstance(memory, PagedKVCache) else memory
    total = pool.num_pages if isinstance(pool, PagePool) else num_pages or 0
    if total > _MOST:
        raise ValueError(f"{total:,} pages could not be told apart in a picture; draw a pool of at most {_MOST}")
    if isinstance(memory, PagedKVCache):
        return pages_of_cache(memory), memory.page_size
    if isinstance(memory, PagePool):
        return _pages_of_pool(memory, holders or {}, page_size), page_size
    return pages_of_replay(memory, range(total)), memory.page_size


def pages_of_cache(cache: PagedKVCache, names: Mapping[int, str] | None = None) -> list[PageView]:
    """Look at every page of a cache."""
    views = {
        page_id: PageView(page_id, ref_count=cache.pool.ref_count(page_id)) for page_id in range(cache.pool.num_pages)
    }
    for sequence in sorted(cache.sequences, key=lambda each: each.id):
        owner = names.get(sequence.id, sequence.id) if names else sequence.id
        for index, page_id in enumerate(sequence.table.page_ids):
            use = use_of_page(index, len(sequence), sequence.num_computed, cache.page_size)
            views[page_id].uses[owner] = use
    for node in cache.prefix.nodes():
        views[node.page_id].cached = max(views[node.page_id].cached, len(node.tokens))
    return list(views.values())


def pages_of_replay(replay: Replay, page_ids: Iterable[int], names: Mapping[int, str] | None = None) -> list[PageView]:
    """Look at the memory as it was after the events that were replayed; `page_ids` must hold all pages in use."""
    views = {
        page_id: PageView(
            page_id,
            ref_count=replay.ref_counts.get(page_id, 0),
            moving=replay.moving[page_id],
            null=page_id == replay.null_page,
        )
        for page_id in page_ids
    }
    for sequence, table in sorted(replay.tables.items()):
        owner = names.get(sequence, sequence) if names else sequence
        for index, page_id in enumerate(table):
            if page_id == replay.null_page:
                continue
            length, computed = len(replay.tokens[sequence]), replay.num_computed[sequence]
            views[page_id].uses[owner] = use_of_page(index, length, computed, replay.page_size)
    for page_id, tokens in replay.cached.items():
        views[page_id].cached = tokens
    return list(views.values())


def _pages_of_pool(pool: PagePool, holders: Mapping[str, Iterable[int]], page_size: int) -> list[PageView]:
    """A pool counts owners and does not know them; `holders` name those that are known."""
    views = [PageView(page_id, ref_count=pool.ref_count(page_id)) for page_id in range(pool.num_pages)]
    for holder, page_ids in holders.items():
        for page_id in page_ids:
            views[page_id].uses[holder] = Use(page_size, page_size)
    return views
