"""The museum of real bugs: public reports, each made again in our own code, to be found and mended.

`convict("M.1")` plays random histories with the bug in place until somebody objects; `broken("M.1")` lets the small
engine run with it; `check("M.1", ...)` judges what the reader mended.
"""

from contextlib import AbstractContextManager

from kvpaged.exercises.museum import (
    colliding_keys,
    conviction,
    found_again,
    found_too_soon,
    freed_page_named,
    freed_twice,
    kept_though_cancelled,
    kept_twice,
    leaked_page,
    nothing_to_run,
    same_name,
    slot_at_boundary,
    stale_entry,
    still_written,
    uncounted_reader,
)
from kvpaged.exercises.museum.conviction import Conviction
from kvpaged.exercises.museum.piece import Piece

PIECES: dict[str, Piece] = {
    each.PIECE.exercise.number: each.PIECE
    for each in (
        stale_entry,
        uncounted_reader,
        freed_page_named,
        freed_twice,
        leaked_page,
        still_written,
        colliding_keys,
        same_name,
        found_too_soon,
        slot_at_boundary,
        nothing_to_run,
        kept_though_cancelled,
        kept_twice,
        found_again,
    )
}
EXERCISES = tuple(piece.exercise for piece in PIECES.values())


def convict(number: str, seed: int = 0) -> Conviction:
    """Play random histories with that bug in place until somebody objects. Raises ValueError for no piece's number."""
    return conviction.convict(_find(number), seed)


def broken(number: str) -> AbstractContextManager[None]:
    """Let the small engine run with that bug, inside a `with`. Raises ValueError for no piece's number."""
    return conviction.bug_in_place(_find(number))


def _find(number: str) -> Piece:
    if number not in PIECES:
        raise ValueError(f"no piece {number!r} in the museum: there are {', '.join(PIECES)}")
    return PIECES[number]
