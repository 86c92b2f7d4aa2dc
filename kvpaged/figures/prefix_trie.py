"""The prefix cache as what it is: a trie whose edges are pages of tokens."""

from collections.abc import Hashable

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import listed, owner_name
from kvpaged.figures.page_shape import PageShape, slot_width_for, visible
from kvpaged.figures.page_view import PageView, pages_of_cache
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Decode
from kvpaged.figures.svg import label, path, rect
from kvpaged.prefix_cache import PrefixCache, PrefixNode

_STEP, _GAP, _ROOT = 30, 12, 64


def prefix_trie(memory: PagedKVCache | PrefixCache, decode: Decode | None = None) -> Picture:
    """Draw the trie from its root on the left, a page at each step; pages that a sequence owns too show whose they are.

    A prefix cache alone counts the other owners of a page, a `PagedKVCache` knows them by name.
    """
    prefix = memory.prefix if isinstance(memory, PagedKVCache) else memory
    nodes = list(prefix.nodes())
    views = _views(memory, nodes)
    words = {node: [visible(decode(token)) if decode else str(token) for token in node.tokens] for node in nodes}
    slot_width = slot_width_for([word for each in words.values() for word in each])
    shape = PageShape(prefix.page_size, min(60.0, slot_width), 20)
    roots: dict[PrefixNode, None] = {}
    depth: dict[PrefixNode, int] = {}
    for node in nodes:
        assert node.parent is not None
        if node.parent.parent is None:
            roots[node.parent] = None
        depth[node] = depth.get(node.parent, -1) + 1
    rows: dict[PrefixNode, float] = {}
    leaves = 0
    for node in nodes:
        if not node.children:
            rows[node] = leaves
            leaves += 1
    for node in [*reversed(nodes), *roots]:
        if node.children:
            below = [rows[child] for child in node.children.values()]
            rows[node] = (min(below) + max(below)) / 2
    if not nodes:
        return Picture(_root(2, 2, None, 22), _ROOT + 4, 26, "The prefix cache is empty: a root, and no page below it.")

    def corner(node: PrefixNode) -> tuple[float, float]:
        if node.parent is None:
            return 2, 2 + rows[node] * (shape.height + _GAP)
        return 2 + _ROOT + _STEP + depth[node] * (shape.width + _STEP), 2 + rows[node] * (shape.height + _GAP)

    edges, boxes = [], []
    for node in nodes:
        assert node.parent is not None
        (x1, y1), (x2, y2) = corner(node.parent), corner(node)
        x1 += _ROOT if node.parent.parent is None else shape.width
        y1, y2 = y1 + shape.height / 2, y2 + shape.height / 2
        edges.append(path("M", x1, y1, "C", x1 + 16, y1, x2 - 16, y2, x2, y2, class_="a"))
        boxes.append(shape.draw(*corner(node), views[node], words[node]))
    boxes += [_root(*corner(root), getattr(root, "cache_salt", None), shape.height) for root in roots]
    width = 2 + _ROOT + (max(depth.values()) + 1) * (shape.width + _STEP) + 2
    return Picture(
        "".join(edges + boxes), width, leaves * (shape.height + _GAP) - _GAP + 4, _describe(nodes, views, words)
    )


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


def _describe(nodes: list[PrefixNode], views: dict[PrefixNode, PageView], words: dict[PrefixNode, list[str]]) -> str:
    sentences = [f"The prefix cache is a trie of {len(nodes)} page{'s' * (len(nodes) != 1)}."]
    for node in nodes:
        assert node.parent is not None
        above = "the root" if node.parent.parent is None else f"page {node.parent.page_id}"
        owners = [owner_name(owner) for owner in views[node].uses]
        if views[node].unknown > 0:
            owners.append(f"{views[node].unknown} more")
        also = f", also owned by {listed(owners)}" if owners else ""
        sentences.append(f"Under {above}, page {node.page_id}: {' '.join(words[node])}{also}.")
    return " ".join(sentences)
