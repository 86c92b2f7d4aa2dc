"""A trace: the prompts that a server got, in the order in which they came, as far as their beginnings can be compared.

Some traces hold tokens. Others, like those of Mooncake (Qin et al. 2025, section 4), hold one number for each block of
tokens, so that nobody can read what was asked. Both are runs of *units* here: a unit is a token, or a block.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from kvpaged.tokens import TOKEN_BYTES, unpack


class TraceRequest(NamedTuple):
    """One prompt. `units` are packed, as `kvpaged.tokens` packs tokens."""

    name: str  # as its readers know it: "line 12", or that and an id
    units: bytes
    num_tokens: int
    cache_salt: Hashable = None

    @property
    def num_units(self) -> int:
        """Tokens of a trace of tokens, else blocks."""
        return len(self.units) // TOKEN_BYTES


@dataclass(frozen=True)
class Trace:
    """Requests of one kind, and how many tokens their units stand for."""

    name: str
    requests: list[TraceRequest]
    block_size: int | None  # tokens in a unit: 1 for a trace of tokens; None where each unit is an equal share
    decode: Callable[[list[int]], str] | None = None  # what some tokens say, where a tokenizer was at hand

    @property
    def in_tokens(self) -> bool:
        """Whether its units are tokens."""
        return self.block_size == 1

    @property
    def num_tokens(self) -> int:
        """Prompt tokens in all."""
        return sum(request.num_tokens for request in self.requests)

    def tokens_in(self, request: TraceRequest, num_units: int) -> int:
        """Tokens in the first units of a request: its last block may be partly filled."""
        if self.block_size is None:
            return request.num_tokens * num_units // max(1, request.num_units)
        return min(num_units * self.block_size, request.num_tokens)

    def words(self, request: TraceRequest, start: int, stop: int) -> str:
        """What units of a request say: text if it can be had, else their numbers."""
        units = unpack(request.units[start * TOKEN_BYTES : stop * TOKEN_BYTES])
        return self.decode(units) if self.decode else " ".join(map(str, units))
