"""nano-vllm #163: an entry of the prefix cache that outlives its page."""

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Cache, Node, release


def forget(cache: Cache, node: Node) -> None:
    """Give back the page of a node without children."""
    cache.by_use.pop(node)
    release(cache.pool, node.page)


PIECE = piece(
    number="M.1",
    title="an entry that outlives its page",
    broken=forget,
    mended=mini.forget,
    trials=histories(
        "forget", vocabulary=(0, 1, 2), page_sizes=(1, 1, 2), pool_sizes=(3, 4), verbs=("begin", "end", "end")
    ),
    convicted_by="law 1",
    sizes=14,
    hints=(
        "A page is given back here. Who can still find it?",
        "`match` walks down the trie from its root. It does not look at `by_use`, and it does not ask the pool.",
        "The node must leave the children of its parent in the same step in which the page is released.",
    ),
)
