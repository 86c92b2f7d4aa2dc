"""Pages whose K and V are worth keeping: found again by the tokens they hold, evicted when pages are short.

A trie whose edges are pages of tokens. K and V of a token depend on every token before it, so a page may be reused
exactly where the whole path from the root is the same: that is what walking down the trie checks, token by token::

        root --[ 5 3 9 7 ]--> page 0 --[ 2 2 8 1 ]--> page 1 --[ 6 4 ]--> page 5     (partly filled: always a leaf)
                                     \\-[ 2 2 8 6 ]--> page 3

RadixAttention (Zheng et al. 2024, section 3) keeps such a tree; vLLM keeps a chain of hashes instead.
"""

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from kvpaged.checks import check_salt, positive_int
from kvpaged.events import EventKind, EventLog
from kvpaged.page_pool import OutOfPages, PagePool
from kvpaged.page_table import PageTable
from kvpaged.tokens import TOKEN_BYTES, as_tokens, common_prefix, unpack
from kvpaged.wording import count_of


class PrefixNode:
    """One cached page: the edge of tokens that leads to it, and the pages that may follow it. A root has no page.

    depth: pages from the root to the end of this one.
    """

    __slots__ = ("alive", "children", "depth", "edge", "edges", "page_id", "parent")

    def __init__(self, edge: bytes, page_id: int, parent: "PrefixNode | None") -> None:
        self.edge = edge
        self.page_id = page_id
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.children: dict[bytes, PrefixNode] = {}
        self.edges: list[bytes] = []  # the children's, in order
        self.alive = True

    @property
    def tokens(self) -> list[int]:
        """The tokens in the page: a page full of them, or fewer."""
        return unpack(self.edge)

    def path(self) -> tuple[Hashable, bytes]:
        """The cache salt, and all tokens from the root to the end of this page, packed."""
        edges, node = [self.edge], self
        while node.parent is not None:
            node = node.parent
            edges.append(node.edge)
        assert isinstance(node, _Root)
        return node.cache_salt, b"".join(reversed(edges))

    def add(self, child: "PrefixNode") -> None:
        """Hang a child under this node."""
        self.children[child.edge] = child
        insort(self.edges, child.edge)

    def remove(self, child: "PrefixNode") -> None:
        """Take a child away."""
        del self.children[child.edge]
        del self.edges[bisect_left(self.edges, child.edge)]

    def neighbours(self, edge: bytes) -> "list[PrefixNode]":
        """Return the children on either side of where `edge` stands in order.

        No other child has a longer prefix in common with it, so the best partial match costs one search, however
        many children there are.
        """
        place = bisect_left(self.edges, edge)
        return [self.children[found] for found in self.edges[max(0, place - 1) : place + 1]]


class _Root(PrefixNode):
    """Where the paths of one cache salt begin."""

    __slots__ = ("cache_salt",)

    def __init__(self, cache_salt: Hashable) -> None:
        super().__init__(b"", -1, None)
        self.cache_salt = cache_salt


class PrefixWatcher:
    """Somebody in `PrefixCache.watchers`, told what it does. Each of these does nothing until it is overridden."""

    def kept(self, nodes: list[PrefixNode]) -> None:
        """These pages are cached from now on, each after the one that it continues."""

    def used(self, node: PrefixNode) -> None:
        """The path to this page was matched, and is used."""

    def making_room(self) -> None:
        """Pages are short: those to be evicted are about to be chosen, among those that only the cache owns."""

    def evicting(self, nodes: list[PrefixNode]) -> None:
        """These pages will go, and are still there. If this raises, they stay."""

    def removed(self, nodes: list[PrefixNode]) -> None:
        """These pages are cached no more."""

    def forgotten(self) -> None:
        """Nothing is cached any more."""


class PrefixMatch(NamedTuple):
    """The longest cached prefix of some tokens. It owns nothing: share the pages before anything is evicted."""

    page_ids: list[int]
    num_tokens: int
    full: PrefixNode | None = None  # the last node whose whole page matched
    partial: PrefixNode | None = None  # the node of the last page, where only its first slots matched

    def without_partial(self, page_size: int) -> "PrefixMatch":
        """Return the part of this match that consists of whole pages."""
        whole = self.num_tokens // page_size
        return PrefixMatch(self.page_ids[:whole], whole * page_size, self.full)


class PrefixCache:
    """A trie of pages, one root for each cache salt. It owns one reference to each page in it.

    Tokens are compared, never hashes of them alone, so that two prompts cannot be confused. A match is exact to the
    token: the last page of a match may agree in its first slots only.
    """

    def __init__(self, pool: PagePool, page_size: int, events: EventLog | None = None) -> None:
        """Raises ValueError if `page_size` is below 1."""
        self.pool = pool
        self.page_size = positive_int("page_size", page_size)
        self.events = events if events is not None else EventLog(recording=False)
        self.watchers: list[PrefixWatcher] = []
        self._edge_bytes = page_size * TOKEN_BYTES
        self._roots: dict[Hashable, _Root] = {}
        self._num_pages = 0
        # Where uses ended, the least recent first: every leaf, and nodes that were used without what continues them.
        # A node that is not here was last used together with one below it.
        self._ends: OrderedDict[PrefixNode, None] = OrderedDict()

    def __len__(self) -> int:
        """Pages held."""
        return self._num_pages

    def match(self, tokens: Iterable[int], cache_salt: Hashable = None) -> PrefixMatch:
        """Find the longest cached prefix of `tokens`, to the token. Changes nothing and takes no ownership.

        The cost grows with the pages of the match, not with what is cached. Raises TypeError or ValueError for what is
        no token, and TypeError for what is no salt (see `PagedKVCache.sequence`).
        """
        check_salt(cache_salt)
        return self.match_packed(as_tokens(tokens)[1], cache_salt)

    def match_packed(self, packed: bytes, cache_salt: Hashable) -> PrefixMatch:
        """The same for tokens that are packed already."""
        node: PrefixNode | None = self._roots.get(cache_salt)
        if node is None:
            return PrefixMatch([], 0)
        width, page_ids = self._edge_bytes, []
        for start in range(0, len(packed) - width + 1, width):
            if (child := node.children.get(packed[start : start + width])) is None:
                break
            page_ids.append(child.page_id)
            node = child
        start = len(page_ids) * width
        rest = packed[start : start + width]
        partial = max(node.neighbours(rest), key=lambda child: common_prefix(rest, child.edge), default=None)
        shared = common_prefix(rest, partial.edge) if partial is not None else 0
        if partial is None or not shared:
            return PrefixMatch(page_ids, len(page_ids) * self.page_size, node)
        page_ids.append(partial.page_id)
        return PrefixMatch(page_ids, start // TOKEN_BYTES + shared, node, partial)

    def touch(self, match: PrefixMatch) -> None:
        """Note that a match is used now, so that it is evicted late.

        The deepest node is enough: those above it leave after it.
        """
        node = match.partial or match.full
        if node is not None and node.alive and node.parent is not None:
            self._use(node)
            for watcher in self.watchers:
                watcher.used(node)

    def insert(self, tokens: Iterable[int], page_ids: Iterable[int], cache_salt: Hashable = None) -> None:
        """Keep the computed pages of `tokens`, becoming one more owner of each.

        A page whose tokens are cached already on the same path is not kept a second time.
        Raises ValueError if the pages are not just those that `tokens` need, or one of them is free; TypeError for what
        is no salt, token or page id. Nothing is kept then.
        """
        check_salt(cache_salt)
        packed = as_tokens(tokens)[1]
        table = PageTable(self.page_size, page_ids, len(packed) // TOKEN_BYTES)  # it counts the pages
        for page_id in table.page_ids:
            if not self.pool.ref_count(page_id):
                raise ValueError(f"page {page_id} is free: only pages that somebody owns can be cached")
        if packed:
            self.insert_packed(packed, [int(page_id) for page_id in table.page_ids], cache_salt)

    def insert_packed(
        self, packed: bytes, page_ids: list[int], cache_salt: Hashable, after: PrefixNode | None = None
    ) -> PrefixNode:
        """Insert below the node `after` (the salt's root, if None); return the last node whose page is full.

        The pages must be owned, and hold just the packed tokens.
        """
        node = after if after is not None else self._roots.setdefault(cache_salt, _Root(cache_salt))
        width, num_tokens, covering = self._edge_bytes, 0, None
        kept: list[PrefixNode] = []
        replaced: list[PrefixNode] = []
        for index, page_id in enumerate(page_ids):
            edge = packed[index * width : (index + 1) * width]
            child = node.children.get(edge)
            if child is None:
                neighbours = node.neighbours(edge)
                covering = next((other for other in neighbours if other.edge.startswith(edge)), None)
                if covering is not None:  # a partly filled page, of which another page holds every token and more
                    break
                replaced += [other for other in neighbours if edge.startswith(other.edge)]  # and the other way round
                self.pool.share(page_id)
                num_tokens += len(edge) // TOKEN_BYTES
                child = PrefixNode(edge, page_id, node)
                node.add(child)
                kept.append(child)
                self._ends.pop(node, None)
            node = child
        self._num_pages += len(kept)
        if kept:
            self.events.add(EventKind.INSERT, None, tuple(each.page_id for each in kept), (), num_tokens)
        self._remove(replaced)
        end = covering or node
        if end.parent is not None:
            self._use(end)
        for watcher in self.watchers if kept else ():
            watcher.kept(kept)
        return node if len(node.edge) == width or node.parent is None else node.parent

    def forget(self) -> None:
        """Begin empty, whatever state this was in; give nothing back. See `PagedKVCache.salvage`."""
        self._roots.clear()
        self._ends.clear()
        self._num_pages = 0
        for watcher in self.watchers:
            watcher.forgotten()

    def evict(self, num_pages: int) -> int:
        """Give back up to `num_pages` pages that only the cache owns; return how many became free.

        The least recently used go first, and always a leaf before the page it continues. A page that was inserted at
        two places (under two salts, say) has two owners, and stays. One event names all that went.
        """
        self._make_room()
        victims = self._choose_victims(num_pages)
        self._evict(victims)
        return len(victims)

    def allocate_many(self, n: int) -> list[int]:
        """Allocate `n` pages, evicting what only the cache owns if it must.

        All or nothing: raises OutOfPages, and has evicted nothing, if the free and the evictable are too few. (Pages in
        use that it came to are then the last that will be evicted: to be in use is to be used.)
        """
        if n > self.pool.num_free:
            self._make_room()
            victims = self._choose_victims(n - self.pool.num_free)
            if n > self.pool.num_free + len(victims):
                self._spare(victims)
                raise OutOfPages(
                    f"asked for {count_of(n, 'page')}: of {self.pool.num_pages}, {self.pool.num_free} are free and "
                    f"{len(victims)} more can be evicted; release a sequence, or open a larger pool"
                )
            self._evict(victims)
        return self.pool.allocate_many(n)

    def clear(self) -> None:
        """Give back every page."""
        self._remove(list(self.nodes())[::-1])

    def nodes(self) -> Iterator[PrefixNode]:
        """Iterate over the cached pages, each after the page it continues."""
        stack: list[PrefixNode] = list(reversed(self._roots.values()))
        while stack:
            node = stack.pop()
            if node.parent is not None:
                yield node
            stack += list(node.children.values())[::-1]

    def _choose_victims(self, num_pages: int) -> list[PrefixNode]:
        """Take up to `num_pages` evictable nodes out of the order, children before parents. Removes nothing."""
        victims: list[PrefixNode] = []
        in_use: list[PrefixNode] = []
        chosen_children: Counter[PrefixNode] = Counter()
        while len(victims) < num_pages and self._ends:
            node, _ = self._ends.popitem(last=False)
            if len(node.children) > chosen_children[node]:
                continue  # what continues it was used later, so it is as recent as that
            if self.pool.ref_count(node.page_id) > 1:
                in_use.append(node)
                continue
            victims.append(node)
            parent = node.parent
            assert parent is not None
            chosen_children[parent] += 1
            is_leaf = chosen_children[parent] == len(parent.children)
            if is_leaf and parent.parent is not None and parent not in self._ends:
                self._use(parent, last=False)
        for node in in_use:  # being used is the latest use there is; and the next search need not pass them again
            self._use(node)
        return victims

    def _make_room(self) -> None:
        for watcher in self.watchers:
            watcher.making_room()

    def _evict(self, victims: list[PrefixNode]) -> None:
        """Tell that these will go, and remove them."""
        try:
            for watcher in self.watchers:
                watcher.evicting(victims)
        except BaseException:
            self._spare(victims)
            raise
        self._remove(victims)

    def _spare(self, victims: list[PrefixNode]) -> None:
        """Put chosen victims back into the order, where they were."""
        for node in reversed(victims):
            self._use(node, last=False)

    def _use(self, node: PrefixNode, last: bool = True) -> None:
        """Let a node leave last of all, or first."""
        self._ends[node] = None
        self._ends.move_to_end(node, last)

    def _remove(self, nodes: list[PrefixNode]) -> None:
        """Give the pages of these nodes back; no node may have children that stay."""
        for node in nodes:
            parent = node.parent
            assert parent is not None
            parent.remove(node)
            node.alive = False
            self._ends.pop(node, None)
            if isinstance(parent, _Root) and not parent.children:
                parent.alive = False
                del self._roots[parent.cache_salt]
        self._num_pages -= len(nodes)
        self.pool.release_many(node.page_id for node in nodes)
        if nodes:
            self.events.add(EventKind.EVICT, None, tuple(node.page_id for node in nodes))
            for watcher in self.watchers:
                watcher.removed(nodes)

    def __repr__(self) -> str:
        return f"PrefixCache(page_size={self.page_size}, {count_of(self._num_pages, 'page')} held)"
