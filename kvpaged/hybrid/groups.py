"""Kinds of layers, what each of them needs of the past, and the groups in which layers share a page table.

All of this room follows from one question, `needed`: which pages does the next token read? A request gives back the
pages before them; and a cached beginning is a hit where they are cached, in every group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kvpaged.checks import positive_int
from kvpaged.page_table import pages_for


@dataclass(frozen=True)
class Kind:
    """What all kinds have in common. num_bytes: what one layer stores for one token, or for all of them in a state."""

    num_bytes: int

    def first_read(self, num_computed: int) -> int:
        """The first of the computed tokens that the next token reads."""
        raise NotImplementedError

    def needed(self, num_computed: int, page_size: int) -> range:
        """The logical pages of computed tokens that the next token reads."""
        return range(self.first_read(num_computed) // page_size, pages_for(num_computed, page_size))


class FullAttention(Kind):
    """Reads all tokens. MLA does, from one latent row a token in place of K and V (DeepSeek-AI 2024, section 2.1)."""

    def first_read(self, num_computed: int) -> int:
        return 0


@dataclass(frozen=True)
class SlidingWindow(Kind):
    """Reads itself and the `window` - 1 tokens before it (Beltagy et al. 2020; Jiang et al. 2023, section 2)."""

    window: int

    def __post_init__(self) -> None:
        positive_int("window", self.window)

    def first_read(self, num_computed: int) -> int:
        return max(0, num_computed - self.window + 1)


class Recurrent(Kind):
    """Reads the state that the token before it left, and leaves its own (Yang et al. 2024).

    Logical page i holds the state after the last computed token of page i: each token of that page rewrites it.
    """

    def first_read(self, num_computed: int) -> int:
        return max(0, num_computed - 1)


class Group(NamedTuple):
    """Layers of one kind: a page of theirs holds the same tokens for each of them, one layer after another."""

    kind: Kind
    layers: tuple[int, ...]


def group_layers(kinds: Sequence[Kind]) -> list[Group]:
    """Put layers of equal kind together, as many to a group as the rarest kind has or fewer: so pages have one size."""
    layers: dict[Kind, list[int]] = {}
    for layer, kind in enumerate(kinds):
        layers.setdefault(kind, []).append(layer)
    size = min(map(len, layers.values()))
    return [
        Group(kind, tuple(members[start : start + size]))
        for kind, members in layers.items()
        for start in range(0, len(members), size)
    ]


def page_size_for(kinds: Sequence[Kind], multiple_of: int = 16) -> int:
    """The smallest page size, in tokens, at which a page of any attention has room for a recurrent state."""
    tokens = min(kind.num_bytes for kind in kinds if not isinstance(kind, Recurrent))
    state = max((kind.num_bytes for kind in kinds if isinstance(kind, Recurrent)), default=1)
    return multiple_of * pages_for(state, multiple_of * tokens)
