"""Token ids: what counts as one, and their packed form, which compares and hashes at the speed of bytes."""

from array import array
from collections.abc import Iterable, Sequence

TOKEN_BITS = 32
TOKEN_BYTES = TOKEN_BITS // 8
_UINT32 = "I"


def as_token(token: object) -> int:
    """Return `token` as a plain int.

    Raises TypeError for what is not an integer, ValueError for an integer outside 0 <= token < 2**32.
    """
    try:
        value = token.__index__()  # type: ignore[attr-defined]  # numpy and torch scalars are welcome
    except (AttributeError, TypeError, ValueError):
        raise TypeError(f"token {token!r} is not an int; tokenize text before you hand it in") from None
    if value >> TOKEN_BITS:
        raise ValueError(f"token {value} is outside 0 <= token < 2**32")
    return int(value)


def as_tokens(tokens: Iterable[int]) -> tuple[list[int], bytes]:
    """Return `tokens` as a list of plain ints, and packed (see `pack`).

    An integer of another kind (numpy's, torch's) may stay in the list where plain ones stand on both sides of it.
    Raises TypeError or ValueError naming the first token that is none.
    """
    # An array or a tensor turns into plain ints by itself, and faster than item by item.
    listed = tokens.tolist() if hasattr(tokens, "tolist") else _listed(tokens)
    try:
        packed = array(_UINT32, listed)
    except (TypeError, OverflowError):
        for index, token in enumerate(_listed(listed)):
            try:
                as_token(token)
            except (TypeError, ValueError) as error:
                raise type(error)(f"at index {index}: {error}") from None
        raise
    # Other kinds of integers come out of an array, all alike, or at an end, where somebody added a sampled token. It
    # would cost as much as the rest to look at the type of each.
    plain = not listed or listed[0].__class__ is int is listed[-1].__class__
    return listed if plain else packed.tolist(), packed.tobytes()


def pack(tokens: Sequence[int]) -> bytes:
    """Pack valid tokens into 4 bytes each: equal bytes mean equal tokens, a common prefix of bytes one of tokens."""
    return array(_UINT32, tokens).tobytes()


def unpack(packed: bytes) -> list[int]:
    """Return the tokens that were packed."""
    return array(_UINT32, packed).tolist()


def common_prefix(one: bytes, other: bytes) -> int:
    """Count the tokens that two packed runs share from their start."""
    shortest = min(len(one), len(other))
    for start in range(0, shortest, TOKEN_BYTES):
        if one[start : start + TOKEN_BYTES] != other[start : start + TOKEN_BYTES]:
            return start // TOKEN_BYTES
    return shortest // TOKEN_BYTES


def _listed(tokens: Iterable[int]) -> list[int]:
    try:
        return list(tokens)
    except TypeError:
        raise TypeError(f"tokens are {tokens!r}; hand in a list of ints") from None
