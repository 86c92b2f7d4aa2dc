"""Any Llama-architecture checkpoint in Hugging Face's layout is served: other shapes than the recall model's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig, load_model, load_tokenizer
from kvpaged.model.compute import generate_naive

pytestmark = pytest.mark.usefixtures("poisoned_engines")

SMALL = ModelConfig(
    vocab_size=400,
    hidden_size=48,
    intermediate_size=80,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    rope_theta=10_000.0,
)
SHAPES = {
    "three heads a kv head, embeddings untied": SMALL,
    "a kv head for each head, embeddings tied": replace(SMALL, num_kv_heads=6, tie_word_embeddings=True),
    "one kv head for all, heads of 20": replace(SMALL, num_kv_heads=1, head_dim=20, num_layers=1),
    "heads wider than the hidden size divides into": replace(SMALL, num_heads=4, num_kv_heads=4, head_dim=64),
}


def checkpoint(folder: Path, config: ModelConfig) -> Path:
    torch.manual_seed(1)
    model = Decoder(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": tensor.detach().contiguous()
        for name, tensor in model.named_parameters()
    }
    save_file(weights, folder / "model.safetensors")
    load_tokenizer("recall").save(str(folder / "tokenizer.json"))
    described = {
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    (folder / "config.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_a_checkpoint_of_another_shape_loads_and_gets_its_own_tokens(tmp_path: Path, config: ModelConfig) -> None:
    model = load_model(checkpoint(tmp_path, config))
    prompts = [[5, 9, 3, 3, 17, 2, 11], [5, 9, 3, 3, 17, 2, 11, 30], [8] * 25]
    engine = Engine(model, 30, 4, max_batched_tokens=16, num_speculative_tokens=3)
    outputs = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=20))
    engine.cache.check()
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.outputs[0].tokens == generate_naive(model, prompt, 20)
    assert engine.tokenizer is not None
    [told] = engine.generate("Ada hid", SamplingParams(temperature=0, max_tokens=8))
    assert told.outputs[0].text == engine.tokenizer.decode(told.outputs[0].tokens)


def test_a_checkpoint_with_scaled_rotary_positions_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, SMALL) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}))
    with pytest.raises(ValueError, match="unscaled angles only: use a checkpoint without RoPE scaling"):
        load_model(tmp_path)


def test_a_model_in_half_precision_is_served_from_pages_in_half_precision() -> None:
    model = load_model("recall", dtype=torch.bfloat16)
    engine = Engine(model, 64, 8)
    assert engine.cache.storage.dtype == torch.bfloat16
    assert (
        len(engine.generate("Ada hid the coin", SamplingParams(max_tokens=5, ignore_eos=True))[0].outputs[0].tokens)
        == 5
    )
