"""nano-vllm #208: pages that can be found before they are computed."""

from typing import Any

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Cache, OutOfPages, Sequence, append, end, insert, match, share


def begin(cache: Cache, tokens: list[int], cache_salt: Any = None, whole_pages: bool = False) -> Sequence:
    """A sequence that owns what is cached of a prompt, and pages for the rest."""
    path, found = match(cache, tokens[:-1], cache_salt)  # one token must run
    if whole_pages:
        path, found = path[: found // cache.page_size], found - found % cache.page_size
    table = [node.page for node in path]
    for page in table:
        share(cache.pool, page)  # before anything is evicted
    sequence = Sequence(cache, tokens[:found], table, found, cache_salt)
    try:
        append(sequence, *tokens[found:])
    except OutOfPages:
        end(sequence)
        if found % cache.page_size == 0:
            raise
        return begin(cache, tokens, cache_salt, whole_pages=True)
    full = len(tokens) - len(tokens) % cache.page_size
    insert(cache, tokens[:full], sequence.page_table, cache_salt)  # to share
    return sequence


PIECE = piece(
    number="M.9",
    title="found before it is computed",
    broken=begin,
    mended=mini.begin,
    trials=histories("begin", computed_at_once=0.5),
    convicted_by="law 3",
    hints=(
        "Two prompts begin alike, and begin in the same step. What does the second one find?",
        "At the end of `begin` the pages are reserved. When are they computed, and who says so?",
        "`mark_computed` lets the cache own full pages once they are computed. `begin` must not.",
    ),
)
