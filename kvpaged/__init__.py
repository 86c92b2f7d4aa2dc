"""Paged KV caching from first principles. The bookkeeping rooms; what needs torch is imported where it is asked for."""

from kvpaged.cache import PagedKVCache
from kvpaged.events import Event, EventKind, EventLog
from kvpaged.page_pool import OutOfPages, PagePool
from kvpaged.page_table import PageTable
from kvpaged.prefix_cache import PrefixCache, PrefixMatch
from kvpaged.sequence import Sequence

__all__ = [
    "Event",
    "EventKind",
    "EventLog",
    "OutOfPages",
    "PagePool",
    "PageTable",
    "PagedKVCache",
    "PrefixCache",
    "PrefixMatch",
    "Sequence",
]
