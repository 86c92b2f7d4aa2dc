"""The visual language: a name and a colour for each owner, the same in every chapter."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Owner: TypeAlias = int | str  # a sequence by its id, or a holder by its name

# Fills that are told apart without colour vision, in lightness too, and carry dark ink. Names tell apart what is left.
COLOURS = ("#56b4e9", "#f0a830", "#4cc29a", "#e491c1", "#f2e55c", "#f0845c", "#a070e8", "#d0e8a0")
NEUTRAL = "#8a8f96"  # owned, but by whom is not known


def owner_name(owner: Owner) -> str:
    """Return the letter of a sequence by its id (0 is A, 25 Z, 26 AA); an owner that has a name keeps it."""
    if isinstance(owner, str):
        return owner
    letters = chr(ord("A") + owner % 26)
    return letters if owner < 26 else owner_name(owner // 26 - 1) + letters


def owner_colour(owner: Owner) -> str:
    """Return the fill of an owner. The owners named "B" and "B2" have the colour of sequence 1."""
    if isinstance(owner, int):
        return COLOURS[owner % len(COLOURS)]
    letters = owner.rstrip("0123456789")
    if 1 <= len(letters) <= 2 and letters.isupper() and letters.isascii():
        place = 0
        for letter in letters:
            place = place * 26 + ord(letter) - ord("A") + 1
        return owner_colour(place - 1)
    return COLOURS[sum(map(ord, owner)) % len(COLOURS)]


def listed(items: Iterable[object]) -> str:
    """Join as in a sentence: A, B and C."""
    words = [str(item) for item in items]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers briefly: 0–3, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{start}" if start == stop else f"{start}–{stop}" for start, stop in runs)


def pages_named(page_ids: Sequence[int]) -> str:
    """Name pages: page 3; pages 0–2, 7."""
    return f"page{'s' * (len(page_ids) != 1)} {ranges(page_ids)}"
