"""One sequence, with a table for each group of layers. A page is given back as soon as no token to come will read it.

::

    full attention    4  5  6  7  8 10
    window of 8       0  0  0  0  9 11     page 0 is the null page: what stood there is given back
    recurrent         0  0  0  0  0 12     one state, after the last computed token
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from kvpaged.events import EventKind
from kvpaged.hybrid.prefix_cache import NULL_PAGE, Node
from kvpaged.page_table import pages_for
from kvpaged.tokens import as_token, pack

if TYPE_CHECKING:
    from kvpaged.hybrid.cache import GroupedKVCache


class GroupedSequence:
    """Owns one reference to each page in its tables, except where they name the null page, until `release`.

    tokens: all that are known. num_slots: how many of them have a slot in every group. num_computed: how many went
    through the model. tables: of each group, its pages in logical order.
    """

    def __init__(self, memory: GroupedKVCache, tokens: list[int], path: list[Node], cache_salt: Hashable) -> None:
        """Sequences are made by `GroupedKVCache.sequence`."""
        self.tokens = tokens
        self.cache_salt = cache_salt
        self.num_slots = self.num_computed = self.num_cached_tokens = len(path) * memory.page_size
        self.tables = memory.prefix.take(path)
        self._memory = memory
        self._path = path  # in the prefix cache's trie, as far as it has seen our pages
        self._id = next(memory.ids)
        self.num_told = len(tokens)  # of the tokens, those that the log knows
        for group, table in enumerate(self.tables):
            self._tell(EventKind.BEGIN, group, (), tokens, self.num_computed)
            if table:
                self._tell(EventKind.SHARE, group, table)

    def append(self, token: int) -> None:
        """One more token, which has no slot yet. Raises TypeError or ValueError for what is no token."""
        self.tokens.append(as_token(token))

    def reserve(self, num_tokens: int) -> None:
        """Give the first `num_tokens` tokens a slot in every group. Raises OutOfPages, and changes nothing."""
        self._require_live()
        if num_tokens > len(self.tokens):
            raise ValueError(f"cannot reserve slots for {num_tokens} tokens: {len(self.tokens)} are known")
        missing = max(0, pages_for(num_tokens, self._memory.page_size) - len(self.tables[0]))
        pages = self._memory.prefix.allocate_many(missing * len(self.tables))
        for group, table in enumerate(self.tables):
            mine = pages[group * missing : (group + 1) * missing]
            table += mine
            if mine:
                self._tell(EventKind.ALLOCATE, group, mine)
            for token in self.tokens[self.num_told : num_tokens]:
                self._tell(EventKind.APPEND, group, (), [token])
        self.num_slots = max(self.num_slots, num_tokens)
        self.num_told = max(self.num_told, num_tokens)

    def mark_computed(self, num_tokens: int) -> None:
        """Note that the first `num_tokens` tokens went through the model: cache full pages, give back what is not read.

        Raises ValueError for tokens that have no slot, or for fewer than are computed already.
        """
        self._require_live()
        if not self.num_computed <= num_tokens <= self.num_slots:
            known = f"{self.num_computed} are, and {self.num_slots} have slots"
            raise ValueError(f"cannot mark {num_tokens} tokens as computed: {known}")
        if num_tokens > self.num_computed:
            for group in range(len(self.tables)):
                self._tell(EventKind.COMPUTE, group, (), (), num_tokens)
        self.num_computed = num_tokens
        size = self._memory.page_size
        # Another's pages with the same tokens were cached, and are evicted: now ours can be inserted.
        if self._path and self._path[-1].parent is None:
            self._path = []
        for index in range(len(self._path), num_tokens // size):
            edge = pack(self.tokens[index * size : (index + 1) * size])
            self._memory.prefix.insert(self._path, edge, [table[index] for table in self.tables], self.cache_salt)
        for group, (kind, _) in enumerate(self._memory.groups):
            given_back = self.give_back(self.tables[group], kind.needed(num_tokens, size).start)
            if given_back:
                self._tell(EventKind.GIVE_BACK, group, given_back)

    def release(self) -> None:
        """Give every page back; what is cached stays in the cache. Raises ValueError if it is released already."""
        self._require_live()
        del self._memory.sequences[self]
        self._memory.prefix.touch(self._path)
        for group, table in enumerate(self.tables):
            self._tell(EventKind.RELEASE, group, self.give_back(table, len(table)))

    def give_back(self, table: list[int], stop: int) -> list[int]:
        """Let null pages stand for all before logical page `stop`; return what stood there. Front to back: no gaps."""
        start = stop
        while start and table[start - 1] != NULL_PAGE:
            start -= 1
        given_back = table[start:stop]
        self._memory.pool.release_many(reversed(given_back))
        table[start:stop] = [NULL_PAGE] * (stop - start)
        return given_back

    def _tell(
        self, kind: str, group: int, pages: Iterable[int] = (), tokens: Iterable[int] = (), number: int = 0
    ) -> None:
        who = self._id * len(self.tables) + group
        self._memory.events.add(kind, who, tuple(pages), tuple(tokens), number)

    def _require_live(self) -> None:
        if self not in self._memory.sequences:
            raise ValueError("this sequence is released: it owns no pages any more; begin a new sequence")
