"""The prefix cache as what it is: a trie whose edges are pages of tokens."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import listed, owner_name
from kvpaged.figures.page_shape import PageShape, slot_width_for, visible
from kvpaged.figures.page_view import PageView, pages_of_cache
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Decode
from kvpaged.figures.svg import label, path, rect
from kvpaged.prefix_cache import PrefixCache, PrefixNode
from kvpaged.wording import count_of

_STEP, _GAP, _ROOT = 30, 12, 64


class Root(NamedTuple):
    """Where the paths of one cache salt begin."""

    cache_salt: Hashable


class TriePage(NamedTuple):
    """A page in a trie: how it looks, its tokens, and what it hangs under: a root, or a page by its place in a list."""

    view: PageView
    tokens: Sequence[int]
    above: "Root | int"


def prefix_trie(memory: PagedKVCache | PrefixCache, decode: Decode | None = None) -> Picture:
    """Draw the trie from its root on the left, a page at each step; pages that a sequence owns too show whose they are.

    A prefix cache alone counts the other owners of a page, a `PagedKVCache` knows them by name.
    """
    prefix = memory.prefix if isinstance(memory, PagedKVCache) else memory
    nodes = list(prefix.nodes())
    views = _views(memory, nodes)
    place = {node: index for index, node in enumerate(nodes)}
    pages = []
    for node in nodes:
        assert node.parent is not None
        above = place.get(node.parent, Root(getattr(node.parent, "cache_salt", None)))
        pages.append(TriePage(views[node], node.tokens, above))
    return draw_trie(pages, prefix.page_size, decode)


def draw_trie(pages: Sequence[TriePage], page_size: int, decode: Decode | None = None) -> Picture:
    """Draw these pages, each of which stands after the page that it continues."""
    if not pages:
        return Picture(_root(2, 2, None, 22), _ROOT + 4, 26, "The prefix cache is empty: a root, and no page below it.")
    words = [[visible(decode(token)) if decode else str(token) for token in page.tokens] for page in pages]
    slot_width = slot_width_for([word for each in words for word in each])
    shape = PageShape(page_size, min(60.0, slot_width), 20)
    rows, leaves = _rows(pages)
    depth: dict[Root | int, int] = {}
    for index, page in enumerate(pages):
        depth[index] = depth.get(page.above, -1) + 1

    def corner(place: Root | int) -> tuple[float, float]:
        left = 2 + _ROOT + _STEP + depth[place] * (shape.width + _STEP) if place in depth else 2
        return left, 2 + rows[place] * (shape.height + _GAP)

    edges, boxes = [], []
    for index, page in enumerate(pages):
        (x1, y1), (x2, y2) = corner(page.above), corner(index)
        x1 += _ROOT if isinstance(page.above, Root) else shape.width
        y1, y2 = y1 + shape.height / 2, y2 + shape.height / 2
        edges.append(path("M", x1, y1, "C", x1 + 16, y1, x2 - 16, y2, x2, y2, class_="a"))
        boxes.append(shape.draw(*corner(index), page.view, words[index]))
    boxes += [_root(*corner(root), root.cache_salt, shape.height) for root in rows if isinstance(root, Root)]
    width = 2 + _ROOT + (max(depth.values()) + 1) * (shape.width + _STEP) + 2
    return Picture("".join(edges + boxes), width, leaves * (shape.height + _GAP) - _GAP + 4, _describe(pages, words))


def _rows(pages: Sequence[TriePage]) -> tuple[dict["Root | int", float], int]:
    """In which row each page and each root stands: a leaf has one of its own, others the middle of what is below."""
    below: dict[Root | int, list[int]] = {}
    for index, page in enumerate(pages):
        below.setdefault(page.above, []).append(index)
    leaves = [index for index in range(len(pages)) if index not in below]
    rows: dict[Root | int, float] = {index: row for row, index in enumerate(leaves)}
    roots = [place for place in below if isinstance(place, Root)]
    for place in [*reversed(range(len(pages))), *roots]:
        if place in below:
            children = [rows[child] for child in below[place]]
            rows[place] = (min(children) + max(children)) / 2
    return rows, len(leaves)


def _views(memory: PagedKVCache | PrefixCache, nodes: list[PrefixNode]) -> dict[PrefixNode, PageView]:
    if isinstance(memory, PagedKVCache):
        pages = pages_of_cache(memory)
        return {node: pages[node.page_id] for node in nodes}
    return {
        node: PageView(node.page_id, cached=len(node.tokens), ref_count=memory.pool.ref_count(node.page_id))
        for node in nodes
    }


def _root(x: float, y: float, cache_salt: Hashable, height: float) -> str:
    middle = y + height / 2
    parts = rect(x, middle - 11, _ROOT, 22, rx=11, class_="p") + label(x + _ROOT / 2, middle, "root", class_="m")
    if cache_salt is not None:
        parts += label(x + _ROOT / 2, middle + 20, f"salt {cache_salt}", class_="m s d")
    return parts


def _describe(pages: Sequence[TriePage], words: Sequence[Sequence[str]]) -> str:
    sentences = [f"The prefix cache is a trie of {count_of(len(pages), 'page')}."]
    for page, said in zip(pages, words, strict=True):
        above = "the root" if isinstance(page.above, Root) else f"page {pages[page.above].view.page_id}"
        owners = [owner_name(owner) for owner in page.view.uses]
        if page.view.unknown > 0:
            owners.append(f"{page.view.unknown} more")
        also = f", also owned by {listed(owners)}" if owners else ""
        sentences.append(f"Under {above}, page {page.view.page_id}: {' '.join(said)}{also}.")
    return " ".join(sentences)
