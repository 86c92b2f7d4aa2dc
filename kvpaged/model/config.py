"""What a checkpoint's `config.json` says about the decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a Llama-architecture decoder, in this package's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    eos_token_id: int | tuple[int, ...] | None = None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text: one, several, or none."""
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else eos

    def __post_init__(self) -> None:
        """Refuse shapes that no decoder can have: ValueError names the values."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} kv heads evenly: "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: rotary embedding turns pairs, so it must be even")

    @classmethod
    def from_json(cls, path: Path) -> ModelConfig:
        """Read a Hugging Face `config.json`; ValueError for anything this decoder does not compute.

        A generation_config.json beside it knows better which tokens end a text, if it names any.
        """
        raw, beside = _read(path), path.with_name("generation_config.json")
        generation = _read(beside) if beside.is_file() else {}
        try:
            config = cls._from_hugging_face(raw)
            if generation.get("eos_token_id") is not None:
                path = beside
                config = replace(config, eos_token_id=_tokens(generation, "eos_token_id", config.vocab_size))
            return config
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _from_hugging_face(cls, raw: dict[str, Any]) -> ModelConfig:
        for name, accepted, remedy in _COMPUTED:
            value = raw.get(name, accepted[0])
            if value not in accepted:
                raise ValueError(f"{name} is {value!r}, and this decoder computes {accepted[0]!r} only: {remedy}")
        wrong = [name for name in _SIZES if not _is_size(raw.get(name))]
        wrong += [name for name in _OPTIONAL_SIZES if raw.get(name) is not None and not _is_size(raw[name])]
        if wrong:
            raise ValueError(f"no whole number from 1 to {_LARGEST:,} for {', '.join(wrong)}: mend the file")
        if raw["num_hidden_layers"] > _DEEPEST:
            raise ValueError(f"num_hidden_layers is {raw['num_hidden_layers']}: give at most {_DEEPEST}")
        heads = raw["num_attention_heads"]
        if raw.get("head_dim") is None and raw["hidden_size"] % heads:
            raise ValueError(f"hidden_size {raw['hidden_size']} does not divide into {heads} heads: give head_dim")
        return cls(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            max_position_embeddings=raw["max_position_embeddings"],
            rope_theta=_rope_theta(raw),
            rms_norm_eps=_positive(raw, "rms_norm_eps", cls.rms_norm_eps),
            tie_word_embeddings=_flag(raw, "tie_word_embeddings"),
            eos_token_id=_tokens(raw, "eos_token_id", raw["vocab_size"]),
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON object ({error}): fetch the checkpoint again") from None


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)

_OPTIONAL_SIZES = ("num_key_value_heads", "head_dim")
# Beyond these a file is damaged, not ambitious; and building the decoder it describes would take for ever.
_LARGEST, _DEEPEST = 2**31 - 1, 1000

# name, values accepted (the first where the file is silent), remedy
_COMPUTED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("model_type", ("llama",), "use a checkpoint of the Llama architecture"),
    ("hidden_act", ("silu",), "use a checkpoint with SwiGLU feed-forward layers"),
    ("attention_bias", (False, None), "use a checkpoint without biases"),
    ("mlp_bias", (False, None), "use a checkpoint without biases"),
    ("quantization_config", (None,), "use the checkpoint that is not quantised"),
)


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST  # True is an int too, but no size


def _positive(raw: dict[str, Any], name: str, default: float) -> float:
    value = raw.get(name, default)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a positive number")
    return float(value)


def _flag(raw: dict[str, Any], name: str) -> bool:
    value = raw.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: give true or false")
    return value


def _rope_theta(raw: dict[str, Any]) -> float:
    """The rotary base: in `rope_parameters` (transformers 5), else beside the rest (4 and earlier)."""
    beside = {} if raw.get("rope_theta") is None else {"rope_theta": raw["rope_theta"]}
    for name in ("rope_scaling", "rope_parameters"):
        rope = raw.get(name) or {}
        if not isinstance(rope, dict):
            raise ValueError(f"{name} is {rope!r}: give an object, or leave it out")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(
                f"{name} is {rope!r}, and this decoder turns whole heads by unscaled angles only: "
                "use a checkpoint without RoPE scaling"
            )
        beside |= rope
    return _positive(beside, "rope_theta", ModelConfig.rope_theta)


def _tokens(raw: dict[str, Any], name: str, vocab_size: int) -> int | tuple[int, ...] | None:
    found = raw.get(name)
    for token in found if isinstance(found, list) else [] if found is None else [found]:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise ValueError(f"{name} is {found!r}, and the vocabulary has {vocab_size} tokens: give one of them")
    return tuple(found) if isinstance(found, list) else found
