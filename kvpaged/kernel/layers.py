"""What a decoder computes between its attentions, compiled: linear layers, RMSNorm, rotary positions, SwiGLU.

Weights are read where a model stores them, as float32, float16 or bfloat16; what is computed is float32. A token gets
the same bits whatever other tokens are computed with it (see `kvpaged.kernel.compiled`).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from kvpaged.kernel.compiled import LANES, begin_layer, find_logits, finish_layer, multiply_rows
from kvpaged.kernel.team import run

_KIND = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # what `_multiply` in the compiled code calls them


class Weights(NamedTuple):
    """Of one layer: [features] of the norms, in float32; [outputs, features] of the others, all of one dtype."""

    input_norm: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    post_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class Stream:
    """The hidden numbers of n tokens on their way through the layers.

    rows: float32 [n, features], what the first layer reads; they are overwritten. angles: float32 [n, head_dim],
    cosines, then sines, of which a pair (i, i + head_dim / 2) of numbers takes the i-th. epsilon: float32 [1], of
    RMSNorm.
    """

    def __init__(self, rows: Tensor, angles: Tensor, epsilon: Tensor) -> None:
        self.num_tokens, self.width = rows.shape
        self.head_dim = angles.shape[1]
        self._hidden, self._angles, self._epsilon = rows.contiguous(), angles.contiguous(), epsilon
        self._normed = torch.empty_like(self._hidden)

    def begin(self, layer: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Query, keys and values, float32 [n, heads, head_dim], before attention; query and keys are turned."""
        projected = self.room_for_heads(layer)
        work = self.num_tokens * self.width * sum(weight.shape[0] for weight in layer[1:4])
        run(begin_layer, work, *addresses(layer[:4]), *self.beginning(layer, *projected))
        return projected

    def room_for_heads(self, layer: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """For what `begin` returns."""
        query, keys, values = (
            torch.empty(self.num_tokens, weight.shape[0] // self.head_dim, self.head_dim) for weight in layer[1:4]
        )
        return query, keys, values

    def beginning(self, layer: Weights, query: Tensor, keys: Tensor, values: Tensor) -> tuple[int, ...]:
        """What `begin_layer` is told behind a layer's first four weights."""
        return (
            self._hidden.data_ptr(),
            self._normed.data_ptr(),
            self.num_tokens,
            self.width,
            self._epsilon.data_ptr(),
            _KIND[layer.query.dtype],
            query.shape[1],
            keys.shape[1],
            self.head_dim,
            self._angles.data_ptr(),
            query.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
        )

    def finish(self, layer: Weights, attended: Tensor) -> None:
        """Take in what attention found, float32 [n, heads, head_dim]; then the feed-forward half of the layer."""
        attended, inner = attended.contiguous(), self.inner_room(layer)
        work = self.num_tokens * self.width * (layer.output.shape[1] + 3 * layer.gate.shape[0])
        run(finish_layer, work, *addresses(layer[4:]), *self.finishing(layer, attended, inner))

    def inner_room(self, layer: Weights) -> Tensor:
        """For the inner half of SwiGLU: rows with room for whole vectors."""
        return torch.empty(self.num_tokens, -(-layer.gate.shape[0] // LANES) * LANES)

    def finishing(self, layer: Weights, attended: Tensor, inner: Tensor) -> tuple[int, ...]:
        """What `finish_layer` is told behind a layer's other weights."""
        return (
            attended.data_ptr(),
            self.num_tokens,
            attended.shape[1] * attended.shape[2],
            self._hidden.data_ptr(),
            self._normed.data_ptr(),
            self.width,
            _KIND[layer.output.dtype],
            self._epsilon.data_ptr(),
            inner.data_ptr(),
            layer.gate.shape[0],
            inner.shape[1],
        )

    def keep(self, at: Tensor) -> None:
        """Let the tokens `at`, int64, go on alone, in that order."""
        self._hidden, self.num_tokens = self._hidden[at], at.shape[0]

    def logits(self, norm: Tensor, head: Tensor) -> Tensor:
        """Of all tokens, float32 [n, outputs]; norm and head as in `Weights`."""
        outputs = head.shape[0]
        rows = torch.empty(self.num_tokens, outputs)
        run(
            find_logits,
            self.num_tokens * self.width * outputs,
            self._hidden.data_ptr(),
            self._normed.data_ptr(),
            self.num_tokens,
            self.width,
            norm.data_ptr(),
            self._epsilon.data_ptr(),
            head.data_ptr(),
            _KIND[head.dtype],
            outputs,
            rows.data_ptr(),
        )
        return rows


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where tensors begin."""
    return [tensor.data_ptr() for tensor in tensors]


def linear(rows: Tensor, weight: Tensor) -> Tensor:
    """One linear layer by itself: rows float32 [n, features] times weight [outputs, features], float32 [n, outputs]."""
    (n, width), outputs = rows.shape, weight.shape[0]
    rows, output = rows.contiguous(), torch.empty(n, outputs)
    run(
        multiply_rows,
        n * width * outputs,
        rows.data_ptr(),
        n,
        width,
        weight.data_ptr(),
        _KIND[weight.dtype],
        outputs,
        output.data_ptr(),
    )
    return output
