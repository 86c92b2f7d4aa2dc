"""A scale for each token: packed when it is written, for ever."""

from typing import Any

from torch import Tensor

from kvpaged.quantised.codes import quantise
from kvpaged.quantised.storage import QuantisedStorage, Rows


class TokenStorage(QuantisedStorage):
    """Every head of every token has a scale of its own. Nothing waits, and nothing is written twice."""

    def __init__(self, *shape: Any, bits: int = 8, **named: Any) -> None:
        """Takes what `PageStorage` takes, and how many bits a number has."""
        super().__init__(*shape, bits=bits, keys="token", values="token", **named)

    def store(self, layer: int, pages: Tensor, offsets: Tensor, rows: Rows) -> None:
        for codes, scales, numbers in zip(self.codes, self.scales, rows, strict=True):
            packed = quantise(numbers, self.bits, dim=-1)
            codes[layer][pages, :, offsets], scales[layer][pages, :, offsets] = packed
