"""The decoder of `kvpaged.model.decoder` once more, compiled: faster, and with the same bits in whatever company.

A sum of floating-point numbers depends on the order in which they are added, and a library of matrix products takes
another order for another number of rows. Here every output is one sum, always added in the same order; who else is
computed, and by whom, is not in the formula. So the bits of a token's K, V and logits depend on the weights and on the
tokens before it, and on nothing else.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from kvpaged.model.decoder import Attend, Decoder
from kvpaged.model.language_model import LanguageModel
from kvpaged.model.large_pages import ask_for_large_pages
from kvpaged.page import has_numba
from kvpaged.paged_step import PagedStep

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

    if not has_numba():  # which says so itself
        return False
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


class FastDecoder:
    """What a `Decoder` computes, on its weights, which it reads where they are: one who changes them changes both.

    Between the weights, and K and V, which have the decoder's dtype, all numbers are float32, and so are the logits.
    Nothing is kept for gradients. Raises ValueError for a decoder that has no fast form (see `fast`).
    """

    def __init__(self, decoder: Decoder) -> None:
        if not _is_served(decoder):
            raise ValueError("this decoder has no fast form: call fast(decoder), which then leaves it as it is")
        self._embed, self._norm, self._head = decoder.embed_tokens, decoder.norm.weight, decoder.lm_head.weight
        self._layers = [_weights_of(layer) for layer in decoder.layers]
        ask_for_large_pages(decoder.parameters())
        self.config: ModelConfig = decoder.config
        self.checkpoint: Path | None = decoder.checkpoint
        self._epsilon = torch.tensor([decoder.config.rms_norm_eps], dtype=torch.float32)
        self._angles = _angles(decoder.config)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of K and V."""
        return self._norm.dtype

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None) -> Tensor:
        """Logits as `Decoder.forward` gives them, in float32.

        Where `attend` is a `PagedStep` whose pages nobody watches, all layers are one call, with the same bits. Raises
        ValueError unless each token has a position.
        """
        if tokens.shape != positions.shape:
            raise ValueError(f"tokens: {tokens.numel()}, positions: {positions.numel()}: give each token its own")
        from kvpaged.kernel.layers import Stream, Weights
        from kvpaged.kernel.one_pass import run_layers

        dtype, layers = self.dtype, [Weights(*weights) for weights in self._layers]
        stream = Stream(self._embed(tokens).float(), self._angles.index_select(0, positions), self._epsilon)
        pages = attend.unwatched() if dtype == torch.float32 and isinstance(attend, PagedStep) else None
        if pages is None or not run_layers(stream, layers, pages):
            for index, layer in enumerate(layers):
                if dtype != torch.float32:
                    layer = layer._replace(input_norm=layer.input_norm.float(), post_norm=layer.post_norm.float())
                projected = stream.begin(layer)
                attended = attend(index, *(each.to(dtype) for each in projected))
                stream.finish(layer, attended.float())
        if logits_at is not None:
            stream.keep(logits_at)
        return stream.logits(self._norm.float(), self._head)


def _weights_of(layer: Any) -> list[Tensor]:
    """In the order of `kvpaged.kernel.layers.Weights`."""
    attention, forward = layer.self_attn, layer.mlp
    modules = (
        layer.input_layernorm,
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        layer.post_attention_layernorm,
        forward.gate_proj,
        forward.up_proj,
        forward.down_proj,
    )
    return [module.weight for module in modules]


def _angles(config: ModelConfig) -> Tensor:
    """Cosines and sines [max_position_embeddings, head_dim] of all positions, computed in float32 as the decoder does.

    By numpy and in one piece: torch would share them out to its threads, and round where a share ends as it must not.
    """
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = (1.0 / config.rope_theta**steps).numpy()
    angles = np.arange(config.max_position_embeddings, dtype=np.float32)[:, None] * frequencies
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))
