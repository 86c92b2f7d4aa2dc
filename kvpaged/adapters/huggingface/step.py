"""One forward pass over a batch of texts: which sequence each row is, where its K and V go, and what it attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kvpaged.adapters.huggingface.attention import packed
from kvpaged.attention import contiguous_attention, default_backend, paged_attention, paged_attention_decode
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.sequence import Sequence as PagedSequence

# So many new tokens are attended to as if each were a sequence of its own that ends with it, as in the engine.
SHORT = 8


class Row(NamedTuple):
    """One row of the rectangle that generate sees: its text, and how many columns of padding stand before it."""

    sequence: PagedSequence
    padding: int


class Step:
    """The new columns of a batch, from the moment they have slots until their K and V are there.

    rows: as they will be after the pass. num_columns, num_tokens: the new columns, and the tokens in them. num_forks:
    rows that part. gathered_pages: pages of one layer that were copied into a contiguous tensor so far.
    """

    def __init__(
        self,
        storage: PageStorage,
        rows: Sequence[Row],
        columns: int,
        tokens: Sequence[Sequence[int]],
        max_tokens: int,
        in_place: bool,
    ) -> None:
        """Give the new tokens slots.

        rows: as they stand, with K and V for `columns` columns. tokens: [rows][new columns]. max_tokens: of a row.
        in_place: whether attention will read the pages itself, by `attend`, or wants them gathered. Raises
        OutOfPages, or ValueError for tokens that a row cannot have; nothing is then changed.
        """
        self.storage = storage
        self.in_place = in_place
        self.gathered_pages = 0
        self.num_columns = len(tokens[0])
        self._columns = columns
        # Of each row, the new tokens: none yet where all new columns are padding.
        self._starts = [max(0, columns - row.padding) for row in rows]
        self._stops = [max(0, columns - row.padding + self.num_columns) for row in rows]
        if max(self._stops) > max_tokens:
            raise ValueError(
                f"a row would have {max(self._stops)} tokens, and attention of this model is the same on pages up to "
                f"{max_tokens} only (its context, or its sliding window): generate fewer"
            )
        self.num_tokens = sum(self._stops) - sum(self._starts)
        self.reserve(rows, tokens)
        self._plan()

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store K and V of the new tokens, [rows, kv_heads, new columns, head_dim], those of padding left out."""
        keys, values = packed(keys), packed(values)
        if self._written is not None:
            keys, values = keys[self._written], values[self._written]
        self.storage.write(layer, self._slots, keys, values)

    def gather(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of all columns, [rows, kv_heads, columns, head_dim]; keys and values are those of the new ones."""
        if not self._columns:
            return keys, values
        shape = (len(self.rows), keys.shape[1], self._columns + self.num_columns, keys.shape[3])
        all_keys, all_values = keys.new_zeros(shape), values.new_zeros(shape)  # padding: the mask hides the zeros
        for row, (_, padding) in enumerate(self.rows):
            table = self._table(row)
            self.gathered_pages += len(table.page_ids)
            row_keys, row_values = self.storage.read(layer, table)
            all_keys[row, :, padding:] = row_keys.transpose(0, 1)
            all_values[row, :, padding:] = row_values.transpose(0, 1)
        return all_keys, all_values

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of the new tokens on pages, all packed: query [rows * new columns, heads, head_dim] -> the same."""
        if self._page_tables is not None:
            if default_backend(self.storage.head_dim) == "gather":
                self.gathered_pages += self._page_tables.numel()
            return paged_attention_decode(query, self.storage, self._page_tables, self._seq_lens, layer)
        output = torch.zeros_like(query)  # padding attends to nothing
        for row, leader in enumerate(self._leaders):
            end, count = (row + 1) * self.num_columns, self._stops[row] - self._starts[row]
            begin = end - count
            if leader != row:
                ahead = (row - leader) * self.num_columns
                output[begin:end] = output[begin - ahead : end - ahead]
            elif not count:
                continue
            elif self._starts[row] == 0:  # the whole text is at hand
                output[begin:end] = contiguous_attention(query[begin:end], keys[begin:end], values[begin:end])
            else:
                table = self._table(row)
                self.gathered_pages += len(table.page_ids)
                output[begin:end] = paged_attention(query[begin:end], self.storage, table, layer)
        return output

    def commit(self) -> None:
        """K and V are there."""
        for row, leader in enumerate(self._leaders):
            if row == leader:
                self.rows[row].sequence.mark_computed(self._stops[row])

    def undo(self) -> None:
        """The pass failed: take back slots and forks."""
        for fork in self._forks:
            fork.release()
        for sequence, length in self._lengths.items():
            sequence.truncate(length)

    def reserve(self, rows: Sequence[Row], tokens: Sequence[Sequence[int]]) -> None:
        """Rows of one sequence stay one while they get the same tokens; where they part, all but one go on as forks."""
        appended: list[tuple[PagedSequence, tuple[int, ...]]] = []
        for row, start, stop, new in zip(rows, self._starts, self._stops, tokens, strict=True):
            real = tuple(new[len(new) - (stop - start) :])
            reserved = tuple(row.sequence.tokens[start:stop])
            if real[: len(reserved)] != reserved:
                raise ValueError("input_ids are not those that this cache was begun with: begin another cache")
            appended.append((row.sequence, real[len(reserved) :]))
        heirs: dict[tuple[PagedSequence, tuple[int, ...]], PagedSequence] = {}
        self._forks: list[PagedSequence] = []
        self._lengths: dict[PagedSequence, int] = {}
        try:
            for key in dict.fromkeys(appended):
                sequence = key[0]
                if sequence not in self._lengths:
                    self._lengths[sequence] = len(sequence)
                    heirs[key] = sequence
                elif sequence.num_computed < len(sequence):
                    raise ValueError("rows that begin with one prompt can part only when it is computed")
                else:
                    heirs[key] = sequence.fork()
                    self._forks.append(heirs[key])
            for (_, new_tokens), heir in heirs.items():
                for token in new_tokens:
                    heir.append(token)
        except BaseException:
            self.undo()
            raise
        self.rows = [Row(heirs[key], row.padding) for key, row in zip(appended, rows, strict=True)]
        first: dict[PagedSequence, int] = {}
        self.num_forks = len(self._forks)
        self._leaders = [first.setdefault(row.sequence, index) for index, row in enumerate(self.rows)]

    def _plan(self) -> None:
        """Where the new tokens are written, and the tables through which short steps read."""
        slots: list[int] = []
        written: list[int] = []
        for row, leader in enumerate(self._leaders):
            if row == leader:  # one of the rows that are the same writes
                sequence, stop = self.rows[row].sequence, self._stops[row]
                first = min(stop, max(self._starts[row], sequence.num_computed))  # what is there is not written again
                slots += sequence.slot_mapping(first, stop)
                end = (row + 1) * self.num_columns
                written += range(end - (stop - first), end)
        self._slots = slots
        everything = len(written) == len(self.rows) * self.num_columns
        self._written = None if everything else torch.tensor(written, dtype=torch.int64)
        self._page_tables: Tensor | None = None
        if self.num_columns <= SHORT and self.num_tokens == len(self.rows) * self.num_columns:
            tables = [row.sequence.table.page_ids for row in self.rows]
            array = np.zeros((len(tables), max(map(len, tables))), dtype=np.int32)
            for index, page_ids in enumerate(tables):
                array[index, : len(page_ids)] = page_ids
            lengths = [start + each for start in self._starts for each in range(1, self.num_columns + 1)]
            self._page_tables = torch.from_numpy(array.repeat(self.num_columns, axis=0))
            self._seq_lens = torch.tensor(lengths, dtype=torch.int32)

    def _table(self, row: int) -> PageTable:
        """The table of a row, up to its last new token."""
        stop, size = self._stops[row], self.storage.page_size
        return PageTable(size, self.rows[row].sequence.table.page_ids[: pages_for(stop, size)], stop)
