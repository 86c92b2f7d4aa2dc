"""mini-sglang #142: a page is given back as a duplicate, and its sequence goes on reading it."""

from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Sequence, insert, match, release, share


def mark_computed(sequence: Sequence, num_tokens: int) -> None:
    """K and V of the first tokens are stored: keep their full pages, and none twice."""
    cache, sequence.num_computed = sequence.cache, num_tokens
    full = sequence.tokens[: num_tokens - num_tokens % cache.page_size]
    insert(cache, full, sequence.page_table, sequence.cache_salt)
    path, _ = match(cache, full, sequence.cache_salt)
    for mine, node in zip(sequence.page_table, path):  # noqa: B905
        if mine != node.page:  # the cache has these tokens in another page
            release(cache.pool, mine)


def _mended(sequence: Sequence, num_tokens: int) -> None:
    cache, sequence.num_computed = sequence.cache, num_tokens
    full = sequence.tokens[: num_tokens - num_tokens % cache.page_size]
    insert(cache, full, sequence.page_table, sequence.cache_salt)
    path, _ = match(cache, full, sequence.cache_salt)
    for index, node in enumerate(path):
        share(cache.pool, node.page)
        release(cache.pool, sequence.page_table[index])
        sequence.page_table[index] = node.page


PIECE = piece(
    number="M.3",
    title="a table that names freed pages",
    broken=mark_computed,
    mended=_mended,
    trials=histories("mark_computed", computed_at_once=0.5),
    convicted_by="law 1",
    against="the small engine with one copy of each page",
    hints=(
        "After the release the page may be free. Who still has its number?",
        "It is right to give the second copy back: the tokens are the same, so K and V are. But the sequence must read "
        "them where the cache has them, and be counted there.",
        "In this order: share the cache's page, release your own, write the cache's page into the table.",
    ),
)
