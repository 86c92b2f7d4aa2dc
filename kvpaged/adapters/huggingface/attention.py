"""The attention function that is registered with transformers under the name "kvpaged".

It hands attention over to the `attend` that came with the pass, and is otherwise transformers' own "sdpa": so a model
may be set to it for good. Registered when this file is imported, through `AttentionInterface` and
`AttentionMaskInterface`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvpaged.model import Attend

NAME = "kvpaged"

# A mask of four dimensions is handed on by every model as it is; this one spares it making its own.
NO_MASK = torch.empty(0, 0, 0, 0)

# What some models add to a score, or do to it, before the softmax.
UNSERVED = {"softcap": "a soft cap on scores", "s_aux": "attention sinks", "position_bias": "a bias for distances"}


def paged_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    attend: Attend | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one layer, as transformers calls it.

    query [batch, heads, q_len, head_dim]; key, value [batch, kv_heads, q_len, head_dim]: the new tokens'. Returns
    [batch, q_len, heads, head_dim], and no weights. The rows of the batch reach `attend` one after another.
    Raises ValueError for a layer that does more to its scores than scale them.
    """
    if attend is None:
        output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, weights
    for name, meaning in UNSERVED.items():
        if kwargs.get(name) is not None:
            raise ValueError(f"layer {module.layer_idx} has {meaning} ({name}), which attention on pages does not know")
    batch, heads, q_len, head_dim = query.shape
    factor = 1.0 if scaling is None else scaling * math.sqrt(head_dim)  # ours divides by sqrt(head_dim)
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        query = query * factor
    output = attend(_layer(module), packed(query), packed(key), packed(value))
    return output.view(batch, q_len, heads, head_dim), None


def packed(heads: Tensor) -> Tensor:
    """[batch, heads, length, head_dim] -> [batch * length, heads, head_dim]: row after row."""
    return heads.squeeze(2) if heads.shape[2] == 1 else heads.transpose(1, 2).flatten(0, 1)


def _layer(module: nn.Module) -> int:
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layer


AttentionInterface.register(NAME, paged_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
