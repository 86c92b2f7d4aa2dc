"""mini-sglang #52: the reference that is taken on the ancestors of a page, and not on the page."""

from typing import Any

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Cache, OutOfPages, Sequence, append, end, match, share


def begin(cache: Cache, tokens: list[int], cache_salt: Any = None, whole_pages: bool = False) -> Sequence:
    """A sequence that owns what is cached of a prompt, and pages for the rest."""
    path, found = match(cache, tokens[:-1], cache_salt)  # one token must run
    if whole_pages:
        path, found = path[: found // cache.page_size], found - found % cache.page_size
    table = [node.page for node in path]
    for node in path:
        node = node.parent
        if node.page is not None:
            share(cache.pool, node.page)  # before anything is evicted
    sequence = Sequence(cache, tokens[:found], table, found, cache_salt)
    try:
        append(sequence, *tokens[found:])
    except OutOfPages:
        end(sequence)
        if found % cache.page_size == 0:
            raise
        return begin(cache, tokens, cache_salt, whole_pages=True)
    return sequence


PIECE = piece(
    number="M.2",
    title="a reader that nobody counts",
    broken=begin,
    mended=mini.begin,
    trials=histories("begin"),
    convicted_by="law 1",
    hints=(
        "Take a path of two pages, and follow the loop with a pencil. Which pages get a reference?",
        "The first thing that the loop does is to leave the node that it is at. The root has no page.",
        "Each page of the new table needs one reference: `for page in table`.",
    ),
)
