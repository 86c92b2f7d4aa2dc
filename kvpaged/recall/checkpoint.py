"""The recall model's checkpoint folder, in Hugging Face's layout."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from kvpaged.model.decoder import Decoder
from kvpaged.model.loading import stored_name
from kvpaged.recall.tokenizer import EOS, UNK


def save_recall(model: Decoder, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a recall model: config.json, model.safetensors, tokenizer.json and tokenizer_config.json."""
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    weights = {stored_name(name): tensor.detach().contiguous() for name, tensor in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    described = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": config.eos_token_id,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    wrapper = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "unk_token": UNK}
    (folder / "tokenizer_config.json").write_text(json.dumps(wrapper, indent=2) + "\n", encoding="utf-8")
