"""Memories of the small engine, with tokens in place of K and V: filled, seen through, and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Seen
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_view import PageView, Use, use_of_page
from kvpaged.figures.picture import Picture
from kvpaged.figures.prefix_trie import Root, TriePage, draw_trie

Named = Mapping[str, mini.Sequence]  # sequences by their letters


class Slots:
    """A storage without tensors: each slot holds a token, or None. The words are the small engine's storage's own:
    `storage[:, :, page, :slot] = storage[:, :, other, :slot]`.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.pages: list[list[Any]] = [[None] * page_size for _ in range(num_pages)]

    def __getitem__(self, at: tuple[Any, ...]) -> list[Any]:
        _, _, page, slots = (*at, slice(None))[:4]
        return list(self.pages[page][slots])

    def __setitem__(self, at: tuple[Any, ...], tokens: Any) -> None:
        _, _, page, slots = (*at, slice(None))[:4]
        places = range(len(self.pages[page]))[slots]
        held = tokens if isinstance(tokens, list) else [tokens] * len(places)
        for place, token in zip(places, held, strict=True):
            self.pages[page][place] = token


def memory(num_pages: int, page_size: int) -> mini.Cache:
    """An empty memory whose slots hold tokens."""
    return mini.Cache(num_pages, page_size, Slots(num_pages, page_size))


def keep(cache: mini.Cache, tokens: Sequence[int]) -> list[int]:
    """Cache a text on pages of its own; return them. They are owned by who computed them, too."""
    pages = [mini.allocate(cache.pool) for _ in range(mini.pages_for(len(tokens), cache.page_size))]
    if cache.storage is not None:
        for index, token in enumerate(tokens):
            page, slot = divmod(index, cache.page_size)
            cache.storage.pages[pages[page]][slot] = token
    mini.insert(cache, tokens, pages)
    return pages


def keep_alone(cache: mini.Cache, tokens: Sequence[int]) -> None:
    """Cache a text that nobody uses any more."""
    for page in reversed(keep(cache, tokens)):
        mini.release(cache.pool, page)


def compute(sequence: mini.Sequence, start: int, stop: int) -> None:
    """Write tokens start to stop - 1 into their slots, as far as the sequence has slots for them."""
    for index in range(start, stop):
        page, slot = divmod(index, sequence.cache.page_size)
        if page < len(sequence.page_table):
            sequence.cache.storage.pages[sequence.page_table[page]][slot] = sequence.tokens[index]


def compute_last(sequence: mini.Sequence) -> None:
    """Write the last token into its slot."""
    compute(sequence, max(0, len(sequence.tokens) - 1), len(sequence.tokens))


def text(cache: mini.Cache, tokens: Iterable[int]) -> mini.Sequence:
    """A sequence with these tokens in its slots, and computed, though the trie does not know of them."""
    sequence = mini.Sequence(cache, [], [], 0, None)
    mini.append(sequence, *tokens)
    sequence.num_computed = len(sequence.tokens)
    compute(sequence, 0, sequence.num_computed)
    return sequence


def read(sequence: mini.Sequence) -> list[Any]:
    """What the slots of its tokens hold, through its page table."""
    pages = [sequence.cache.storage.pages[page] for page in sequence.page_table]
    held = [token for page in pages for token in page] + ["no slot"] * len(sequence.tokens)
    return held[: len(sequence.tokens)]


def nodes(cache: mini.Cache) -> list[tuple[Any, Any]]:
    """The salt and the node of each page in the trie, each after the one that it continues."""
    found: list[tuple[Any, Any]] = []
    rest = [(salt, child) for salt, root in cache.roots.items() for child in root.children][::-1]
    while rest:
        salt, node = rest.pop()
        found.append((salt, node))
        rest += [(salt, child) for child in reversed(node.children)]
    return found


def path(node: Any) -> tuple[int, ...]:
    """The tokens from the root to the end of a node."""
    return (*path(node.parent), *node.tokens) if node.parent else ()


def see_pool(cache: mini.Cache) -> Seen:
    """What the pool counts. The order of the free pages is nobody's business."""
    return {"reference counts": [*cache.pool.ref_counts], "free pages": sorted(cache.pool.free)}


def see_trie(cache: mini.Cache) -> Seen:
    """Which tokens the trie leads to, and the page at the end of each path."""
    return {"the trie (path, page)": sorted((path(node), node.page) for _, node in nodes(cache))}


def see_memory(cache: mini.Cache, sequences: Named) -> Seen:
    """All that can be seen of a memory: who reads what, through which table; the pool; the trie."""
    seen: Seen = {}
    for name, sequence in sequences.items():
        seen |= {
            f"tokens of {name}": [*sequence.tokens],
            f"page table of {name}": [*sequence.page_table],
            f"computed tokens of {name}": sequence.num_computed,
            f"what {name} reads": read(sequence),
        }
    held = {node.page: cache.storage.pages[node.page][: len(node.tokens)] for _, node in nodes(cache)}
    return seen | see_pool(cache) | see_trie(cache) | {"what the cached pages hold": held}


def draw_memory(cache: mini.Cache, sequences: Named) -> Picture:
    """Every page of a small memory, with its owners, and what stands in its slots."""
    views = views_of(cache)
    for name, sequence in sequences.items():
        length = len(sequence.tokens)
        for index, page in enumerate(sequence.page_table):
            use = use_of_page(index, length, min(length, sequence.num_computed), cache.page_size)
            times = sequence.page_table.count(page)
            views[page].uses[name] = Use(max(0, use.tokens), use.computed, times)  # a wrong table may have one too many
    held = {
        page: ["" if token is None else str(token) for token in slots]
        for page, slots in enumerate(cache.storage.pages)
        if cache.pool.ref_counts[page] and any(token is not None for token in slots)
    }
    return draw_pages(views, cache.page_size, words=held)


def draw_small_trie(cache: mini.Cache) -> Picture:
    """The trie, from its roots on the left; who else owns a page is counted."""
    views, place, pages = views_of(cache), dict[Any, int](), list[TriePage]()
    for salt, node in nodes(cache):
        above = place.get(node.parent, Root(None if salt is None else repr(salt)))
        place[node] = len(pages)
        pages.append(TriePage(views[node.page], node.tokens, above))
    return draw_trie(pages, cache.page_size)


def views_of(cache: mini.Cache) -> list[PageView]:
    """Every page of a small memory, with what the pool counts and what the trie leads to."""
    views = [PageView(page, ref_count=count) for page, count in enumerate(cache.pool.ref_counts)]
    for _, node in nodes(cache):
        views[node.page].cached = max(views[node.page].cached, len(node.tokens))
    return views
