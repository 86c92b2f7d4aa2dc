"""Attention on pages of fewer bits: in place by the kernel, or on what is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kvpaged.attention import PackedAttention, contiguous_attention
from kvpaged.page_table import PageTable

if TYPE_CHECKING:
    from kvpaged.quantised.storage import QuantisedStorage


class QuantisedAttention(PackedAttention):
    """`PackedAttention` on a `QuantisedStorage`: a query reads the pages before its own from their codes.

    The page that it stands in, it reads as the storage has it: exact, if the storage keeps that. So what a token reads
    depends on its position, and not on how many tokens are computed at once.
    """

    _storage: QuantisedStorage

    def _begin(self, query_lens: Tensor) -> None:
        passed = (self._seq_lens - query_lens) // self._storage.page_size
        finished = torch.arange(self._page_tables.shape[1]) < passed[:, None]
        self._storage.finish(self._page_tables[finished])

    def _in_place(self, layer: int, query: Tensor) -> Tensor:
        from kvpaged.kernel import attention_on_codes

        return attention_on_codes(self.plan, query, *self._storage.coded(layer), self._storage.tail_of)

    def _gathered(self, layer: int, query: Tensor, table: PageTable) -> Tensor:
        size, outputs = table.page_size, []
        position, stop = len(table) - len(query), len(table)
        while position < stop:  # the queries that stand in one page
            end = min(position // size * size + size, stop)
            seen = PageTable(size, table.page_ids[: (end - 1) // size + 1], end)
            part, query = query[: end - position], query[end - position :]
            outputs.append(contiguous_attention(part, *self._storage.read(layer, seen)))
            position = end
        return torch.cat(outputs)
