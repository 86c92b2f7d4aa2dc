"""What a slot holds in the museum, in place of K and V: of which text it is the last token."""

from __future__ import annotations

from typing import Any, NamedTuple


class Text(NamedTuple):
    """What stands for K and V of a token: all that they depend on, the tokens up to it and whose they are."""

    cache_salt: Any
    tokens: tuple[int, ...]

    def __repr__(self) -> str:
        salted = f" for {self.cache_salt}" if self.cache_salt is not None else ""
        return f"what was computed for the text {[*self.tokens]}{salted}"
