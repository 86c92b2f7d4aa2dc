"""What a transformers model is like, found by asking it; and which models cannot live on pages, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs

from kvpaged.adapters.huggingface.attention import NAME, NO_MASK
from kvpaged.attention import contiguous_attention
from kvpaged.page import DTYPES

_NUM_PROBED = 12  # tokens of the text with which a model is asked
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}  # of the largest logit


@dataclass(frozen=True)
class Shape:
    """The `ModelShape` of a transformers model.

    max_position_embeddings: its context, or its smallest sliding window: up to there a window hides nothing.
    """

    vocab_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    eos_token_ids: tuple[int, ...]


@dataclass
class _Probe:
    """An `attend` that computes attention without pages, and notes what it was called with."""

    calls: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, /) -> Tensor:
        self.calls.append((layer, tuple(keys.shape[1:])))
        if not query.shape[2] == keys.shape[2] == values.shape[2]:
            raise ValueError(
                f"layer {layer} has keys of {keys.shape[2]} numbers and values of {values.shape[2]}: pages hold "
                "as many of each"
            )
        return contiguous_attention(query, keys, values)


@torch.inference_mode()
def shape_of(model: PreTrainedModel) -> Shape:
    """Ask a model what its K and V are like, and set its attention to "kvpaged".

    It is run twice on a few tokens, with its own attention and with ours on contiguous tensors: both must agree.
    Raises ValueError, with the reason in one line, for a model that pages cannot serve; it is left as it was.
    """
    name, before = type(model).__name__, model.config._attn_implementation
    try:
        sliding_window = _check_described(model)
        tokens = torch.arange(min(_NUM_PROBED, model.config.get_text_config(decoder=True).vocab_size))
        expected = _logits(model, tokens, attention_mask=torch.ones_like(tokens)[None])
        model.set_attn_implementation(NAME)
        probe = _Probe()
        found = _logits(model, tokens, attention_mask=NO_MASK, attend=probe)
        _check_answers(model, probe, expected, found)
    except BaseException as error:
        model.set_attn_implementation(before)
        if isinstance(error, ValueError):
            raise ValueError(f"{name} cannot be served from pages: {error}") from None
        raise
    config = model.config.get_text_config(decoder=True)
    num_kv_heads, head_dim = probe.calls[0][1]
    context = config.max_position_embeddings
    return Shape(
        vocab_size=config.vocab_size,
        num_layers=len(probe.calls),
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_position_embeddings=context if sliding_window is None else min(context, sliding_window),
        eos_token_ids=_eos_token_ids(model),
    )


def _check_described(model: PreTrainedModel) -> int | None:
    """Refuse what the model says of itself; return its smallest sliding window."""
    config = model.config.get_text_config(decoder=True)
    if model.config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        raise ValueError("it has cross-attention, whose keys and values belong to another text than the one it writes")
    if getattr(model, "_is_stateful", False):
        raise ValueError("it keeps a recurrent state, which has no keys and values for each token")
    layer_types, layer_settings = get_layer_types_and_kwargs(config)
    for layer, kind in enumerate(layer_types):
        if kind not in ("full_attention", "sliding_attention"):
            raise ValueError(f"layer {layer} is {kind!r}, and pages hold the keys and values of ordinary attention")
    if not model.is_backend_compatible():  # type: ignore[no-untyped-call]
        raise ValueError("it computes attention by itself, where transformers' AttentionInterface cannot reach")
    if model.device.type != "cpu":
        raise ValueError(f"it is on {model.device}, and pages are read by the processor: call model.to('cpu')")
    if model.dtype not in DTYPES:
        raise ValueError(f"it computes in {model.dtype}; pages hold {', '.join(map(str, DTYPES))}")
    if model.training:
        raise ValueError("it is in training mode, where dropout makes every run another: call model.eval()")
    if not isinstance(getattr(config, "max_position_embeddings", None), int):
        raise ValueError("its config has no max_position_embeddings, so nobody knows how long a text may be")
    rope = getattr(config, "rope_parameters", None) or {}
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if each.get("rope_type") in ("dynamic", "longrope"):
            raise ValueError(f"its positions ({each['rope_type']} RoPE) turn keys otherwise once a text grows long")
    windows = [settings["sliding_window"] for settings in layer_settings if "sliding_window" in settings]
    return min(windows) if windows else None


def _check_answers(model: PreTrainedModel, probe: _Probe, expected: Tensor, found: Tensor) -> None:
    """Refuse a model whose layers do not all ask for attention once, or that computes something else without pages."""
    layers, shapes = [call[0] for call in probe.calls], sorted({call[1] for call in probe.calls})
    num_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    if layers != list(range(num_layers)):
        raise ValueError(f"it has {num_layers} layers, but those that asked for attention were {layers}")
    if len(shapes) > 1:
        raise ValueError(f"its layers' keys differ in (kv heads, head_dim): {shapes}, and all layers share their pages")
    difference = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-9))
    if not difference <= _TOLERANCE[model.dtype]:
        raise ValueError(f"ordinary causal attention changes its logits by {difference:.1%}: it does something else")


def _logits(model: PreTrainedModel, tokens: Tensor, **arguments: Any) -> Tensor:
    positions = torch.arange(len(tokens))[None]
    logits: Tensor = model(input_ids=tokens[None], position_ids=positions, use_cache=False, **arguments).logits
    return logits.float()


def _eos_token_ids(model: PreTrainedModel) -> tuple[int, ...]:
    eos = model.config.get_text_config(decoder=True).eos_token_id
    if model.generation_config is not None and model.generation_config.eos_token_id is not None:
        eos = model.generation_config.eos_token_id
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, list | tuple) else (eos,)
