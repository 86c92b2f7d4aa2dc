"""A step for each token: packed when it is written, for ever."""

from typing import Any

from torch import Tensor

from kvpaged.quantised.codes import quantise
from kvpaged.quantised.storage import QuantisedStorage


class TokenStorage(QuantisedStorage):
    """Every head of every token has a step of its own. Nothing waits, and nothing is written twice."""

    def __init__(self, *shape: Any, bits: int = 8) -> None:
        """Takes what `PageStorage` takes, and how many bits a number has."""
        super().__init__(*shape, bits=bits, keys="token", values="token")

    def _store(self, layer: int, pages: Tensor, offsets: Tensor, rows: tuple[Tensor, Tensor]) -> None:
        for codes, steps, numbers in zip(self.codes, self.steps, rows, strict=True):
            codes[layer][pages, :, offsets], steps[layer][pages, :, offsets] = quantise(numbers, self.bits, dim=-1)
