"""SGLang #6888: pages that are counted and that nobody owns, once a request goes before it is computed."""

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Sequence, insert, pages_for, release


def end(sequence: Sequence) -> None:
    """Give every page back. The cache keeps what was computed, the last page too."""
    cache, table, count = sequence.cache, sequence.page_table, sequence.num_computed
    page, slot = divmod(count, cache.page_size)
    if slot and cache.pool.ref_counts[table[page]] > 1:
        count -= slot  # a fork goes on filling that page
    insert(cache, sequence.tokens[:count], table, sequence.cache_salt)
    for page in reversed(table[: pages_for(sequence.num_computed, cache.page_size)]):
        release(cache.pool, page)


PIECE = piece(
    number="M.5",
    title="a page that leaks",
    broken=end,
    mended=mini.end,
    trials=histories("end", computed_at_once=0.6),
    convicted_by="0 owners: nobody",
    hints=(
        "Let a text end right after it has begun, before anything is computed. Which pages are released?",
        "`num_computed` counts tokens that have K and V. `len(tokens)` counts tokens that have a slot.",
        "A page is owned from the moment it is in the table: release all of `table`.",
    ),
)
