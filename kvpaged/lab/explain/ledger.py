"""Where the tokens of a prompt went: each is in exactly one line."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass
class Ledger:
    """Prompt tokens, by what became of them. The lines add up to the prompt."""

    new: int = 0  # in no request before
    elsewhere: int = 0  # in a request before, but behind another beginning
    other_salt: int = 0  # reusable, but for the cache salt
    last_token: int = 0  # of prompts that were there as a whole: one token must run, to have logits
    rounding: int = 0  # reusable, but not a whole page
    evicted: int = 0  # in whole pages that had been given up by then
    kept: int = 0  # found

    @property
    def total(self) -> int:
        """The prompt."""
        return sum(astuple(self))

    @property
    def seen(self) -> int:
        """Tokens that a request before had, somewhere."""
        return self.total - self.new

    @property
    def reusable(self) -> int:
        """Tokens that begin a prompt as a request before began: what a cache without limits finds, to the token."""
        return self.last_token + self.rounding + self.evicted + self.kept

    def __iadd__(self, other: Ledger) -> Ledger:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self
