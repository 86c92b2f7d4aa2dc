"""Paged KV caching from first principles. The bookkeeping rooms; what needs torch is imported where it is asked for."""

from kvpaged.cache import PagedKVCache
from kvpaged.events import Event, EventKind, EventLog
from kvpaged.metrics import MemoryTotals, MemoryUse, memory_over_time, memory_totals
from kvpaged.page_pool import OutOfPages, PagePool
from kvpaged.page_table import PageTable
from kvpaged.prefix_cache import PrefixCache, PrefixMatch
from kvpaged.replay import Replay
from kvpaged.sequence import Sequence

__all__ = [
    "Event",
    "EventKind",
    "EventLog",
    "MemoryTotals",
    "MemoryUse",
    "OutOfPages",
    "PagePool",
    "PageTable",
    "PagedKVCache",
    "PrefixCache",
    "PrefixMatch",
    "Replay",
    "Sequence",
    "memory_over_time",
    "memory_totals",
]
