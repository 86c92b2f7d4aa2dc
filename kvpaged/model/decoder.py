"""A Llama-architecture decoder in plain PyTorch. It computes; what it attends to is its caller's business.

RMSNorm (Zhang and Sennrich 2019), rotary positions (Su et al. 2024), grouped-query attention (Ainslie et al. 2023),
SwiGLU (Shazeer 2020), no biases. Parameters carry Hugging Face's names, without the leading "model.".
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from kvpaged.model.config import ModelConfig


class Attend(Protocol):
    """Stores the new tokens' K and V of one layer, and lets each new token attend to whatever it may see.

    query [n, heads, head_dim]; keys, values [n, kv_heads, head_dim], all after RoPE -> [n, heads, head_dim].
    """

    def __call__(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, /) -> Tensor: ...


class Decoder(nn.Module):
    """Tokens in, logits out; `checkpoint` is the folder it was loaded from, if any."""

    checkpoint: Path | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of K and V."""
        return self.embed_tokens.weight.dtype

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None) -> Tensor:
        """Logits [n, vocab_size] for n tokens, or [len(logits_at), vocab_size] for the rows wanted.

        tokens, positions: int64 [n], a packed batch: several sequences may stand one after another, and `attend`
        keeps them apart. Positions count from 0 in each sequence, below `config.max_position_embeddings`.
        """
        hidden = self.embed_tokens(tokens)
        cos, sin = rotary_angles(positions, self.config, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, attend)
        if logits_at is not None:
            hidden = hidden[logits_at]
        logits: Tensor = self.lm_head(self.norm(hidden))
        return logits


class Layer(nn.Module):
    """One decoder layer: attention, then feed-forward, each added to the stream it reads."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, attend)
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class Attention(nn.Module):
    """Projects to query, keys and values, turns query and keys by their positions, and asks `attend` for the rest."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index, self.head_dim = index, config.head_dim
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        query = rotate(self.q_proj(hidden).unflatten(-1, (-1, self.head_dim)), cos, sin)
        keys = rotate(self.k_proj(hidden).unflatten(-1, (-1, self.head_dim)), cos, sin)
        values = self.v_proj(hidden).unflatten(-1, (-1, self.head_dim))
        output: Tensor = self.o_proj(attend(self.index, query, keys, values).flatten(-2))
        return output


class FeedForward(nn.Module):
    """SwiGLU: a linear layer, gated by the SiLU of another, and projected back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return output


class RMSNorm(nn.Module):
    """Scales each token's vector to unit root mean square, in float32 whatever the model's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(hidden.dtype)


def rotary_angles(positions: Tensor, config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [n, 1, head_dim] of each position's angles, for `rotate`; computed in float32."""
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    angles = positions[:, None].float() * (1.0 / config.rope_theta**steps)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of each head [n, heads, head_dim] by their position's angles."""
    left, right = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-right, left), dim=-1) * sin
