"""Pool, prefix cache, storage and event log, put together: here pages are given out to sequences, and copied."""

from itertools import count
from typing import Generic, Protocol, TypeVar, runtime_checkable

from kvpaged.checks import flag
from kvpaged.events import EventLog
from kvpaged.page_pool import PagePool
from kvpaged.page_table import PageTable, pages_for
from kvpaged.prefix_cache import PrefixCache
from kvpaged.transfers import Transfers


@runtime_checkable
class Storage(Protocol):
    """What is asked of the room that holds the bytes, such as `PageStorage`: `num_pages`, `page_size` and `copy`."""

    num_pages: int
    page_size: int

    def copy(self, source: int, target: int, num_slots: int) -> None:
        """Copy the first slots of one page to another, in every layer."""


@runtime_checkable
class CheckedStorage(Protocol):
    """A storage that knows whether a slot still reads what it read when it was written."""

    def check(self) -> None:
        """Raise AssertionError, naming page and slot, if one does not."""


Owner = TypeVar("Owner")


class Memory(Generic[Owner]):
    """What sequences live in. It knows their tables, and of themselves no more than which there are."""

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        prefix_caching: bool = True,
        storage: Storage | None = None,
        events: EventLog | None = None,
    ) -> None:
        """Hand in an `EventLog` of its own to have everything written down; without one, nothing is.

        page_size: in tokens. prefix_caching: whether pages are found again, and kept when nobody uses them. storage:
        without one, this is bookkeeping alone. Raises ValueError if a number is below 1, prefix_caching neither True
        nor False, or the storage has other pages; TypeError for what is no number, no storage or no log.
        """
        if events is not None and not isinstance(events, EventLog):
            raise TypeError(f"events is {events!r}; give an EventLog, or nothing")
        prefix_caching = flag("prefix_caching", prefix_caching)
        self.pool = PagePool(num_pages)
        self.events = events if events is not None else EventLog(recording=False)
        self.prefix = PrefixCache(self.pool, page_size, self.events)
        self.transfers = Transfers(self.pool, self.events)
        if storage is not None:
            _check_storage(storage, num_pages, page_size)
        self.events.about |= {"page_size": page_size, "num_pages": num_pages}  # which a saved log is read with
        self.storage = storage
        self.prefix_caching = prefix_caching
        self.page_size = page_size
        # Begun or forked, and not released yet. Only `release` ends ownership, never the garbage collector.
        self.sequences: set[Owner] = set()
        self.sequence_ids = count()

    def must_copy(self, table: PageTable) -> bool:
        """Whether the next token would be written to a page that has other owners (the second law)."""
        return table.num_tokens % table.page_size > 0 and self.pool.ref_count(table.page_ids[-1]) > 1

    def make_room(self, table: PageTable, num_tokens: int) -> list[int]:
        """Allocate the pages for more tokens; where the last page is shared, the first of them is its private copy.

        The only place where pages are allocated, or copied, for a sequence. All or nothing: raises OutOfPages when the
        pages that are free or can be evicted are too few.
        """
        size, copying = table.page_size, self.must_copy(table)
        needed = pages_for(table.num_tokens + num_tokens, size) - len(table.page_ids) + copying
        pages = self.prefix.allocate_many(needed)
        if copying and self.storage is not None:
            try:
                self.storage.copy(table.page_ids[-1], pages[0], table.num_tokens % size)
            except BaseException:
                self.pool.release_many(reversed(pages))
                raise
        return pages


def _check_storage(storage: Storage, num_pages: int, page_size: int) -> None:
    if not isinstance(storage, Storage):
        raise TypeError(
            f"storage is {storage!r}; give a PageStorage, or what has num_pages, page_size and "
            "copy(source, target, num_slots)"
        )
    if (storage.num_pages, storage.page_size) != (num_pages, page_size):
        raise ValueError(
            f"the storage has {storage.num_pages} pages of {storage.page_size} slots, "
            f"the cache {num_pages} of {page_size}; give both the same numbers"
        )
