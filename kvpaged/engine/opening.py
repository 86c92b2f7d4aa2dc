"""What an engine opens for its requests: pages of the kind asked for, the cache over them, and the tier behind it."""

from __future__ import annotations

from collections.abc import Callable

from kvpaged.cache import PagedKVCache
from kvpaged.checks import flag
from kvpaged.events import EventLog
from kvpaged.model import LanguageModel
from kvpaged.model.compute import open_storage
from kvpaged.page import PageStorage
from kvpaged.poison import PoisonedStorage
from kvpaged.tier import Store, Tier, TieredKVCache
from kvpaged.tier.fingerprint import fingerprint


def open_cache(
    model: LanguageModel,
    num_pages: int,
    page_size: int,
    prefix_caching: bool,
    events: EventLog | None,
    poisoned: bool,
    storage: Callable[..., PageStorage],
    tier: Tier | None,
    store: Store,
) -> tuple[PageStorage, PagedKVCache]:
    """Open storage and cache for a model. See `Engine` for what is what, and what is refused."""
    if flag("poisoned", poisoned) and storage is not PageStorage:
        raise ValueError("poisoned pages are of a kind of their own: leave out one of poisoned and storage")
    if tier is not None and not flag("prefix_caching", prefix_caching):
        raise ValueError("a tier works through the prefix cache: leave out one of tier and prefix_caching=False")
    pages = open_storage(model, num_pages, page_size, kind=PoisonedStorage if poisoned else storage)
    if tier is None:
        cache = PagedKVCache(num_pages, page_size, prefix_caching, pages, events)
    elif tier.computed_by == fingerprint(model, pages):
        cache = TieredKVCache(num_pages, page_size, tier, store, pages, events)
    else:
        raise ValueError(
            f"the tier does not say that its pages are of these weights, and {pages.kind}: "
            "open it with computed_by=kvpaged.tier.fingerprint.fingerprint(model, storage)"
        )
    if isinstance(pages, PoisonedStorage):
        pages.watch(cache)
    return pages, cache
