"""Speculation by prompt lookup: what followed the last words when they were said before."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2  # tokens that must agree: the longest run is looked up first


class PromptLookup:
    """Proposes the next tokens of one growing context, from the context itself.

    Saxena, "Prompt Lookup Decoding" (2023). Every run of tokens is indexed once, when the context has grown past it.
    """

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}  # run -> where the context went on after its latest occurrence
        self._num_indexed = 0

    def propose(self, tokens: Sequence[int], num_tokens: int) -> list[int]:
        """Return up to `num_tokens` tokens that may come next; `tokens` is what it was at the last call, and more."""
        for stop in range(self._num_indexed, len(tokens)):
            for length in range(SHORTEST, min(LONGEST, stop) + 1):
                self._follows[tuple(tokens[stop - length : stop])] = stop
        self._num_indexed = len(tokens)
        for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
            start = self._follows.get(tuple(tokens[-length:]))
            if start is not None:
                return list(tokens[start : start + num_tokens])
        return []
