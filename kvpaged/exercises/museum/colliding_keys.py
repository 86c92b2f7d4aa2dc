"""CVE-2025-25183, and Megatron-LM #4158: a hash in the place of the tokens."""

from collections.abc import Sequence as Listed

from kvpaged import mini
from kvpaged.exercises.museum.history import histories
from kvpaged.exercises.museum.piece import piece


def agreeing(a: Listed[int], b: Listed[int]) -> int:
    """How many tokens agree, from the first on."""

    def key(tokens: Listed[int]) -> int:
        total = 0
        for token in tokens:
            total = 31 * total + token
        return total

    longest = min(len(a), len(b))
    return next((n for n in range(longest, 0, -1) if key(a[:n]) == key(b[:n])), 0)


PIECE = piece(
    number="M.7",
    title="two texts with one key",
    broken=agreeing,
    mended=mini.agreeing,
    trials=histories("agreeing", vocabulary=(0, 1, 31), page_sizes=(2,), beginnings=((1, 0), (0, 31))),
    convicted_by="law 2",
    hints=(
        "What is the key of [1, 0], and what is that of [0, 31]?",
        "However good a key is, equal keys are a reason to look, and no proof.",
        "Compare the tokens themselves, one after the other, and stop at the first that differs.",
    ),
)
