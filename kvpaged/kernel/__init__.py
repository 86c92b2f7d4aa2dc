"""Decode attention and writes on the pages in place, compiled: the calls, what they refuse, threads, the first wait.

The code that is compiled, and what makes it fast, is in `kvpaged.kernel.compiled`.

Threads are Python threads around compiled code that holds no lock: numba's own would bring a second OpenMP runtime into
a process where torch has one, and the two fight for the cores.
"""

# What numba compiles has no annotations.
# mypy: disallow-untyped-calls=False

import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvpaged.kernel.compiled import DONE, THREADED, attend, decode, merge, plan, write

HEAD_DIM_STEP = 16  # head_dim must be a multiple
# numpy has no bfloat16 and numba no float16: their bits travel as integers of a type of their own.
_BITS = {torch.float32: torch.float32, torch.float16: torch.int16, torch.bfloat16: torch.uint16}
_EMPTY = {dtype: torch.empty(0, dtype=bits).numpy() for dtype, bits in _BITS.items()}  # tells the kernel the dtype


def decode_attention(query: Tensor, keys: Tensor, values: Tensor, page_tables: Tensor, seq_lens: Tensor) -> Tensor:
    """Attention of one token for each of B sequences behind page tables, one layer.

    query: [B, heads, head_dim]; keys, values: contiguous pages [num_pages, num_kv_heads, page_size, head_dim] of the
    same dtype, float32, float16 or bfloat16; sums are float32. page_tables: int32 [B, max_pages]; seq_lens: int32 [B].
    Returns the shape and dtype of query. `kvpaged.attention` checks shapes and dtypes; this checks what is stored in
    the tables.

    Raises ValueError for a length or a head_dim that does not fit, IndexError for a page that does not exist; nothing
    is read then.
    """
    num_sequences, heads, head_dim = query.shape
    num_pages, num_kv_heads, page_size, _ = keys.shape
    if head_dim % HEAD_DIM_STEP:
        raise ValueError(
            f"head_dim is {head_dim}; the kernel needs a multiple of {HEAD_DIM_STEP}: use backend='gather'"
        )
    _compile_decode(keys.dtype)
    queries, tables, lengths = query.float().contiguous(), page_tables.contiguous(), seq_lens.contiguous()
    output = torch.empty_like(queries)
    threads = torch.get_num_threads()
    outcome = decode(
        queries.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
        tables.data_ptr(),
        lengths.data_ptr(),
        output.data_ptr(),
        num_sequences,
        heads,
        head_dim,
        num_pages,
        num_kv_heads,
        page_size,
        tables.shape[1],
        _EMPTY[keys.dtype],
        threads,
    )
    if outcome == THREADED:
        pages = (each.view(_BITS[each.dtype]) for each in (keys, values))
        arrays = [each.detach().numpy() for each in (queries, *pages, tables, lengths, output)]
        _decode_in_threads(arrays, threads)
    elif outcome != DONE:
        _refuse(outcome, tables[outcome].tolist(), int(lengths[outcome]), num_pages, page_size)
    return output if query.dtype == torch.float32 else output.to(query.dtype)


def _decode_in_threads(arrays: "list[np.ndarray[Any, Any]]", most: int) -> None:
    """What `decode` does alone, shared out; it has checked the tables."""
    query, keys, values, tables, lengths, output = arrays
    num_sequences, heads, head_dim = query.shape
    first_item = np.empty(num_sequences + 1, dtype=np.int64)
    plan(tables, lengths, len(keys), keys.shape[2], first_item)
    num_items = int(first_item[-1])
    partial = np.empty((num_items, heads, head_dim + 2), dtype=np.float32)
    arguments = (query, keys, values, tables, lengths, first_item, partial, output)
    threads = min(most, num_items)
    others = [_helpers(threads - 1).submit(attend, *arguments, share, threads) for share in range(1, threads)]
    attend(*arguments, 0, threads)
    for other in others:
        other.result()
    merge(first_item, partial, output)


def write_slots(slots: Tensor, keys: Tensor, values: Tensor, key_pages: Tensor, value_pages: Tensor) -> bool:
    """Copy K and V of n tokens of one layer into their slots.

    slots: contiguous int64 [n]; keys, values: [n, num_kv_heads, head_dim]; key_pages, value_pages: contiguous
    [num_pages, num_kv_heads, page_size, head_dim]. `PageStorage.write` checks shapes and dtypes. Returns False, and has
    written nothing, if a slot does not exist or is named twice.
    """
    _compile_write()
    keys, values = keys.contiguous(), values.contiguous()
    num_pages, num_kv_heads, page_size, head_dim = key_pages.shape
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


# A call from Python pays for each argument: about 0.1 microseconds for an integer, ten times that for a tensor made an
# array. So what is called at each layer takes addresses. It is compiled, or loaded, by a call on nothing, and a person
# who must wait for that is told.


@functools.cache
def _compile_decode(dtype: torch.dtype) -> None:
    with _announced():
        decode(0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, _EMPTY[dtype], 1)


@functools.cache
def _compile_write() -> None:
    with _announced():
        write(0, 0, 0, 0, 0, 0, 1, 1, 1, 1)


def _refuse(sequence: int, page_ids: list[int], seq_len: int, num_pages: int, page_size: int) -> None:
    room = len(page_ids) * page_size
    if not 1 <= seq_len <= room:
        raise ValueError(f"sequence {sequence} has {seq_len} tokens; a row of page_tables maps 1 to {room}")
    for position, page_id in enumerate(page_ids):
        if not 0 <= page_id < num_pages:
            raise IndexError(
                f"sequence {sequence}: entry {position} of the page table names page {page_id}; "
                f"the storage has pages 0..{num_pages - 1}"
            )


@functools.cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kvpaged")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_helpers.cache_clear)


class _announced:
    """Tells a person what they wait for, when a call takes a second: compiled code does not, but compiling does."""

    def __enter__(self) -> None:
        self.timer = None
        if sys.stderr.isatty():
            self.timer = threading.Timer(1.0, _announce)
            self.timer.daemon = True
            self.timer.start()

    def __exit__(self, *_: object) -> None:
        if self.timer:
            self.timer.cancel()


@functools.cache  # writing and reading are compiled apart; who waits for both is told once
def _announce() -> None:
    print("kvpaged: compiling the kernel for this processor, once; about 10 seconds ...", file=sys.stderr, flush=True)
