"""A rectangular batch: equally long sequences, side by side. For training and evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kvpaged.model.decoder import Decoder


class BatchCache:
    """Attention for `num_rows` sequences packed one after another, each as long as the others.

    The first pass attends causally to itself; each later pass brings one token for each row.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store keys and values [n, kv_heads, head_dim], attend with query [n, heads, head_dim]: n rows of outputs."""
        query, keys, values = (
            heads.view(self._num_rows, -1, *heads.shape[1:]).transpose(1, 2) for heads in (query, keys, values)
        )
        first = layer not in self._stored
        if not first:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self._stored[layer], (keys, values), strict=True))
        self._stored[layer] = keys, values
        output = scaled_dot_product_attention(query, keys, values, is_causal=first, enable_gqa=True)
        return output.transpose(1, 2).flatten(0, 1)


def batch_logits(model: Decoder, tokens: Tensor, cache: BatchCache, start: int = 0) -> Tensor:
    """Logits [rows, length, vocab_size] of tokens [rows, length], the first of which stand at position `start`."""
    rows, length = tokens.shape
    positions = torch.arange(start, start + length).repeat(rows)
    logits: Tensor = model(tokens.flatten(), positions, cache.attend)
    return logits.view(rows, length, -1)
