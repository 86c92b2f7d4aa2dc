"""Pages on their way into the tier. A page that waits for its copy, or is being copied, is owned by a transfer."""

from collections import OrderedDict
from typing import Any

from kvpaged.memory import Memory
from kvpaged.prefix_cache import PrefixNode, PrefixWatcher
from kvpaged.tier.policy import Policy, Store
from kvpaged.tier.tier import Tier
from kvpaged.tokens import TOKEN_BYTES
from kvpaged.transfers import Transfer


class Outbound(PrefixWatcher):
    """Watches a prefix cache, and has pages stored as the policy wants it: `run` carries out what waits."""

    def __init__(self, memory: Memory[Any], tier: Tier, policy: Policy) -> None:
        self.memory = memory
        self.tier = tier
        self.policy = policy
        self._waiting: OrderedDict[bytes, Transfer] = OrderedDict()  # under the keys of their pages

    def __len__(self) -> int:
        """Pages that wait."""
        return len(self._waiting)

    def run(self, num_pages: int | None = None) -> None:
        """Store pages that wait, the first first: all, or so many at most."""
        for _ in range(len(self._waiting) if num_pages is None else min(num_pages, len(self._waiting))):
            key, transfer = self._waiting.popitem(last=False)
            storage: Any = self.memory.storage
            try:
                self.tier.put(key, b"" if storage is None else storage.dump(transfer.page_ids[-1]))
            finally:
                self.memory.transfers.end(transfer)

    def kept(self, nodes: list[PrefixNode]) -> None:
        self._offer(nodes, used=True)

    def used(self, node: PrefixNode) -> None:
        if self.policy.store is not Store.ON_SECOND_USE:
            return  # no other policy counts
        path = []
        while node.parent is not None:
            path.append(node)
            node = node.parent
        self._offer(path[::-1], used=True)

    def making_room(self) -> None:
        self.run()  # a page that a transfer owns cannot be evicted

    def evicting(self, nodes: list[PrefixNode]) -> None:
        self._offer(nodes[::-1], used=False)
        self.run()

    def forgotten(self) -> None:
        self._waiting.clear()  # see `PagedKVCache.salvage`: no transfer owns anything any more

    def _offer(self, nodes: list[PrefixNode], used: bool) -> None:
        """Begin a transfer of each page that the policy wants stored. A page comes after the one that it continues."""
        width, longest = self.memory.page_size * TOKEN_BYTES, self.tier.records.key_bytes
        before, tokens = None, b""
        for node in nodes:
            if len(node.edge) < width:
                continue  # only full pages are stored: the others will grow
            if node.parent is not before:
                salt, tokens = node.path()
            else:
                tokens += node.edge  # to climb to the root from every page of a long text would take too long
            before = node
            key = self.tier.key(tokens, salt)
            wanted = len(key) <= longest and self.policy.wants(key, used)
            if wanted and key not in self._waiting and not self.tier.has(key):
                self._waiting[key] = self.memory.transfers.begin(tokens, [node.page_id])
