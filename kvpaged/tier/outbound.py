"""Pages on their way into the tier. A page that waits for its copy, or is being copied, is owned by a transfer."""

from collections import deque
from typing import Any

from kvpaged.memory import Memory
from kvpaged.prefix_cache import PrefixNode, PrefixWatcher
from kvpaged.tier.policy import Policy
from kvpaged.tier.tier import Tier
from kvpaged.transfers import Transfer


class Outbound(PrefixWatcher):
    """Watches a prefix cache, and has pages stored as the policy wants it: `run` carries out what waits."""

    def __init__(self, memory: Memory[Any], tier: Tier, policy: Policy) -> None:
        self.memory = memory
        self.tier = tier
        self.policy = policy
        self._waiting: deque[tuple[bytes, Transfer]] = deque()
        self._keys: set[bytes] = set()  # of those that wait

    def __len__(self) -> int:
        """Pages that wait."""
        return len(self._waiting)

    def run(self, num_pages: int | None = None) -> None:
        """Store pages that wait, the first first: all, or so many at most."""
        for _ in range(len(self._waiting) if num_pages is None else min(num_pages, len(self._waiting))):
            key, transfer = self._waiting.popleft()
            storage: Any = self.memory.storage
            self._keys.discard(key)
            try:
                self.tier.put(key, b"" if storage is None else storage.dump(transfer.page_ids[-1]))
            finally:
                self.memory.transfers.end(transfer)

    def kept(self, nodes: list[PrefixNode]) -> None:
        self._offer(nodes, used=True)

    def used(self, node: PrefixNode) -> None:
        path = []
        while node.parent is not None:
            path.append(node)
            node = node.parent
        self._offer(path[::-1], used=True)

    def making_room(self) -> None:
        self.run()  # a page that a transfer owns cannot be evicted

    def evicting(self, nodes: list[PrefixNode]) -> None:
        self._offer(nodes, used=False)
        self.run()

    def forgotten(self) -> None:
        self._waiting.clear()  # see `PagedKVCache.salvage`: no transfer owns anything any more
        self._keys.clear()

    def _offer(self, nodes: list[PrefixNode], used: bool) -> None:
        for node in nodes:
            if len(node.tokens) < self.memory.page_size:
                continue  # only full pages are stored: the others will grow
            salt, tokens = node.path()
            key = self.tier.key(tokens, salt)
            if self.policy.wants(key, used) and key not in self._keys and not self.tier.has(key):
                self._waiting.append((key, self.memory.transfers.begin(tokens, [node.page_id])))
                self._keys.add(key)
