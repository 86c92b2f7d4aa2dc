"""Memory for models whose layers are of several kinds: full attention, sliding windows, recurrent states."""

from kvpaged.hybrid.cache import GroupedKVCache
from kvpaged.hybrid.groups import FullAttention, Kind, Recurrent, SlidingWindow, group_layers, page_size_for

__all__ = ["FullAttention", "GroupedKVCache", "Kind", "Recurrent", "SlidingWindow", "group_layers", "page_size_for"]
