"""When a page is worth a place in the slower memory."""

from collections import Counter
from enum import StrEnum

REMEMBERED = 100_000  # pages that it has counts of, at most: then it forgets all, and begins anew


class Store(StrEnum):
    """When a page is stored."""

    AT_ONCE = "at once"  # as soon as it is full and computed
    ON_SECOND_USE = "on second use"  # when it is computed, or found in the pool, again
    WHEN_EVICTED = "when evicted"  # at the last moment, while somebody waits
    NEVER = "never"


class Policy:
    """Decides, page by page. Pages are known by hashes of their keys: a wrong guess costs a write, never an answer."""

    def __init__(self, store: Store) -> None:
        self.store = Store(store)
        self._uses: Counter[int] = Counter()

    def wants(self, key: bytes, used: bool) -> bool:
        """Whether a page is to be stored now. used: it was computed or found just now; if not, it is evicted."""
        if self.store is Store.WHEN_EVICTED:
            return not used
        if self.store in (Store.AT_ONCE, Store.NEVER):
            return self.store is Store.AT_ONCE
        if len(self._uses) >= REMEMBERED:
            self._uses.clear()
        self._uses[hash(key)] += used
        return self._uses[hash(key)] > 1
