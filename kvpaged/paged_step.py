"""One forward pass over tokens of several sequences: where their K and V go, and what each of them attends to."""

from __future__ import annotations

import struct
from collections.abc import Sequence as Listed
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvpaged.attention import attention_on
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.sequence import Sequence

if TYPE_CHECKING:
    from kvpaged.kernel.one_pass import Pages


class Span(NamedTuple):
    """Tokens start to stop - 1 of a sequence, whose slots are reserved: 0 <= start < stop <= len(sequence)."""

    sequence: Sequence
    start: int
    stop: int


class PagedStep:
    """What every layer of a pass needs to know of the pages, found out once.

    The tokens are packed: those of one span after those of another. gathered_pages: pages of one layer that were
    copied into a contiguous tensor so far; the kernel copies none.

    Raises ValueError for a span that has no tokens, or some without a slot, for a sequence that is released, and for
    pages of another size than the storage's.
    """

    def __init__(self, storage: PageStorage, spans: Listed[Span]) -> None:
        """K and V that a sequence has computed already are not written again."""
        self.storage = storage
        self.gathered_pages = 0
        slots: list[int] = []
        known: set[int] = set()  # rows whose K and V are there already
        row = 0
        for sequence, start, stop in spans:
            if not 0 <= start < stop <= len(sequence):
                raise ValueError(f"a span has tokens {start} to {stop} of {sequence}: give some that have slots")
            if sequence.table.page_size != storage.page_size:
                raise ValueError(
                    f"{sequence} has pages of {sequence.table.page_size}, the storage of {storage.page_size}"
                )
            first = min(stop, max(start, sequence.num_computed))
            slots += sequence.table.slot_mapping(first, stop)
            known.update(range(row, row + first - start))
            row += stop - start
        self._slots = as_int64(slots)
        self._written = as_int64([each for each in range(row) if each not in known]) if known else None
        self._num_rows = row
        tables = torch.from_numpy(_rows([span.sequence.table for span in spans]))
        seq_lens = _as_int32([span.stop for span in spans])
        query_lens = _as_int32([span.stop - span.start for span in spans])
        self._attention = attention_on(storage)(storage, tables, seq_lens, query_lens)
        self._num_pages = sum(pages_for(span.stop, storage.page_size) for span in spans)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store K and V of the tokens: each [n, num_kv_heads, head_dim].

        Raises ValueError or TypeError for what does not fit, IndexError for the layer; nothing is stored then.
        """
        if self._written is not None:
            if not len(keys) == len(values) == self._num_rows:
                raise ValueError(f"keys and values have {len(keys)} and {len(values)} rows, the spans {self._num_rows}")
            keys, values = keys[self._written], values[self._written]
        self.storage.write(layer, self._slots, keys, values)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store K and V of the tokens; then let each attend to those of its own sequence, up to itself.

        query: [n, heads, head_dim]. Returns the same shape. Raises as `write` does; where a query does not fit, K
        and V are stored already.
        """
        self.write(layer, keys, values)
        if self._attention.backend == "gather":
            self.gathered_pages += self._num_pages
        return self._attention(layer, query)

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same as `attend`. A model that is handed the step itself may do all layers at once, see `unwatched`."""
        return self.attend(layer, query, keys, values)

    def unwatched(self) -> Pages | None:
        """All that `attend` uses, for a kernel that does its work in all layers; None if somebody would miss that."""
        pages = self.storage.unwatched()
        if pages is None or self._written is not None or self._attention.backend != "kernel":
            return None
        from kvpaged.kernel.one_pass import Pages

        return Pages(self._attention.plan, self._slots, *pages)


def as_int64(numbers: list[int]) -> Tensor:
    """int64 [n]. By way of numpy, in a seventh of the time that `torch.tensor` takes."""
    return torch.from_numpy(np.array(numbers, dtype=np.int64))


def _as_int32(numbers: list[int]) -> Tensor:
    return torch.from_numpy(np.array(numbers, dtype=np.int32))


def _rows(tables: Listed[PageTable]) -> NDArray[np.int32]:
    """The tables' page ids, a row for each: int32 [tables, pages of the longest]."""
    width = max((len(table.page_ids) for table in tables), default=0)
    rows = np.zeros((len(tables), width), dtype=np.int32)
    for row, table in enumerate(tables):  # struct converts a list in half the time that numpy takes
        struct.pack_into(f"{len(table.page_ids)}i", rows.data, row * width * rows.itemsize, *table.page_ids)
    return rows
