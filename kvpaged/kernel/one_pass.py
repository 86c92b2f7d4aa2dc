"""All layers of a pass in one call, where nobody watches the pages.

A lone token of a small model spends a quarter of its time in Python, between the compiled functions of its layers. Here
all that they are told is laid out first, for all layers: a program, whose steps then run one after another. They are
the functions that are called layer by layer elsewhere, and so the bits are the same.
"""

# What numba compiles has no annotations.
# mypy: disallow-untyped-calls=False

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kvpaged.kernel import Plan
from kvpaged.kernel.compiled import (
    PHASES,
    STEP,
    are_slots,
    attention_float32,
    begin_layer,
    finish_layer,
    run_steps,
    write_rows,
)
from kvpaged.kernel.layers import Stream, Weights, addresses
from kvpaged.kernel.team import compile_once, run

# The steps of a layer, and how many addresses each is told first that are this layer's: its weights, or its pages.
_STEPS = ((begin_layer, 4), (write_rows, 2), (attention_float32, 2), (finish_layer, 5))
_OWN = np.array([step * STEP + 1 + 2 * PHASES + n for step, (_, count) in enumerate(_STEPS) for n in range(count)])


class Pages(NamedTuple):
    """What a pass writes and reads: keys, values, float32 [layers, num_pages, num_kv_heads, page_size, head_dim]."""

    plan: Plan
    slots: Tensor
    keys: Tensor
    values: Tensor


def run_layers(stream: Stream, layers: Sequence[Weights], pages: Pages) -> bool:
    """Take a stream through all layers as if by `Stream.begin`, `write_slots`, `attention` and `Stream.finish` in each.

    Weights are float32. Returns False, and has done nothing, where pages do not fit or a slot is named twice.
    """
    first, (plan, slots, keys, values) = layers[0], pages
    query, new_keys, new_values = stream.room_for_heads(first)
    (n, heads, head_dim), (num_layers, num_pages, num_kv_heads, page_size, _) = query.shape, keys.shape
    if (
        keys.shape != (len(layers), num_pages, new_keys.shape[1], page_size, head_dim)
        or heads % num_kv_heads
        or keys.dtype != torch.float32
        or not 0 < slots.shape[0] == plan.num_queries == n
        or not are_slots(slots.numpy(), num_pages * page_size)
    ):
        return False
    attended, inner = torch.empty_like(query), stream.inner_room(first)
    partial = torch.empty(plan.num_partials, heads, head_dim + 2)
    rows = slots.data_ptr(), new_keys.data_ptr(), new_values.data_ptr()
    arguments = (
        stream.beginning(first, query, new_keys, new_values),
        (*rows, n, num_kv_heads, page_size, head_dim * keys.itemsize),
        plan.arguments(query, attended, partial, (num_pages, num_kv_heads, page_size)),
        stream.finishing(first, attended, inner),
    )
    steps: list[int] = []
    for (function, count), told in zip(_STEPS, arguments, strict=True):
        steps += (compile_once(function).address, *[0] * (2 * PHASES + count), *told)
        steps += [0] * (-len(steps) % STEP)
    program, own = np.empty((num_layers, len(steps)), dtype=np.int64), []
    (keys_at, values_at), size = addresses((keys, values)), keys.stride(0) * keys.itemsize
    for layer in layers:
        (*start, output, norm, gate, up, down) = addresses(layer)
        own.append((*start, keys_at, values_at, keys_at, values_at, output, norm, gate, up, down))
        keys_at, values_at = keys_at + size, values_at + size
    program[:], program[:, _OWN] = steps, own
    work = n * sum(weight.numel() for weight in first) + plan.num_pairs * heads * head_dim
    # Threads wait for each other at every step: what one step takes must be worth it.
    run(run_steps, work // len(_STEPS), program.ctypes.data, num_layers * len(_STEPS))
    return True
