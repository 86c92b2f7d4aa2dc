"""Which tokens of a prompt an earlier prompt had somewhere, though not at its beginning."""

from typing import Protocol

from kvpaged.lab.trace import Trace, TraceRequest
from kvpaged.tokens import TOKEN_BYTES, unpack


class Seen(Protocol):
    """Remembers what requests held."""

    def count(self, request: TraceRequest, start: int) -> int:
        """Count the tokens behind the first `start` units that were seen in requests before."""

    def add(self, request: TraceRequest) -> None:
        """Remember a request."""


class SeenBlocks:
    """For traces of blocks: a block with a number that came before was seen before."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._blocks: set[int] = set()

    def count(self, request: TraceRequest, start: int) -> int:
        tokens_in, blocks = self.trace.tokens_in, unpack(request.units[start * TOKEN_BYTES :])
        return sum(
            tokens_in(request, index + 1) - tokens_in(request, index)
            for index, block in enumerate(blocks, start)
            if block in self._blocks
        )

    def add(self, request: TraceRequest) -> None:
        self._blocks.update(unpack(request.units))


class SeenRuns:
    """For traces of tokens: a single token says nothing, but a long run of them that came before was copied.

    Earlier prompts are cut into chunks of `chunk` tokens, and looked for at any place (as rsync does with the blocks
    of a file). A chunk that is found is extended to both sides as far as the two prompts agree. So runs of at least
    2 * chunk - 1 tokens are found whole, and shorter ones by luck.
    """

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        self._place: dict[bytes, tuple[bytes, int]] = {}  # of each chunk: in which prompt, from which token on

    def count(self, request: TraceRequest, start: int) -> int:
        units, width = request.units, self.chunk * TOKEN_BYTES
        counted, done, at = 0, start * TOKEN_BYTES, start * TOKEN_BYTES
        while at + width <= len(units):
            place = self._place.get(units[at : at + width])
            if place is None:
                at += TOKEN_BYTES
                continue
            other, there = place
            begin = at
            while begin > done and there and _token(units, begin - TOKEN_BYTES) == _token(other, there - TOKEN_BYTES):
                begin, there = begin - TOKEN_BYTES, there - TOKEN_BYTES
            at, there = at + width, place[1] + width
            while at < len(units) and there < len(other) and _token(units, at) == _token(other, there):
                at, there = at + TOKEN_BYTES, there + TOKEN_BYTES
            counted += (at - begin) // TOKEN_BYTES
            done = at
        return counted

    def add(self, request: TraceRequest) -> None:
        units, width = request.units, self.chunk * TOKEN_BYTES
        for start in range(0, len(units) - width + 1, width):
            self._place.setdefault(units[start : start + width], (units, start))


def _token(units: bytes, at: int) -> bytes:
    return units[at : at + TOKEN_BYTES]
