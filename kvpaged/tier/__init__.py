"""A slower memory behind the pool, pages handed over to another cache, and events that others can follow."""

from kvpaged.tier.cache import TieredKVCache
from kvpaged.tier.handover import Parcel, put_in, take_out
from kvpaged.tier.kv_events import KVEventPublisher
from kvpaged.tier.policy import Store
from kvpaged.tier.record_file import RecordFile
from kvpaged.tier.tier import Tier

__all__ = ["KVEventPublisher", "Parcel", "RecordFile", "Store", "Tier", "TieredKVCache", "put_in", "take_out"]
