"""SGLang #28374: what a cancelled request had not computed yet is offered to everybody."""

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import Sequence, insert, release


def end(sequence: Sequence) -> None:
    """Give every page back. The cache keeps them, the last page too."""
    cache, table, count = sequence.cache, sequence.page_table, len(sequence.tokens)
    page, slot = divmod(count, cache.page_size)
    if slot and cache.pool.ref_counts[table[page]] > 1:
        count -= slot  # a fork goes on filling that page
    insert(cache, sequence.tokens[:count], table, sequence.cache_salt)
    for page in reversed(table):
        release(cache.pool, page)


PIECE = piece(
    number="M.12",
    title="kept though it was cancelled",
    broken=end,
    mended=mini.end,
    trials=histories("end", computed_at_once=0.6),
    convicted_by="law 3",
    hints=(
        "Let a text end right after it has begun, and let another begin like it. What does the other one find?",
        "The text that ended had slots. Had anything been written into them?",
        "`sequence.num_computed` says how many of its tokens may be offered.",
    ),
)
