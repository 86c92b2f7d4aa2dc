"""The face of the memory system: a pool, a prefix cache, and the storage they command."""

from collections.abc import Hashable, Iterable
from itertools import count

from kvpaged.events import EventLog
from kvpaged.laws import check
from kvpaged.page_pool import PagePool
from kvpaged.prefix_cache import PrefixCache
from kvpaged.sequence import Sequence, Storage
from kvpaged.tokens import as_tokens


class PagedKVCache:
    """Begins sequences, and shares what they have in common.

    Without a storage it is bookkeeping alone: it runs anywhere, and a simulation of a million pages costs no KV.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        prefix_caching: bool = True,
        storage: Storage | None = None,
        events: EventLog | None = None,
    ) -> None:
        """Hand in an `EventLog` to have everything written down; without one, nothing is.

        Raises ValueError if a number is below 1, or the storage has other pages than the cache.
        """
        self.pool = PagePool(num_pages)
        self.events = events if events is not None else EventLog(recording=False)
        self.prefix = PrefixCache(self.pool, page_size, self.events)
        if storage is not None and (storage.num_pages, storage.page_size) != (num_pages, page_size):
            raise ValueError(
                f"the storage has {storage.num_pages} pages of {storage.page_size} slots, "
                f"the cache {num_pages} of {page_size}; give both the same numbers"
            )
        self.events.about |= {"page_size": page_size, "num_pages": num_pages}  # which a saved log is read with
        self.storage = storage
        self.prefix_caching = prefix_caching
        self.page_size = page_size
        # Begun or forked, and not released yet. Only `release` ends ownership, never the garbage collector.
        self.sequences: set[Sequence] = set()
        self.sequence_ids = count()

    def sequence(self, prompt_tokens: Iterable[int], cache_salt: Hashable = None) -> Sequence:
        """Begin a sequence: it owns what is cached of its prompt, and pages for the rest.

        Only sequences with the same `cache_salt` share cached pages. Raises ValueError for an empty prompt,
        TypeError or ValueError for what is no token, OutOfPages when the pages do not suffice; nothing is then changed.
        """
        tokens, packed = as_tokens(prompt_tokens)
        if not tokens:
            raise ValueError("the prompt is empty; a sequence needs at least one token to compute logits from")
        return Sequence.begin(self, tokens, packed, cache_salt)

    def check(self) -> None:
        """Raise AssertionError, naming the page, if a law of ownership is broken."""
        check(self.pool, self.prefix, self.sequences)

    def _repr_html_(self) -> str | None:
        """Show a notebook the map of the pages, unless they are too many to tell apart."""
        from kvpaged.figures.page_map import page_map  # the one room above that this one knows, when somebody looks

        return page_map(self)._repr_html_() if self.pool.num_pages <= 512 else None

    def __repr__(self) -> str:
        return (
            f"PagedKVCache(num_pages={self.pool.num_pages}, page_size={self.page_size}, "
            f"{len(self.sequences)} sequences, {len(self.prefix)} pages cached, {self.pool.num_free} free)"
        )
