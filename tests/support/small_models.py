"""Small transformers models of several architectures, with random weights, made without a network."""

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from kvpaged import PagedKVCache
from kvpaged.adapters.huggingface import HuggingFaceModel
from kvpaged.model.compute import open_storage

logging.set_verbosity_error()

VOCABULARY = 97
# Weights far apart: tokens that tie would be chosen by the last bit of a sum, which nobody promises.
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},  # grouped-query attention
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},  # norms on query and keys; heads wider than hidden / heads
    "mistral": {"num_key_value_heads": 1, "sliding_window": None},  # one kv head for all
    "gpt2": {},  # learned positions, a kv head for each head
    "phi": {"num_key_value_heads": 4},  # rotary positions on part of a head
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},  # scaled embeddings
    "gpt_neox": {},  # attention and feed-forward in parallel
}


def build(architecture: str, **settings: Any) -> PreTrainedModel:
    """A model in evaluation mode; settings beside or instead of those above."""
    config = CONFIG_MAPPING[architecture](**{**COMMON, **ARCHITECTURES.get(architecture, {}), **settings})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@functools.cache
def served(architecture: str) -> HuggingFaceModel:
    """The same model for every test of a process."""
    return HuggingFaceModel(build(architecture))


def memory_for(model: HuggingFaceModel, num_pages: int = 1000, page_size: int = 4, **settings: Any) -> PagedKVCache:
    """Pages for a model, unwritten slots full of NaN: whoever reads one gets no token right any more."""
    storage = open_storage(model, num_pages, page_size)
    for layer in range(storage.num_layers):
        storage.keys(layer).fill_(float("nan"))
        storage.values(layer).fill_(float("nan"))
    return PagedKVCache(num_pages, page_size, storage=storage, **settings)


def prompts(count: int, seed: int, shortest: int = 1, longest: int = 24) -> list[list[int]]:
    """Random tokens."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=rng).tolist()
    return [torch.randint(2, VOCABULARY, (length,), generator=rng).tolist() for length in lengths]


def padded(texts: list[list[int]]) -> dict[str, Tensor]:
    """What generate gets for these texts: input_ids and attention_mask, padded on the left."""
    width = max(map(len, texts))
    return {
        "input_ids": torch.tensor([[0] * (width - len(text)) + text for text in texts]),
        "attention_mask": torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts]),
    }


def generate(model: PreTrainedModel, inputs: dict[str, Tensor], **settings: Any) -> list[list[int]]:
    """The tokens after the prompts: 16 for each, chosen greedily, unless told otherwise."""
    settings = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, **settings}
    with torch.inference_mode():
        found = model.generate(**inputs, **settings)
    return found[:, inputs["input_ids"].shape[1] :].tolist()
