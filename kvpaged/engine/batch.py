"""The packed batch: the tokens of one step, one branch after another, and where their K and V go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
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


class PageTables:
    """The page ids of all running branches: one int32 array, a row for each, written where a table has changed.

    A table changes at its end alone: it grows, its last page is replaced by a private copy, or it is truncated, and
    whoever truncates it says so (`forget_after`).
    """

    def __init__(self, max_rows: int, max_pages: int) -> None:
        self.array = np.zeros((max_rows, max_pages), dtype=np.int32)
        self._free = list(range(max_rows))[::-1]

    def update(self, branch: Branch, page_ids: list[int]) -> int:
        """Bring a branch's row up to date; return its index."""
        row = branch.row
        if row is None:
            row = branch.row = self._free.pop()
            branch.num_pages_written = 0
        if branch.num_pages_written != len(page_ids) or branch.last_page_written != page_ids[-1]:
            first = max(0, min(branch.num_pages_written, len(page_ids)) - 1)
            self.array[row, first : len(page_ids)] = page_ids[first:]
            branch.num_pages_written, branch.last_page_written = len(page_ids), page_ids[-1]
        return row

    def forget_after(self, branch: Branch, num_pages: int) -> None:
        """Note that a branch has no more than `num_pages` pages now; what comes after them will be others."""
        branch.num_pages_written = min(branch.num_pages_written, num_pages)

    def free(self, branch: Branch) -> None:
        """Give a branch's row back, if it has one."""
        if branch.row is not None:
            self._free.append(branch.row)
            branch.row = None


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


def pack(chunks: Sequence[Chunk], page_tables: PageTables, storage: PageStorage) -> Batch:
    """Lay the chunks out one after another. Every chunk's branch has a sequence that maps it."""
    page_size = storage.page_size
    in_order = [chunk for chunk in chunks if chunk.is_short]
    num_short = len(in_order)
    in_order += [chunk for chunk in chunks if not chunk.is_short]
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    logits_at: list[int] = []
    long: list[tuple[int, int, PageTable]] = []
    width = mapped_pages = filled_slots = 0
    for index, (branch, start, stop, num_drafts) in enumerate(in_order):
        sequence = branch.sequence
        assert sequence is not None
        table = sequence.table
        row = page_tables.update(branch, table.page_ids)
        mapped_pages += len(table.page_ids)
        filled_slots += stop
        if stop - start == 1:  # decode: the case that must cost little
            tokens.append(sequence.tokens[start])
            positions.append(start)
            rows.append(row)
        else:
            tokens += sequence.tokens[start:stop]
            positions += range(start, stop)
            rows += [row] * (stop - start)
        if stop == table.num_tokens:
            logits_at += range(len(tokens) - 1 - num_drafts, len(tokens))
        if index < num_short:
            width = max(width, len(table.page_ids))
        else:
            seen = PageTable(page_size, table.page_ids[: pages_for(stop, page_size)], stop)
            long.append((len(tokens) - stop + start, len(tokens), seen))
    at = np.array(positions, dtype=np.int64)
    row_of = np.array(rows, dtype=np.int64)
    pages, slots = np.divmod(at, page_size)
    slots += page_tables.array[row_of, pages] * np.int64(page_size)
    short = len(tokens) if not long else long[0][0]
    return Batch(
        chunks=in_order,
        tokens=torch.from_numpy(np.array(tokens, dtype=np.int64)),
        positions=torch.from_numpy(at),
        logits_at=torch.from_numpy(np.array(logits_at, dtype=np.int64)),
        mapped_pages=mapped_pages,
        filled_slots=filled_slots,
        _storage=storage,
        _slots=torch.from_numpy(slots),
        _page_tables=torch.from_numpy(page_tables.array[:, :width].take(row_of[:short], axis=0)),
        _seq_lens=torch.from_numpy((at[:short] + 1).astype(np.int32)),
        _long=long,
    )
