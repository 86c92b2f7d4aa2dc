"""A checkpoint that the decoder cannot use is refused in one line that names the file, the value and the remedy."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model, load_tokenizer

RECALL = load_model("recall").checkpoint
assert RECALL is not None
PROMPT = "Ada hid the coin in the attic. Bo looks for the"
UNENDING = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECALL, tmp_path / "checkpoint"))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors, or drop those given as None."""
    path = folder / "model.safetensors"
    weights = load_file(path) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message, "the remedy follows a colon"
    return message


def test_a_copy_of_the_folder_loads_like_the_shipped_name(folder: Path) -> None:
    ours, theirs = load_model("recall").state_dict(), load_model(str(folder)).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert load_model(folder).checkpoint == folder


def test_the_dtype_is_the_callers_choice(folder: Path) -> None:
    assert {tensor.dtype for tensor in load_model(folder).parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in load_model(folder, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_rope_theta_is_read_in_the_old_place_and_in_the_new(folder: Path) -> None:
    configure(folder, rope_theta=123.0, rope_scaling=None)
    assert load_model(folder).config.rope_theta == 123.0
    configure(folder, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 456.0})
    assert load_model(folder).config.rope_theta == 456.0


def test_old_checkpoints_may_store_the_rotary_frequencies(folder: Path) -> None:
    reweigh(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(16))
    load_model(folder)


def test_several_tokens_may_end_a_text_and_generation_config_knows_better_which(folder: Path) -> None:
    [unending] = Engine(load_model(folder)).generate(PROMPT, UNENDING)[0].outputs
    second, third, generation = *unending.tokens[1:3], folder / "generation_config.json"
    assert second not in unending.tokens[:1]
    for said in ([third, second], second, [1, second]):
        configure(folder, eos_token_id=said)
        generation.write_text('{"do_sample": false}')
        for _ in range(2):
            model = load_model(folder)
            assert model.config.eos_token_ids == (tuple(said) if isinstance(said, list) else (said,))
            [ended] = Engine(model).generate(PROMPT, replace(UNENDING, ignore_eos=False))[0].outputs
            assert (ended.tokens, ended.finish_reason) == (unending.tokens[:2], "stop")
            configure(folder, eos_token_id=third)
            generation.write_text(json.dumps({"eos_token_id": said}))


def test_a_damaged_generation_config_is_refused(folder: Path) -> None:
    for wrong in ('{"eos_token_id": 375}', '{"eos_token_id": "x"}', "{"):
        (folder / "generation_config.json").write_text(wrong)
        assert "generation_config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"model_type": "mistral"}, "'mistral'"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"bits": 4}}, "'bits': 4"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "0.5"),
        ({"eos_token_id": [1, 5000]}, "[1, 5000]"),
        ({"eos_token_id": [1, None]}, "[1, None]"),
        ({"num_key_value_heads": 3}, "3 kv heads"),
        ({"head_dim": 31}, "31"),
        ({"head_dim": None, "num_attention_heads": 12}, "12 heads"),
        ({"hidden_size": None, "vocab_size": "many"}, "vocab_size, hidden_size"),
    ],
)
def test_a_config_this_decoder_does_not_compute_is_refused(changes: dict[str, Any], value: str, folder: Path) -> None:
    configure(folder, **changes)
    message = refusal(folder)
    assert "config.json" in message
    assert value in message


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_config_that_is_no_json_object_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    reweigh(folder, model__norm__weight=torch.ones(7))
    message = refusal(folder)
    assert "model.norm.weight has shape (7,), expected (128,)" in message


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    reweigh(folder, model__norm__weight=None)
    assert "model.norm.weight" in refusal(folder)


def test_a_tensor_without_a_place_is_refused(folder: Path) -> None:
    reweigh(folder, model__layers__0__self_attn__q_proj__bias=torch.ones(3))
    assert "model.layers.0.self_attn.q_proj.bias" in refusal(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"model.norm.weight": 3}}'])
def test_a_damaged_index_is_refused(index: str, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(folder)


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_model(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="model-00001-of-00002"):
        load_model(folder)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


def test_a_name_that_is_no_folder_is_refused_and_nothing_is_fetched() -> None:
    with pytest.raises(FileNotFoundError, match="nothing is fetched"):
        load_model("someone/some-model")


def test_importing_the_model_does_not_import_transformers() -> None:
    code = "import sys, kvpaged.model; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
