"""The face of this room: a paged cache with a slower memory behind it."""

from collections.abc import Hashable, Iterable

from kvpaged.cache import PagedKVCache
from kvpaged.checks import check_salt
from kvpaged.events import EventLog
from kvpaged.memory import Storage
from kvpaged.sequence import Sequence
from kvpaged.tier.inbound import bring_in
from kvpaged.tier.outbound import Outbound
from kvpaged.tier.policy import Policy, Store
from kvpaged.tier.tier import Tier
from kvpaged.tokens import TOKEN_BYTES, as_tokens


class TieredKVCache(PagedKVCache):
    """A `PagedKVCache` whose sequences also find what went to the tier. Bytes move in `sequence` and in `outbound.run`.

    Without a storage it is bookkeeping alone, and its tier keeps keys without values.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        tier: Tier,
        store: Store = Store.AT_ONCE,
        storage: Storage | None = None,
        events: EventLog | None = None,
    ) -> None:
        """Raises ValueError if the tier's pages are of another size, and as `PagedKVCache` does."""
        super().__init__(num_pages, page_size, storage=storage, events=events)
        value_bytes = getattr(storage, "bytes_per_page", 0)
        if (tier.page_size, tier.records.value_bytes) != (page_size, value_bytes):
            raise ValueError(
                f"the tier has pages of {tier.page_size} tokens and {tier.records.value_bytes:,} bytes, "
                f"the cache of {page_size} tokens and {value_bytes:,} bytes: open a tier for these"
            )
        self.tier = tier
        self.outbound = Outbound(self, tier, Policy(store))
        self.prefix.watchers.append(self.outbound)

    @property
    def holds_any(self) -> bool:
        """Whether it, or its tier, holds keys and values of any token."""
        return super().holds_any or len(self.tier) > 0

    def sequence(self, prompt_tokens: Iterable[int], cache_salt: Hashable = None) -> Sequence:
        """Begin a sequence, after what the tier has of its prompt was brought back.

        Raises as `PagedKVCache.sequence` does; what was brought back then stays in the prefix cache.
        """
        check_salt(cache_salt)
        tokens, packed = as_tokens(prompt_tokens)
        packed, width = packed[:-TOKEN_BYTES], self.page_size * TOKEN_BYTES  # one token must run, for its logits
        start = self.prefix.match_packed(packed, cache_salt).num_tokens // self.page_size
        stop = start + self.tier.num_pages(packed, cache_salt, start)

        def read(index: int) -> bytes | None:
            return self.tier.get(self.tier.key(packed[: (index + 1) * width], cache_salt))

        if stop > start:
            bring_in(self, packed[: stop * width], cache_salt, read)
        return super().sequence(tokens, cache_salt)
