"""What the engine asks of a model: tokens in, logits out, and attention left to the caller."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kvpaged.model.decoder import Attend


class ModelShape(Protocol):
    """What pages and requests need to know of a model."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int:
        """Tokens of a sequence at most, prompt and continuation."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Each of these tokens ends a text."""


class LanguageModel(Protocol):
    """A decoder that asks `attend` for its attention: our own `Decoder`, or an adapter around somebody else's.

    checkpoint: the folder it was loaded from, if any; a tokenizer.json in it is the model's own.
    """

    checkpoint: Path | None

    @property
    def config(self) -> ModelShape: ...
    @property
    def dtype(self) -> torch.dtype:
        """Of K and V."""

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None, /) -> Tensor:
        """Logits [n, vocab_size] for n tokens of a packed batch, or [len(logits_at), vocab_size]; see `Decoder`.

        Calls `attend` once for each layer, in the order of the layers.
        """
