"""How many bytes of K and V a token costs, by kind of layer, worked out from a model's `config.json`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvpaged.page_table import pages_for

BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1}
_STATE_BYTES = 4  # a component of a recurrent state is float32 unless the model says otherwise
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class LayerKind:
    """Layers of one kind, and what each of them keeps."""

    name: str
    layers: int
    formula: str  # with its numbers, for one layer
    bytes_per_token: int  # of one layer
    window: int | None = None  # tokens kept, at most
    state_bytes: int = 0  # of one layer, for each request, however long

    def bytes_for(self, num_tokens: int, page_size: int) -> int:
        """Bytes that all these layers keep of one request, in whole pages."""
        kept = num_tokens if self.window is None else min(num_tokens, self.window)
        slots = pages_for(kept, page_size) * page_size
        return self.layers * (slots * self.bytes_per_token + self.state_bytes)


@dataclass(frozen=True)
class MemoryPlan:
    """What a model keeps of a request."""

    kinds: list[LayerKind]
    heads: int
    kv_heads: int
    dtype: str
    max_tokens: int

    @property
    def bytes_per_token(self) -> int:
        """What one more token costs as long as no window is full."""
        return sum(kind.layers * kind.bytes_per_token for kind in self.kinds)

    @property
    def shared_by(self) -> int:
        """Query heads that a kv head serves; 1 where a latent row stands for all heads (MLA)."""
        return 1 if any("MLA" in kind.name for kind in self.kinds) else self.heads // self.kv_heads

    @property
    def grows_evenly(self) -> bool:
        """Whether each token costs the same: no windows, no states."""
        return all(kind.window is None and not kind.state_bytes for kind in self.kinds)

    def bytes_for(self, num_tokens: int, page_size: int = 16) -> int:
        """Bytes of K and V of one request, in whole pages."""
        return sum(kind.bytes_for(num_tokens, page_size) for kind in self.kinds)


def plan_memory(path: Path, dtype: str | None = None) -> MemoryPlan:
    """Read a `config.json`, or the folder that has one. K and V have the model's dtype if none is given.

    Raises FileNotFoundError; ValueError for a file that says too little, or has layers of an unknown kind.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        config = dict(raw.get("text_config") or raw)  # a model that sees has its language model in there
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON object ({error}): give a model's config.json") from None
    try:
        return _plan(config, dtype or _dtype(config, raw))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _plan(config: dict[str, Any], dtype: str) -> MemoryPlan:
    if dtype not in BYTES_OF:
        raise ValueError(f"dtype {dtype} is not known: give one of {', '.join(BYTES_OF)}")
    heads = _size(config, "num_attention_heads")
    counted = Counter(_layer_kinds(config))
    return MemoryPlan(
        [_kind(name, layers, config, BYTES_OF[dtype]) for name, layers in counted.items()],
        heads,
        _size(config, "num_key_value_heads", heads),
        dtype,
        _size(config, "max_position_embeddings", _LARGEST),
    )


def _kind(name: str, layers: int, config: dict[str, Any], width: int) -> LayerKind:
    if name == "linear_attention":
        return _recurrent(layers, config, width)
    if name not in ("full_attention", "sliding_attention"):
        raise ValueError(f"layers of kind {name!r} are not known here")
    window = _size(config, "sliding_window") if name == "sliding_attention" else None
    title = f"window of {window:,}" if window else "full attention"
    if config.get("kv_lora_rank"):
        latent, turned = _size(config, "kv_lora_rank"), _size(config, "qk_rope_head_dim")
        formula = f"({latent} latent + {turned} rotary) x {width} bytes"
        return LayerKind(f"{title}, MLA", layers, formula, (latent + turned) * width, window)
    heads = _size(config, "num_attention_heads")
    kv_heads = _size(config, "num_key_value_heads", heads)
    head_dim = config.get("head_dim") or _size(config, "hidden_size") // heads
    formula = f"2 (K and V) x {kv_heads} kv heads x {head_dim} x {width} bytes"
    return LayerKind(title, layers, formula, 2 * kv_heads * head_dim * width, window)


def _recurrent(layers: int, config: dict[str, Any], width: int) -> LayerKind:
    """A gated delta layer keeps a matrix for each head, and the last inputs of a short convolution."""
    key_heads, key_dim = _size(config, "linear_num_key_heads"), _size(config, "linear_key_head_dim")
    heads, dim = _size(config, "linear_num_value_heads"), _size(config, "linear_value_head_dim")
    taps = _size(config, "linear_conv_kernel_dim") - 1
    state = BYTES_OF.get(str(config.get("mamba_ssm_dtype")), _STATE_BYTES)
    channels = 2 * key_heads * key_dim + heads * dim
    formula = f"{heads} heads x {key_dim} x {dim} x {state} bytes + {channels:,} channels x {taps} x {width} bytes"
    state_bytes = heads * key_dim * dim * state + channels * taps * width
    return LayerKind("recurrent state", layers, formula, 0, state_bytes=state_bytes)


def _layer_kinds(config: dict[str, Any]) -> list[str]:
    """The kind of each layer: as it is said, or as older files imply it."""
    layers = _size(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return [str(kind) for kind in kinds]
    every = config.get("full_attention_interval")
    if every:
        return ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * layers
    every = config.get("sliding_window_pattern")
    return ["sliding_attention" if not every or (layer + 1) % every else "full_attention" for layer in range(layers)]


def _size(config: dict[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name) if config.get(name) is not None else default
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to {_LARGEST:,}")
    return value


def _dtype(*configs: dict[str, Any]) -> str:
    found = (config.get(name) for config in configs for name in ("dtype", "torch_dtype"))
    return str(next((each for each in found if each), "bfloat16"))
