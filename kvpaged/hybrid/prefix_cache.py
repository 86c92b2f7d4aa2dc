"""Pages found again by all tokens up to their end: for each page of tokens, a cached page in every group, or in some.

A trie, as in `kvpaged.prefix_cache`, but a node has a place for a page of each group, and any may be empty: that a page
is cached no longer means that those before it are::

    root --[ 5 3 9 7 ]--> full 1, window -, state - --[ 2 2 8 1 ]--> full 2, window 8, state 4
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from kvpaged.checks import positive_int
from kvpaged.events import EventKind, EventLog
from kvpaged.hybrid.groups import FullAttention, Group
from kvpaged.page_pool import OutOfPages, PagePool
from kvpaged.tokens import TOKEN_BYTES, as_tokens
from kvpaged.wording import count_of

NULL_PAGE = 0  # stands where there is no page. It is the first that the pool hands out, hence its number


class Node:
    """A page of tokens, below those before it. pages: of each group. Out of the trie, it has no parent any more."""

    __slots__ = ("children", "edge", "pages", "parent")

    def __init__(self, edge: Hashable, parent: "Node | None", num_groups: int) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[Hashable, Node] = {}
        self.pages = [NULL_PAGE] * num_groups


class GroupedPrefixCache:
    """Owns one reference to each page in it. Only full pages are cached, and a hit ends where a page ends.

    recomputed_pages: how many of the pages that could be reused are computed again all the same. A drafter that reads
    the model's hidden states asks for 1, as no page holds those.
    """

    def __init__(
        self,
        pool: PagePool,
        groups: Sequence[Group],
        page_size: int,
        recomputed_pages: int = 0,
        events: EventLog | None = None,
    ) -> None:
        self.pool = pool
        self.groups = groups
        self.page_size = positive_int("page_size", page_size)
        self.recomputed_pages = recomputed_pages
        self.events = events if events is not None else EventLog(recording=False)
        self.root = Node(None, None, len(groups))  # below it a node for each cache salt, and below those the pages
        self._lru: OrderedDict[tuple[Node, int], None] = OrderedDict()  # (node, group) of each page, oldest use first
        # Without all pages before it a page of full attention is of no use, so these groups lose leaves only.
        self._leaves_only = [isinstance(kind, FullAttention) for kind, _ in groups]

    def __len__(self) -> int:
        """Pages held."""
        return len(self._lru)

    def match(self, tokens: Iterable[int], cache_salt: Hashable = None) -> list[Node]:
        """Find the longest beginning of `tokens` after which every group has what it needs: the nodes of its pages."""
        packed, width = as_tokens(tokens)[1], self.page_size * TOKEN_BYTES
        node = self.root.children.get(cache_salt)
        path: list[Node] = []
        runs = [0] * len(self.groups)  # of each group, how many pages up to here are cached without a gap
        suitable = [0]
        for start in range(0, len(packed) - width + 1, width):
            node = node.children.get(packed[start : start + width]) if node else None
            if node is None:
                break
            path.append(node)
            runs = [run + 1 if page != NULL_PAGE else 0 for run, page in zip(runs, node.pages, strict=True)]
            needed = [kind.needed(len(path) * self.page_size, self.page_size) for kind, _ in self.groups]
            if all(run >= len(pages) for run, pages in zip(runs, needed, strict=True)):
                suitable.append(len(path))
        limit = max(0, suitable[-1] - self.recomputed_pages)
        return path[: max(n for n in suitable if n <= limit)]

    def take(self, path: Sequence[Node]) -> list[list[int]]:
        """Share what each group needs to go on at the end of a path: a table for each, null pages in front."""
        tables = [[NULL_PAGE] * len(path) for _ in self.groups]
        for group, (kind, _) in enumerate(self.groups):
            for index in kind.needed(len(path) * self.page_size, self.page_size):
                tables[group][index] = path[index].pages[group]
                self.pool.share(tables[group][index])
        self.touch(path)
        return tables

    def touch(self, path: Sequence[Node]) -> None:
        """Note that the pages needed at the end of a path are used now, the last first: so the leaf stays oldest."""
        for group, (kind, _) in enumerate(self.groups):
            for index in reversed(kind.needed(len(path) * self.page_size, self.page_size)):
                if path[index].pages[group] != NULL_PAGE:
                    self._lru.move_to_end((path[index], group))

    def insert(self, path: list[Node], edge: bytes, page_ids: Sequence[int], cache_salt: Hashable) -> None:
        """Keep a full page of tokens that follows on a path, which grows by its node.

        page_ids: of each group; a null page, or a second page for the same tokens, is not kept.
        """
        node = self._child(path[-1] if path else self._child(self.root, cache_salt), edge)
        path.append(node)
        for group, page_id in enumerate(page_ids):
            if page_id != NULL_PAGE and node.pages[group] == NULL_PAGE:
                self.pool.share(page_id)
                node.pages[group] = page_id
                self._lru[node, group] = None
                self.events.add(EventKind.INSERT, None, (page_id,), (), self.page_size)

    def allocate_many(self, n: int) -> list[int]:
        """Allocate `n` pages, evicting what only the cache owns if it must. All or nothing: raises OutOfPages."""
        shortage = n - self.pool.num_free
        victims = self._choose_victims(shortage)
        if len(victims) < shortage:
            raise OutOfPages(
                f"asked for {count_of(n, 'page')}: of {self.pool.num_pages}, {self.pool.num_free} are free and "
                f"{len(victims)} more can be evicted; release a sequence, or open a larger pool"
            )
        self._drop(victims)
        return self.pool.allocate_many(n)

    def evict(self, num_pages: int) -> int:
        """Give back up to `num_pages` pages that only the cache owns, least recently used first; return how many."""
        victims = self._choose_victims(num_pages)
        self._drop(victims)
        return len(victims)

    def nodes(self) -> Iterator[tuple[Node, Hashable, bytes]]:
        """Iterate over the nodes, each with its cache salt and with all tokens up to its end, packed."""
        stack = [(node, salt, b"") for salt, root in self.root.children.items() for node in root.children.values()]
        while stack:
            node, salt, before = stack.pop()
            assert isinstance(node.edge, bytes)
            yield node, salt, before + node.edge
            stack += [(child, salt, before + node.edge) for child in node.children.values()]

    def _child(self, node: Node, edge: Hashable) -> Node:
        if edge not in node.children:
            node.children[edge] = Node(edge, node, len(self.groups))
        return node.children[edge]

    def _choose_victims(self, num_pages: int) -> list[tuple[Node, int]]:
        victims: dict[tuple[Node, int], None] = {}
        in_use: list[tuple[Node, int]] = []
        for node, group in self._lru:
            if len(victims) >= num_pages:
                break
            after = node.children.values() if self._leaves_only[group] else ()
            if self.pool.ref_count(node.pages[group]) > 1:
                in_use.append((node, group))
            elif all(child.pages[group] == NULL_PAGE or (child, group) in victims for child in after):
                victims[node, group] = None
        for entry in in_use:  # being used is the latest use there is; and the next search need not pass them again
            self._lru.move_to_end(entry)
        return list(victims)

    def _drop(self, victims: list[tuple[Node, int]]) -> None:
        if victims:
            self.events.add(EventKind.EVICT, None, tuple(node.pages[group] for node, group in victims))
        for node, group in victims:
            self.pool.release(node.pages[group])
            node.pages[group] = NULL_PAGE
            del self._lru[node, group]
            while node.parent is not None and not node.children and set(node.pages) == {NULL_PAGE}:
                del node.parent.children[node.edge]
                parent, node.parent = node.parent, None
                node = parent
