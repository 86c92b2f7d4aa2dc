"""Checkpoints of any architecture, from a folder or, when asked to, from the hub; and the commands that take them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from kvpaged.adapters.huggingface import load, loading
from kvpaged.cli import main
from kvpaged.model.loading import SHIPPED
from support.small_models import build, generate, padded

PROMPT = "Ada hid the coin in the attic. Ada looks for the coin"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 and the words of the recall model."""
    folder = tmp_path_factory.mktemp("gpt2")
    build("gpt2", vocab_size=512).save_pretrained(folder)
    shutil.copy(SHIPPED["recall"] / "tokenizer.json", folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err


def test_generate_takes_a_folder_of_any_architecture(capsys: pytest.CaptureFixture[str], gpt2: Path) -> None:
    code, out, err = run(capsys, "generate", PROMPT, "--model", str(gpt2), "--max-tokens", "8", "--json")
    [found] = json.loads(out)
    assert (code, err) == (0, "")
    [expected] = generate(load(gpt2).model, padded([found["prompt_tokens"]]), max_new_tokens=8)
    assert found["outputs"][0]["tokens"] == expected


def test_compare_takes_a_folder_of_any_architecture(capsys: pytest.CaptureFixture[str], gpt2: Path) -> None:
    code, out, _ = run(capsys, "compare", "--model", str(gpt2), "--page-size", "8", "--max-tokens", "4", "--json")
    found = json.loads(out)
    ways = {way["name"]: way for way in found["ways"]}
    assert code == 0
    assert found["same_tokens"]
    assert ways["paged"]["bytes_held"] < ways["growing"]["bytes_held"] < ways["reserved"]["bytes_held"]


def test_a_plain_llama_runs_on_our_decoder_unless_asked_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr("kvpaged.adapters.huggingface.load", lambda *a, **b: loaded.append(a) or load(*a, **b))
    arguments = ("generate", PROMPT, "--max-tokens", "4")
    ours = run(capsys, *arguments)
    assert not loaded
    assert run(capsys, *arguments, "--transformers") == ours
    assert len(loaded) == 1
    assert ours[1].startswith(PROMPT + " in the attic.")


def test_the_hub_is_asked_only_when_allowed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gpt2: Path
) -> None:
    asked = []
    monkeypatch.setattr(loading, "snapshot_download", lambda name, **_: asked.append(name) or str(gpt2))
    code, _, err = run(capsys, "generate", PROMPT, "--model", "somebody/some-model")
    assert (code, err.count("\n"), asked) == (2, 1, [])
    assert "no folder somebody/some-model: give 'recall' or a checkpoint folder on this disk, or say --hub" in err
    code, out, _ = run(capsys, "generate", PROMPT, "--model", "somebody/some-model", "--hub", "--max-tokens", "2")
    assert (code, asked) == (0, ["somebody/some-model"])
    assert out.startswith(PROMPT)


def test_without_a_network_the_hub_gives_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, **_: object) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError: Name or service not known\nand a paragraph on what to do")

    monkeypatch.setattr(loading, "snapshot_download", unreachable)
    code, out, err = run(capsys, "compare", "--model", "distilgpt2", "--hub")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot fetch 'distilgpt2' from the hub, and it was not fetched before (Got: ConnectError" in err
    assert "check the name and the network, or give a folder" in err
    monkeypatch.undo()
    code, _, err = run(capsys, "generate", PROMPT, "--model", "no/such/name", "--hub")
    assert (code, err.count("\n")) == (2, 1)
    assert "'no/such/name' is no name on the hub" in err


def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_with_random_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gpt2: Path
) -> None:
    config = json.loads((gpt2 / "config.json").read_text())
    shutil.copytree(gpt2, tmp_path / "cut")
    (tmp_path / "cut" / "config.json").write_text(json.dumps({**config, "n_layer": config["n_layer"] + 1}))
    code, _, err = run(capsys, "generate", PROMPT, "--model", str(tmp_path / "cut"))
    assert code == 2
    assert re.search(r"lacks \d+ weights, transformer\.h\.\d+\.\S+ for one: fetch it again\n$", err)


def test_a_folder_that_cannot_be_loaded_or_served_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gpt2: Path
) -> None:
    config = json.loads((gpt2 / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = run(capsys, "generate", PROMPT, "--model", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert f"transformers cannot load {tmp_path}: Error no file named model.safetensors" in err
    weights = (gpt2 / "model.safetensors").read_bytes()
    faults = (weights[:100], {}), (weights, {"n_embd": 2 * config["n_embd"]}), (weights, {"n_head": 0})
    for damaged, changed in faults:
        (tmp_path / "model.safetensors").write_bytes(damaged)
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        code, _, err = run(capsys, "generate", PROMPT, "--model", str(tmp_path))
        assert (code, err.count("\n")) == (2, 1), err
        assert f"transformers cannot load {tmp_path}: " in err
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    code, _, err = run(capsys, "generate", PROMPT, "--model", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "unheard-of" in err
    build("mamba", state_size=4).save_pretrained(tmp_path)
    code, _, err = run(capsys, "generate", PROMPT, "--model", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "MambaForCausalLM cannot be served from pages: it keeps a recurrent state" in err
    with pytest.raises(FileNotFoundError, match="no folder nowhere: give a checkpoint folder on this disk, or allow"):
        load("nowhere")
