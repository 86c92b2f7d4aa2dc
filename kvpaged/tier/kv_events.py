"""What a prefix cache keeps and gives up, told to others: numbered batches, one line of JSON each.

A batch is {"batch": 0, "page_size": 4, "events": [...]}, and an event one of::

    ["stored", 7, 3, [5, 9, 2, 8], "None"]    page 7 continues page 3 (null: it begins a text); its tokens and salt
    ["removed", 7]
    ["cleared"]                               nothing is cached any more; so begins a batch that says all there is
"""

import json
from typing import Any

from kvpaged.prefix_cache import PrefixCache, PrefixNode, PrefixWatcher


class KVEventPublisher(PrefixWatcher):
    """Watches a prefix cache. Its pages get numbers that are never used twice, unlike a hash or a page id.

    Where something is cached already when it begins to watch, the first batch says all there is.
    """

    def __init__(self, prefix: PrefixCache) -> None:
        self.prefix = prefix
        self.num_batches = 0
        self._known: dict[PrefixNode, tuple[int, str]] = {}  # the number and the salt of each page
        self._next = 0
        self._events: list[list[Any]] = []
        prefix.watchers.append(self)
        if len(prefix):
            self._say_all()

    def batch(self) -> str:
        """A line with what happened since the last one."""
        line = json.dumps({"batch": self.num_batches, "page_size": self.prefix.page_size, "events": self._events})
        self._events = []
        self.num_batches += 1
        return line

    def snapshot(self) -> str:
        """A line with all that is cached: where one who missed a batch, or comes late, begins."""
        self._say_all()
        return self.batch()

    def kept(self, nodes: list[PrefixNode]) -> None:
        for node in nodes:
            assert node.parent is not None
            parent, salt = self._known.get(node.parent) or (None, repr(node.path()[0]))
            self._known[node] = self._next, salt
            self._events.append(["stored", self._next, parent, node.tokens, salt])
            self._next += 1

    def removed(self, nodes: list[PrefixNode]) -> None:
        self._events += [["removed", self._known.pop(node)[0]] for node in nodes]

    def forgotten(self) -> None:
        self._known.clear()
        self._events = [["cleared"]]

    def _say_all(self) -> None:
        self.forgotten()
        self.kept(list(self.prefix.nodes()))
