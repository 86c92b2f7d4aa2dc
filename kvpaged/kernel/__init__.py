"""Attention and writes on the pages in place, compiled: the calls, and what they refuse.

The code that is compiled, and what makes it fast, is in `kvpaged.kernel.compiled`; its threads are in
`kvpaged.kernel.team`, the layers of a decoder in `kvpaged.kernel.layers`, and all of them in one call in
`kvpaged.kernel.one_pass`.
"""

# What numba compiles has no annotations.
# mypy: disallow-untyped-calls=False

import functools
from collections.abc import Callable, Sequence
from operator import mul
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvpaged.kernel.compiled import (
    QUERIES,
    attention_bfloat16,
    attention_float16,
    attention_float32,
    count_items,
    plan,
    write,
)
from kvpaged.kernel.team import announced, run

CodedPages = tuple[Tensor, Tensor, bool, Tensor]
HEAD_DIM_STEP = 16  # head_dim must be a multiple
_ATTENTION = {torch.float32: attention_float32, torch.float16: attention_float16, torch.bfloat16: attention_bfloat16}


class Plan:
    """How the attention of one forward pass is cut into work items; the same for all layers.

    page_tables: int32 [S, max_pages]; seq_lens: int32 [S], tokens of each sequence; query_lens: int32 [S], how many of
    them, the last ones, are queries. by_page: whether a query reads the page that it stands in otherwise than those
    before.

    Raises ValueError for a length that does not fit, IndexError for a page that does not exist.
    """

    def __init__(
        self,
        page_tables: Tensor,
        seq_lens: Tensor,
        query_lens: Tensor,
        num_pages: int,
        page_size: int,
        by_page: bool = False,
    ) -> None:
        self.page_tables = page_tables.contiguous()
        tables, lengths, counts = self.page_tables.numpy(), seq_lens.numpy(), query_lens.numpy()
        most = count_items(tables, lengths, counts, num_pages, page_size, by_page)
        if most < 0:
            sequence = -1 - most
            _refuse(sequence, tables[sequence].tolist(), lengths[sequence], counts[sequence], num_pages, page_size)
        self.items = np.empty((most, 4), dtype=np.int64)
        self.members = np.empty((most, QUERIES), dtype=np.int64)
        listed = counts.tolist()  # in Python, where a few numbers are added up in a tenth of numpy's time
        self.num_queries = sum(listed)
        self.num_pairs = sum(map(mul, lengths.tolist(), listed))  # of a query and a token, about
        self.first_partial = np.empty(self.num_queries + 1, dtype=np.int64)
        self.num_items = plan(tables, lengths, counts, page_size, by_page, self.items, self.members, self.first_partial)
        self.num_partials = int(self.first_partial[-1])

    def arguments(self, query: Tensor, output: Tensor, partial: Tensor, pages: Sequence[int]) -> tuple[int, ...]:
        """What a compiled attention is told behind where K and V are. pages: how many, their kv heads and slots."""
        return (
            query.data_ptr(),
            output.data_ptr(),
            partial.data_ptr(),
            self.page_tables.data_ptr(),
            self.items.ctypes.data,
            self.members.ctypes.data,
            self.first_partial.ctypes.data,
            *query.shape,
            *pages,
            *self.page_tables.shape,
            self.num_items,
            self.num_partials,
        )


def attention_on_codes(plan: Plan, query: Tensor, keys: CodedPages, values: CodedPages, tail_of: Tensor) -> Tensor:
    """The same as `attention` on pages that hold codes: to the bit what it makes of the numbers read back.

    keys, values: codes, uint8 [num_pages, num_kv_heads, page_size, bytes]; scales, float32 [num_pages, num_kv_heads,
    page_size], or [..., head_dim] where they are those of channels; whether they are; and tails, float32 [tails,
    num_kv_heads, page_size, head_dim]. tail_of: int32 [num_pages], where among the tails a page also stands, or -1: a
    query that stands in the page reads it there. The plan is made `by_page`.
    """
    codes, *_ = keys
    integers = [8 * codes.shape[3] // query.shape[2], tail_of.data_ptr()]
    for codes, scales, by_channel, tails in (keys, values):
        integers += [codes.data_ptr(), scales.data_ptr(), by_channel, tails.data_ptr()]
    coded = np.array(integers, dtype=np.int64)
    # The addresses of pages in float32 are not looked at.
    return _attend(plan, query, codes.shape[:3], attention_float32, [coded.ctypes.data] * 3)


def attention(plan: Plan, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of packed queries to pages, one layer.

    query: [n, heads, head_dim], those of one sequence after another; keys, values: contiguous pages
    [num_pages, num_kv_heads, page_size, head_dim] of the same dtype, float32, float16 or bfloat16; sums are float32.
    Returns the shape and dtype of query. A query gets the same bits whatever else the plan holds. `kvpaged.attention`
    checks shapes and dtypes.

    Raises ValueError for a head_dim that does not fit; nothing is read then.
    """
    return _attend(plan, query, keys.shape[:3], _ATTENTION[keys.dtype], [keys.data_ptr(), values.data_ptr(), 0])


def _attend(
    plan: Plan, query: Tensor, pages: Sequence[int], kernel: Callable[[Any], None], addresses: Sequence[int]
) -> Tensor:
    """pages: how many, their kv heads and slots. addresses: of K, of V, and of what tells of codes."""
    num_queries, heads, head_dim = query.shape
    if head_dim % HEAD_DIM_STEP:
        raise ValueError(
            f"head_dim is {head_dim}; the kernel needs a multiple of {HEAD_DIM_STEP}: use backend='gather'"
        )
    queries = query.float().contiguous()
    output = torch.empty_like(queries)
    if not num_queries:
        return output.to(query.dtype)
    partial = torch.empty(plan.num_partials, heads, head_dim + 2)
    arguments = *addresses[:2], *plan.arguments(queries, output, partial, pages), addresses[2]
    run(kernel, plan.num_pairs * heads * head_dim, *arguments)
    return output if query.dtype == torch.float32 else output.to(query.dtype)


def write_slots(slots: Tensor, keys: Tensor, values: Tensor, key_pages: Tensor, value_pages: Tensor) -> bool:
    """Copy K and V of n tokens of one layer into their slots.

    slots: contiguous int64 [n]; keys, values: [n, num_kv_heads, head_dim]; key_pages, value_pages: contiguous
    [num_pages, num_kv_heads, page_size, head_dim]. `PageStorage.write` checks shapes and dtypes. Returns False, and has
    written nothing, if a slot does not exist or is named twice.
    """
    _compile_write()
    keys, values = keys.contiguous(), values.contiguous()
    num_pages, num_kv_heads, page_size, head_dim = key_pages.shape
    # A call from Python pays for each argument: 0.1 microseconds for an integer, ten times that for a tensor made an
    # array. So what is called at each layer takes addresses.
    written: bool = write(
        slots.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        key_pages.data_ptr(),
        value_pages.data_ptr(),
        slots.shape[0],
        num_pages,
        num_kv_heads,
        page_size,
        head_dim * keys.itemsize,
    )
    return written


@functools.cache
def _compile_write() -> None:
    with announced():
        write(0, 0, 0, 0, 0, 0, 1, 1, 1, 1)


def _refuse(sequence: int, page_ids: list[int], seq_len: int, q_len: int, num_pages: int, page_size: int) -> None:
    room = len(page_ids) * page_size
    if not 1 <= seq_len <= room:
        raise ValueError(f"sequence {sequence} has {seq_len} tokens; a row of page_tables maps 1 to {room}")
    if not 1 <= q_len <= seq_len:
        raise ValueError(f"query has {q_len} tokens of sequence {sequence}, of {seq_len}; it must have 1 to {seq_len}")
    for position, page_id in enumerate(page_ids):
        if not 0 <= page_id < num_pages:
            raise IndexError(
                f"sequence {sequence}: entry {position} of the page table names page {page_id}; "
                f"the storage has pages 0..{num_pages - 1}"
            )
