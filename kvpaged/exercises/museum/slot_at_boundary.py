"""MinivLLM #77: the last token of a full page, and a remainder of zero."""

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece
from kvpaged.mini import pages_for


def slots_of(page_table: list[int], page_size: int, start: int, stop: int) -> list[int]:
    """Where tokens start to stop - 1 are: their slot mapping."""
    slots = []
    for length in range(start + 1, stop + 1):
        last_page = page_table[pages_for(length, page_size) - 1]
        tokens_in_it = length % page_size
        slots.append(last_page * page_size + tokens_in_it - 1)
    return slots


PIECE = piece(
    number="M.10",
    title="the last slot of a page",
    broken=slots_of,
    mended=mini.slots_of,
    trials=histories("slots_of"),
    convicted_by="law 2",
    hints=(
        "How many tokens are in the last page of a text of 8 tokens, in pages of 4?",
        "A remainder counts what is left over. After a full page nothing is, and the page has all of its tokens.",
        "Do not count tokens; ask where token `length - 1` is. Its slot is `(length - 1) % page_size`.",
    ),
)
