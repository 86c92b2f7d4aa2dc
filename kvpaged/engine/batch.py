"""The packed batch: the tokens of one step, one branch after another, and where their K and V go."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvpaged.attention import paged_attention, paged_attention_decode
from kvpaged.engine.request import Branch
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for

# Chunks of at most so many tokens are attended to as if each token were a sequence of its own, which ends with it. So a
# guess is verified by the same arithmetic that decodes without guessing.
SHORT = 8


class Chunk(NamedTuple):
    """Tokens start to stop - 1 of a branch, to be computed in this step. The last `num_drafts` of them are guesses."""

    branch: Branch
    start: int
    stop: int
    num_drafts: int = 0

    @property
    def is_short(self) -> bool:
        return self.stop - self.start <= SHORT


@dataclass
class Batch:
    """One step's input to the model, and the `attend` that its layers call.

    chunks: short ones first. tokens, positions: int64 [n]. logits_at: the rows of the tokens whose next token is
    wanted. mapped_pages, filled_slots: pages in the chunks' tables, and the tokens in them.
    """

    chunks: list[Chunk]
    tokens: Tensor
    positions: Tensor
    logits_at: Tensor
    mapped_pages: int
    filled_slots: int
    _storage: PageStorage
    _slots: Tensor
    _page_tables: Tensor  # int32 [tokens in short chunks, pages of the longest]
    _seq_lens: Tensor
    _long: list[tuple[int, int, PageTable]]

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store K and V of all tokens; then let each attend to the tokens of its own sequence up to itself."""
        self._storage.write(layer, self._slots, keys, values)
        num_short = len(self._seq_lens)
        if not self._long:
            return paged_attention_decode(query, self._storage, self._page_tables, self._seq_lens, layer)
        output = torch.empty_like(query)
        if num_short:
            output[:num_short] = paged_attention_decode(
                query[:num_short], self._storage, self._page_tables, self._seq_lens, layer
            )
        for start, stop, table in self._long:
            output[start:stop] = paged_attention(query[start:stop], self._storage, table, layer)
        return output


def pack(chunks: Sequence[Chunk], storage: PageStorage) -> Batch:
    """Lay the chunks out one after another. Every chunk's branch has a sequence that maps it."""
    page_size = storage.page_size
    in_order = [chunk for chunk in chunks if chunk.is_short]
    num_short = len(in_order)
    in_order += [chunk for chunk in chunks if not chunk.is_short]
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logits_at: list[int] = []
    tables: list[PageTable] = []
    for branch, start, stop, num_drafts in in_order:
        sequence = branch.sequence
        assert sequence is not None
        tables.append(sequence.table)
        tokens += sequence.tokens[start:stop]
        positions += range(start, stop)
        slots += sequence.table.slot_mapping(start, stop)
        if stop == sequence.table.num_tokens:
            logits_at += range(len(tokens) - 1 - num_drafts, len(tokens))
    page_tables = _rows(tables[:num_short])
    counts = [chunk.stop - chunk.start for chunk in in_order]
    at = np.array(positions, dtype=np.int64)
    row = num_tokens = sum(counts[:num_short])
    long = []
    for chunk, table in zip(in_order[num_short:], tables[num_short:], strict=True):
        seen = PageTable(page_size, table.page_ids[: pages_for(chunk.stop, page_size)], chunk.stop)
        long.append((row, row + chunk.stop - chunk.start, seen))
        row = long[-1][1]
    return Batch(
        chunks=in_order,
        tokens=torch.from_numpy(np.array(tokens, dtype=np.int64)),
        positions=torch.from_numpy(at),
        logits_at=torch.from_numpy(np.array(logits_at, dtype=np.int64)),
        mapped_pages=sum(len(table.page_ids) for table in tables),
        filled_slots=sum(chunk.stop for chunk in in_order),
        _storage=storage,
        _slots=torch.from_numpy(np.array(slots, dtype=np.int64)),
        _page_tables=torch.from_numpy(page_tables.repeat(counts[:num_short], axis=0)),
        _seq_lens=torch.from_numpy((at[:num_tokens] + 1).astype(np.int32)),
        _long=long,
    )


def _rows(tables: Sequence[PageTable]) -> NDArray[np.int32]:
    """The tables' page ids, a row for each: int32 [tables, pages of the longest]."""
    width = max((len(table.page_ids) for table in tables), default=0)
    rows = np.zeros((len(tables), width), dtype=np.int32)
    for row, table in enumerate(tables):  # struct converts a list in half the time that numpy takes
        struct.pack_into(f"{len(table.page_ids)}i", rows.data, row * width * rows.itemsize, *table.page_ids)
    return rows
