"""The decoder of `kvpaged.model.decoder` once more, compiled: faster, and with the same bits in whatever company.

A sum of floating-point numbers depends on the order in which they are added, and a library of matrix products takes
another order for another number of rows. Here every output is one sum, always added in the same order; who else is
computed, and by whom, is not in the formula. So the bits of a token's K, V and logits depend on the weights and on the
tokens before it, and on nothing else.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from kvpaged.model.decoder import Attend, Decoder
from kvpaged.model.language_model import LanguageModel
from kvpaged.page import has_numba

if TYPE_CHECKING:
    from pathlib import Path

    from kvpaged.model.config import ModelConfig

_log = logging.getLogger(__name__)
_made: WeakKeyDictionary[Decoder, LanguageModel] = WeakKeyDictionary()


def fast(model: LanguageModel) -> LanguageModel:
    """The fast form of a decoder: made once, on the decoder's own weights. Any other model is returned as it is.

    So is a decoder that has no fast form: without numba, on head sizes or weights that the kernel does not serve. Then
    its bits may depend on its company, which is said in the log, once.
    """
    if type(model) is not Decoder:
        return model
    if model not in _made:
        _made[model] = FastDecoder(model) if _is_served(model) else model
    return _made[model]


def _is_served(decoder: Decoder) -> bool:
    from kvpaged.attention import default_backend

    if not has_numba():
        return _say("numba is not installed")
    if default_backend(decoder.config.head_dim) != "kernel":
        return _say(f"head_dim is {decoder.config.head_dim}, and the kernel serves multiples of 16")
    dtypes = {weight.dtype for weight in decoder.parameters()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float16, torch.bfloat16}:
        return _say(f"its weights are {', '.join(sorted(map(str, dtypes)))}")
    return True


@functools.cache
def _say(reason: str) -> bool:
    _log.warning(
        "this decoder has no fast form (%s): the last bits of its results may depend on what else a batch holds", reason
    )
    return False


class _Layer(NamedTuple):
    """A layer's weights, [outputs, features] each."""

    input_norm: Tensor
    heads: tuple[Tensor, Tensor, Tensor]
    output: Tensor
    post_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


class FastDecoder:
    """What a `Decoder` computes, on its weights, which it reads where they are: one who changes them changes both.

    Between the weights, and K and V, which have the decoder's dtype, all numbers are float32, and so are the logits.
    Nothing is kept for gradients.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._embed, self._norm, self._head = decoder.embed_tokens, decoder.norm.weight, decoder.lm_head.weight
        self._layers = [_weights_of(layer) for layer in decoder.layers]
        self.config: ModelConfig = decoder.config
        self.checkpoint: Path | None = decoder.checkpoint
        self._epsilon = torch.tensor([decoder.config.rms_norm_eps], dtype=torch.float32)
        self._angles = _angles(decoder.config)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of K and V."""
        return self._norm.dtype

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None) -> Tensor:
        """Logits as `Decoder.forward` gives them, in float32."""
        from kvpaged.kernel.layers import (
            collect,
            normalize,
            project_gated,
            project_heads,
            project_onto,
            project_rows,
            spread,
        )

        n, dtype, head_dim, epsilon = len(tokens), self.dtype, self.config.head_dim, self._epsilon
        hidden = spread(self._embed(tokens).float())
        angles = spread(self._angles[positions])
        for index, layer in enumerate(self._layers):
            normed = normalize(hidden, layer.input_norm.float(), epsilon)
            projected = project_heads(normed, n, layer.heads, head_dim, angles)
            attended = attend(index, *(each.to(dtype) for each in projected))
            project_onto(hidden, spread(attended.flatten(1).float()), layer.output)
            normed = normalize(hidden, layer.post_norm.float(), epsilon)
            project_onto(hidden, project_gated(normed, layer.gate, layer.up), layer.down)
        if logits_at is not None:
            n, hidden = len(logits_at), spread(collect(hidden, logits_at))
        return project_rows(normalize(hidden, self._norm.float(), epsilon), n, self._head)


def _weights_of(layer: Any) -> _Layer:
    attention, forward = layer.self_attn, layer.mlp
    return _Layer(
        layer.input_layernorm.weight,
        (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        forward.gate_proj.weight,
        forward.up_proj.weight,
        forward.down_proj.weight,
    )


def _angles(config: ModelConfig) -> Tensor:
    """Cosines and sines [max_position_embeddings, head_dim] of all positions, computed in float32 as the decoder does.

    By numpy and in one piece: torch would share them out to its threads, and round where a share ends as it must not.
    """
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = (1.0 / config.rope_theta**steps).numpy()
    angles = np.arange(config.max_position_embeddings, dtype=np.float32)[:, None] * frequencies
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))
