"""A transformers model, unmodified, as the engine and the pages see it."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvpaged.adapters.huggingface.attention import NAME, NO_MASK
from kvpaged.adapters.huggingface.shape import shape_of
from kvpaged.model import Attend


class HuggingFaceModel:
    """A `LanguageModel`: hand it to `Engine`, `open_storage` or `compute` in place of a `Decoder`.

    model: what was handed in. Its attention is set to "kvpaged", which without pages behaves as "sdpa" does.
    checkpoint: the folder it was loaded from, if any.

    Raises ValueError, with the reason in one line, for a model that pages cannot serve (see `shape_of`).
    """

    def __init__(self, model: PreTrainedModel, checkpoint: Path | None = None) -> None:
        self.model = model
        self.checkpoint = checkpoint
        self.config = shape_of(model)
        self._keeps_wanted_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of K and V."""
        return self.model.dtype

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None, /) -> Tensor:
        """Logits [n, vocab_size] for n tokens of a packed batch, or [len(logits_at), vocab_size] for the rows wanted.

        tokens, positions: int64 [n]. To the model they are one row of a batch; `attend` keeps the sequences apart.
        """
        attention = self.model.config._attn_implementation
        if attention != NAME:
            remedy = f"call model.set_attn_implementation({NAME!r})"
            raise RuntimeError(f"the model's attention is {attention!r}, which cannot read pages: {remedy}")
        wanted = {} if logits_at is None or not self._keeps_wanted_logits else {"logits_to_keep": logits_at}
        output = self.model(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=NO_MASK,
            use_cache=False,
            attend=attend,
            **wanted,
        )
        logits: Tensor = output.logits[0]
        return logits if logits_at is None or wanted else logits[logits_at]

    def __repr__(self) -> str:
        return f"HuggingFaceModel({type(self.model).__name__}, {self.config})"
