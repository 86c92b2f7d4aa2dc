"""Our own model: a Llama-architecture decoder, its checkpoints, and greedy generation with it."""

import kvpaged.needs_torch  # noqa: F401 (its message comes before torch's own)
from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Attend, Decoder
from kvpaged.model.language_model import LanguageModel, ModelShape
from kvpaged.model.loading import check_tokenizer, load_model, load_tokenizer

__all__ = [
    "Attend",
    "Decoder",
    "LanguageModel",
    "ModelConfig",
    "ModelShape",
    "check_tokenizer",
    "load_model",
    "load_tokenizer",
]
