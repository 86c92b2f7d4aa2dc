"""Paged KV caching from first principles. The bookkeeping rooms; what needs torch is imported where it is asked for."""

from importlib import import_module

from kvpaged.cache import PagedKVCache
from kvpaged.events import Event, EventKind, EventLog
from kvpaged.metrics import MemoryTotals, MemoryUse, memory_over_time, memory_totals
from kvpaged.page_pool import OutOfPages, PagePool
from kvpaged.page_table import PageTable
from kvpaged.prefix_cache import PrefixCache, PrefixMatch
from kvpaged.replay import Replay
from kvpaged.sequence import Sequence

__version__ = "0.1.0"

# Rooms with tensors, opened when they are asked for.
_LATER = {
    "Engine": "kvpaged.engine",
    "SamplingParams": "kvpaged.engine",
    "load_model": "kvpaged.model",
    "load_tokenizer": "kvpaged.model",
}

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


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'kvpaged' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
