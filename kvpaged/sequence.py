"""One sequence: what it takes from the cache, its tokens, its table of pages, and copy-on-write between sequences.

::

    tokens      t0 t1 t2 t3 | t4 t5 t6 t7 | t8 t9
    computed    <----------------------->            num_computed = 7: K and V are stored
    slots       <--------------------------------->  len(seq) = 10: a slot is reserved before it is computed
"""

from collections.abc import Hashable

from kvpaged.checks import whole
from kvpaged.events import EventKind
from kvpaged.memory import Memory
from kvpaged.page_pool import OutOfPages
from kvpaged.page_table import PageTable, pages_for
from kvpaged.prefix_cache import PrefixMatch, PrefixNode
from kvpaged.tokens import TOKEN_BITS, TOKEN_BYTES, as_token, pack
from kvpaged.wording import count_of


class Sequence:
    """The tokens of one sequence and its table. It owns one reference to each page in the table, until `release`."""

    def __init__(self, memory: "Memory[Sequence]", tokens: list[int], table: PageTable, cache_salt: Hashable) -> None:
        """Sequences are made by `PagedKVCache.sequence` and `fork`, which own the references they hand over."""
        self.id = next(memory.sequence_ids)
        self.tokens = tokens
        self.table = table
        self.cache_salt = cache_salt
        self.num_computed = 0
        self.num_cached_tokens = 0
        self._memory = memory
        self._ref_counts = memory.pool.ref_counts
        self._events = memory.events
        self._released = False
        # Where the full pages that we have shown to the prefix cache end in its trie; None before the first.
        self._cached_path: PrefixNode | None = None
        memory.sequences.add(self)

    @classmethod
    def begin(cls, memory: "Memory[Sequence]", tokens: list[int], packed: bytes, cache_salt: Hashable) -> "Sequence":
        """Own what is cached of a prompt, and pages for the rest.

        Raises OutOfPages, and changes nothing, when the pages that are free or can be evicted are too few.
        """
        match = PrefixMatch([], 0)
        if memory.prefix_caching:
            match = memory.prefix.match_packed(packed[:-TOKEN_BYTES], cache_salt)  # one token must run, for its logits
        try:
            return cls._begin_from(match, memory, tokens, cache_salt)
        except OutOfPages:
            if match.partial is None:
                raise
        # A partly matching page must be there together with its copy. Without it, the request needs one page less.
        return cls._begin_from(match.without_partial(memory.page_size), memory, tokens, cache_salt)

    @classmethod
    def _begin_from(
        cls, match: PrefixMatch, memory: "Memory[Sequence]", tokens: list[int], cache_salt: Hashable
    ) -> "Sequence":
        table = PageTable(memory.page_size, match.page_ids, match.num_tokens)
        num_new = len(tokens) - match.num_tokens
        memory.pool.share_many(match.page_ids)  # owned before anything is evicted, so it is not they that are
        try:
            pages = memory.make_room(table, num_new)
        except BaseException:
            memory.pool.release_many(match.page_ids)
            raise
        sequence = cls(memory, tokens, table, cache_salt)
        sequence.num_computed = sequence.num_cached_tokens = match.num_tokens
        sequence._cached_path = match.full
        memory.prefix.touch(match)
        if memory.events.listeners:
            memory.events.add(EventKind.BEGIN, sequence.id, (), tuple(tokens), match.num_tokens)
            if match.page_ids:
                memory.events.add(EventKind.SHARE, sequence.id, tuple(match.page_ids))
        sequence._occupy(pages, num_new)
        return sequence

    def __len__(self) -> int:
        """Tokens that have a slot."""
        return self.table.num_tokens

    def append(self, token: int) -> None:
        """Give one more token a slot: the next one of the last page, or the first of a new page.

        Where the last page has other owners, its slots in use are copied to a private page first.
        Raises OutOfPages, TypeError or ValueError, and leaves everything as it was.
        """
        if token.__class__ is not int or token >> TOKEN_BITS:
            token = as_token(token)
        table = self.table
        num_tokens = table.num_tokens
        if num_tokens % table.page_size and self._ref_counts[table.page_ids[-1]] == 1:
            table.num_tokens = num_tokens + 1
        else:  # a released sequence maps no tokens, and so comes here
            self._require_live()
            self._occupy(self._memory.make_room(table, 1), 1)
        self.tokens.append(token)
        # An event made for nobody would cost as much as all the rest.
        if self._events.listeners:
            self._events.add(EventKind.APPEND, self.id, (), (token,))

    def mark_computed(self, n: int | None = None) -> None:
        """Note that K and V of the first `n` tokens are stored (of all, if None); what was computed stays so.

        Pages that are full of computed tokens enter the prefix cache. If `n` tokens are computed already, nothing
        happens. Raises ValueError unless 0 <= n <= len(seq), and TypeError if n is no integer.
        """
        self._require_live()
        num_tokens = self.table.num_tokens
        n = num_tokens if n is None else whole("n", n)
        if not 0 <= n <= num_tokens:
            raise ValueError(f"cannot mark {n} tokens as computed: sequence {self.id} has {num_tokens}")
        if n <= self.num_computed:
            return
        self.num_computed = n
        self._events.add(EventKind.COMPUTE, self.id, (), (), n)
        num_full, path = n // self.table.page_size, self._cached_path
        if num_full > (0 if path is None else path.depth) and self._memory.prefix_caching:
            self._cache_computed(num_full * self.table.page_size)

    def slot_mapping(self, start: int, stop: int) -> list[int]:
        """Return the flat slots, page_id * page_size + slot, of tokens start to stop - 1.

        Raises IndexError unless 0 <= start <= stop <= len(seq).
        """
        self._require_live()
        return self.table.slot_mapping(start, stop)

    def fork(self) -> "Sequence":
        """Return a second owner of every page, with the same tokens. Copies no page, and costs none.

        Whichever of the two writes to their last page first takes a private copy of it then. Tokens that have a slot
        but no K and V yet should be computed before the fork: a page with two owners is read-only (law 2).
        """
        self._require_live()
        table = PageTable(self.table.page_size, self.table.page_ids, self.table.num_tokens)
        self._memory.pool.share_many(table.page_ids)
        child = Sequence(self._memory, self.tokens.copy(), table, self.cache_salt)
        child.num_computed = self.num_computed
        child.num_cached_tokens = self.num_cached_tokens
        child._cached_path = self._cached_path
        self._events.add(EventKind.FORK, self.id, tuple(table.page_ids), (), child.id)
        return child

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on, and give back the pages that held nothing else.

        This is how speculative decoding takes back what it guessed wrong.
        Raises ValueError unless 0 <= length <= len(seq), and TypeError if it is no integer.
        """
        self._require_live()
        length = whole("length", length)
        dropped = self.table.truncate(length)
        del self.tokens[length:]
        self.num_computed = min(self.num_computed, length)
        while self._cached_path and self._cached_path.depth > length // self.table.page_size:
            self._cached_path = self._cached_path.parent
        self._memory.pool.release_many(reversed(dropped))
        self._events.add(EventKind.TRUNCATE, self.id, tuple(dropped), (), length)

    def forget_cached(self) -> None:
        """Show all pages to the prefix cache again, which has forgotten everything."""
        self._cached_path = None

    def abandon(self) -> None:
        """Own nothing any more and give nothing back, whatever state this was in. See `PagedKVCache.salvage`."""
        self._released, self.table = True, PageTable(self.table.page_size)

    def release(self) -> None:
        """Give every page back. With prefix caching, what was computed is kept, with the partly filled last page.

        That last page is kept only if nobody else owns it: a fork that goes on will fill it further. Raises ValueError
        if the sequence is released already.
        """
        self._require_live()
        if self._memory.prefix_caching and self.num_computed:
            num_tokens = self.num_computed
            last_page, slot = self.table.lookup(num_tokens - 1)
            if slot + 1 < self.table.page_size and self._memory.pool.ref_count(last_page) > 1:
                num_tokens -= slot + 1
            self._cache_computed(num_tokens)
        pages = self.table.truncate(0)
        self._released = True
        self._memory.sequences.discard(self)
        self._memory.pool.release_many(reversed(pages))  # so that the next to allocate gets them in their old order
        self._events.add(EventKind.RELEASE, self.id, tuple(pages))

    def _cache_computed(self, num_tokens: int) -> None:
        """Show the first `num_tokens` to the prefix cache, from where it has not seen them yet."""
        if not num_tokens:
            return
        size, path = self.table.page_size, self._cached_path
        if path and not path.alive:  # evicted: another's page was on our path
            path = None
        start = path.depth if path else 0
        self._cached_path = self._memory.prefix.insert_packed(
            pack(self.tokens[start * size : num_tokens]),
            self.table.page_ids[start : pages_for(num_tokens, size)],
            self.cache_salt,
            after=path,
        )

    def _occupy(self, pages: list[int], num_tokens: int) -> None:
        """Map more tokens into the room that `make_room` found for them. Cannot fail."""
        table, memory = self.table, self._memory
        if pages:
            self._events.add(EventKind.ALLOCATE, self.id, tuple(pages))
        if memory.must_copy(table):
            source, target = table.page_ids[-1], pages[0]
            table.page_ids[-1] = target
            memory.pool.release(source)
            self._events.add(EventKind.COPY, self.id, (source, target), (), table.num_tokens % table.page_size)
            pages = pages[1:]
        table.extend(pages, num_tokens)

    def _require_live(self) -> None:
        if self._released:
            raise ValueError(f"sequence {self.id} is released: it owns no pages any more; begin a new sequence")

    def __repr__(self) -> str:
        state = "released" if self._released else f"pages={self.table.page_ids}"
        return f"Sequence(id={self.id}, {count_of(len(self), 'token')}, {self.num_computed} computed, {state})"
