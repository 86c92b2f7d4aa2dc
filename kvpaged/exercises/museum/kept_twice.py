"""nano-vllm #219: the same tokens computed twice in one step, and kept twice."""

from typing import Any

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import BY_COUNT, piece
from kvpaged.mini import Cache, Node, share


def insert(cache: Cache, tokens: list[int], pages: list[int], cache_salt: Any = None) -> None:
    """Let the cache own computed pages, but none twice."""
    node, path = cache.roots.setdefault(cache_salt, Node()), []
    for start, page in zip(range(0, len(tokens), cache.page_size), pages):  # noqa: B905
        mine = tuple(tokens[start : start + cache.page_size])
        twins = [child for child in node.children if child.page == page]
        if not twins:
            share(cache.pool, page)
            twins = [Node(mine, page, node)]
            node.children += twins
        node = twins[0]
        path.append(node)
    for node in reversed(path):  # used now: its end first, so that its end goes first
        cache.by_use.pop(node, None)
        cache.by_use[node] = True


PIECE = piece(
    number="M.13",
    title="the same tokens, kept twice",
    broken=insert,
    mended=mini.insert,
    trials=histories("insert", computed_at_once=0.5),
    convicted_by=BY_COUNT,
    hints=(
        "Two sequences computed the same tokens at the same time, each in a page of its own. What is the trie asked?",
        "A page is new to the cache if its tokens are. A twin is a child that holds the same tokens, whatever its "
        "page; a child that holds more than mine will do as well.",
        "And where the cache holds only a part of mine, mine takes its place: `forget` the child whose tokens are the "
        "beginning of mine.",
    ),
)
