"""One forward pass over a batch of texts: which sequence each row is, where its K and V go, and what it attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kvpaged.adapters.huggingface.attention import packed
from kvpaged.attention import without_gradient
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.paged_step import PagedStep, Span, as_int64
from kvpaged.sequence import Sequence as PagedSequence


class Row(NamedTuple):
    """One row of the rectangle that generate sees: its text, and how many columns of padding stand before it."""

    sequence: PagedSequence
    padding: int


class Step:
    """The new columns of a batch, from the moment they have slots until their K and V are there.

    rows: as they will be after the pass. num_columns, num_tokens: the new columns, and the tokens in them. num_forks:
    rows that part.
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
        self._gathered_here = 0
        self.num_columns = len(tokens[0])
        self._columns = columns
        # Of each row, the new tokens: none yet where all new columns are padding.
        ends = (columns, columns + self.num_columns)
        self._new = [tuple(max(0, end - row.padding) for end in ends) for row in rows]
        longest = max(stop for _, stop in self._new)
        if longest > max_tokens:
            raise ValueError(
                f"a row would have {longest} tokens, and attention of this model is the same on pages up to "
                f"{max_tokens} only (its context, or its sliding window): generate fewer"
            )
        self.num_tokens = sum(stop - start for start, stop in self._new)
        self.reserve(rows, tokens)
        self._plan()

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store K and V of the new tokens, [rows, kv_heads, new columns, head_dim], those of padding left out."""
        self._pages.write(layer, self._real(packed(keys)), self._real(packed(values)))

    def gather(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of all columns, [rows, kv_heads, columns, head_dim]; keys and values are those of the new ones."""
        if not self._columns:
            return keys, values
        shape = (len(self.rows), keys.shape[1], self._columns + self.num_columns, keys.shape[3])
        all_keys, all_values = keys.new_zeros(shape), values.new_zeros(shape)  # padding: the mask hides the zeros
        for row, (_, padding) in enumerate(self.rows):
            table = self._table(row)
            self._gathered_here += len(table.page_ids)
            row_keys, row_values = self.storage.read(layer, table)
            all_keys[row, :, padding:] = row_keys.transpose(0, 1)
            all_values[row, :, padding:] = row_values.transpose(0, 1)
        return without_gradient(all_keys, keys), without_gradient(all_values, values)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of the new tokens on pages, all packed: query [rows * new columns, heads, head_dim] -> the same."""
        output = self._pages.attend(layer, self._real(query), self._real(keys), self._real(values))
        if self._result_of is None:
            return output
        return torch.cat([output, output.new_zeros(1, *output.shape[1:])])[self._result_of]

    @property
    def gathered_pages(self) -> int:
        """Pages of one layer that were copied into a contiguous tensor so far."""
        return self._gathered_here + self._pages.gathered_pages

    def commit(self) -> None:
        """K and V are there."""
        for row, leader in enumerate(self._leaders):
            if row == leader:
                self.rows[row].sequence.mark_computed(self._new[row][1])

    def undo(self) -> None:
        """The pass failed: take back slots and forks."""
        for fork in self._forks:
            fork.release()
        for sequence, length in self._lengths.items():
            sequence.truncate(length)

    def reserve(self, rows: Sequence[Row], tokens: Sequence[Sequence[int]]) -> None:
        """Rows of one sequence stay one while they get the same tokens; where they part, all but one go on as forks."""
        appended: list[tuple[PagedSequence, tuple[int, ...]]] = []
        for row, (start, stop), new in zip(rows, self._new, tokens, strict=True):
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
        """The spans that are computed: of rows that are the same, one. And which of them each packed token is in."""
        spans: list[Span] = []
        computed: list[int] = []
        result_of: list[int] = []
        first: dict[int, int] = {}  # leader -> where its tokens begin among those computed
        padding = sum(stop - start for row, (start, stop) in enumerate(self._new) if self._leaders[row] == row)
        for row, (leader, (start, stop)) in enumerate(zip(self._leaders, self._new, strict=True)):
            end, count = (row + 1) * self.num_columns, stop - start
            if row == leader and count:
                first[row] = len(computed)
                spans.append(Span(self.rows[row].sequence, start, stop))
                computed += range(end - count, end)
            result_of += [padding] * (self.num_columns - count)
            result_of += range(first.get(leader, 0), first.get(leader, 0) + count)
        self._pages = PagedStep(self.storage, spans)
        everything = len(computed) == len(result_of)
        self._computed = None if everything else as_int64(computed)
        self._result_of = None if everything else as_int64(result_of)

    def _real(self, packed_rows: Tensor) -> Tensor:
        """Of all packed tokens, those that are computed."""
        return packed_rows if self._computed is None else packed_rows[self._computed]

    def _table(self, row: int) -> PageTable:
        """The table of a row, up to its last new token."""
        stop, size = self._new[row][1], self.storage.page_size
        return PageTable(size, self.rows[row].sequence.table.page_ids[: pages_for(stop, size)], stop)
