"""Pages under way between the pool and somewhere else: as long as bytes move, a transfer is one of their owners."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from kvpaged.events import EventKind, EventLog
from kvpaged.page_pool import PagePool


@dataclass(eq=False, slots=True)
class Transfer:
    """Pages of one text. It owns one reference to each, until `Transfers.end`.

    tokens: packed, from the first of the text to the end of the last page. page_ids: of its last pages, or of all.
    """

    id: int
    tokens: bytes
    page_ids: list[int]


class Transfers:
    """All that is under way. Only here does a transfer take a reference to a page, or give one back."""

    def __init__(self, pool: PagePool, events: EventLog) -> None:
        self.pool = pool
        self.events = events
        self._under_way: dict[Transfer, None] = {}  # in the order in which they began
        self._ids = count()

    def __len__(self) -> int:
        return len(self._under_way)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._under_way)

    def begin(self, tokens: bytes, page_ids: Iterable[int] = ()) -> Transfer:
        """Become one more owner of pages that somebody owns. Raises ValueError, and owns nothing, if one is free."""
        transfer = Transfer(next(self._ids), tokens, list(page_ids))
        self.pool.share_many(transfer.page_ids)
        self._under_way[transfer] = None
        self._tell(transfer.page_ids, 1)
        return transfer

    def adopt(self, transfer: Transfer, page_ids: list[int]) -> None:
        """Hand it pages that were allocated for it, and with them the one reference to each."""
        transfer.page_ids += page_ids
        self._tell(page_ids, 1)

    def end(self, transfer: Transfer) -> None:
        """Give every reference back, whatever became of the bytes."""
        del self._under_way[transfer]
        self.pool.release_many(reversed(transfer.page_ids))
        self._tell(transfer.page_ids, 0)

    def forget(self) -> None:
        """Begin empty, and give nothing back. See `PagedKVCache.salvage`."""
        self._under_way.clear()

    def _tell(self, page_ids: list[int], number: int) -> None:
        if page_ids:
            self.events.add(EventKind.TRANSFER, None, tuple(page_ids), (), number)
