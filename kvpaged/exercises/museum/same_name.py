"""vLLM #30931: two adapters of the same name share what they computed."""

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Cache, Node, agreeing


def match(cache: Cache, tokens: list[int], cache_salt: tuple[str, int] | None = None) -> tuple[list[Node], int]:
    """The longest cached beginning of the tokens: its nodes, and its length."""
    known = {salt and salt[0]: root for salt, root in cache.roots.items()}
    node = known.get(cache_salt and cache_salt[0], Node())
    path: list[Node] = []
    found = 0
    while found == len(path) * cache.page_size:  # as long as whole pages match
        rest = tuple(tokens[found : found + cache.page_size])
        shared = {child: agreeing(child.tokens, rest) for child in node.children}
        node = max(shared, key=lambda child: shared[child], default=None)
        if node is None or not shared[node]:
            break
        path.append(node)
        found += shared[node]
    return path, found


PIECE = piece(
    number="M.8",
    title="two adapters of one name",
    broken=match,
    mended=mini.match,
    trials=histories("match", salts=(("poet", 1), ("poet", 1), ("poet", 2), ("poet", 2), ("clerk", 3))),
    convicted_by="for ('poet', ",
    hints=(
        "A salt is an adapter here: a name, and a number that no other adapter has. What does `known` remember of it?",
        "K and V depend on the tokens and on the weights. Two adapters of one name have different weights.",
        "`insert` files by the whole salt: `cache.roots.setdefault(cache_salt, ...)`. Look there.",
    ),
)
