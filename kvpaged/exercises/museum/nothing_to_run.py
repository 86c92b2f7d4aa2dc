"""nano-vllm #114: a prompt that is cached to its last token."""

from typing import Any

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Cache, OutOfPages, Sequence, append, end, match, share


def begin(cache: Cache, tokens: list[int], cache_salt: Any = None, whole_pages: bool = False) -> Sequence:
    """A sequence that owns what is cached of a prompt, and pages for the rest."""
    path, found = match(cache, tokens, cache_salt)
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
    return sequence


PIECE = piece(
    number="M.11",
    title="nothing left to run",
    broken=begin,
    mended=mini.begin,
    trials=histories("begin"),
    convicted_by="nothing to compute",
    hints=(
        "The next token is chosen from the logits of the last one. Who computes those?",
        "Taking one off `found` after the search is not enough: the path may then have a page too many, and the token "
        "would be written into a page that others read.",
        "Search for all tokens but the last: `tokens[:-1]`.",
    ),
)
