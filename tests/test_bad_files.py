"""Files that were cut short, damaged or made for another model: each is read as it should be, or refused in one line.

Fuzzed: hypothesis cuts files, changes their bytes and puts other values into them. What only a checksum could tell (a
weight that is another number now) is not found.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from kvpaged.cli import main
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig, check_tokenizer, load_model, load_tokenizer
from kvpaged.recall.checkpoint import save_recall
from kvpaged.recall.tokenizer import build_tokenizer
from support.damaged import FUZZ, damage, replaced

TOKENIZER = build_tokenizer()
SMALL = ModelConfig(TOKENIZER.get_vocab_size(), 16, 16, 2, 4, 2, 4, 64, tie_word_embeddings=True, eos_token_id=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder, of a model small enough to be read a thousand times."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    save_recall(Decoder(SMALL), TOKENIZER, folder)
    return folder


def outcome(folder: Path, name: str) -> str:
    """ "loads", or the refusal, which must name the file and hold in one line."""
    try:
        load_model(folder)
        load_tokenizer(folder)
    except ValueError as error:
        message = str(error)
        assert str(folder) in message
        assert name in message or "tensors missing" in message
        assert "\n" not in message
        return message
    return "loads"


@FUZZ
@given(damage=damage(within=450))
def test_a_damaged_config_loads_as_it_reads_or_is_refused(damage: Any, checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    with replaced(path, damage(path.read_bytes())):
        try:
            outcome(checkpoint, "config.json")
        except AssertionError:  # the weights may be what no longer fits
            outcome(checkpoint, "model.safetensors")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=4,
)
KEYS = [*json.loads(Path(load_model("recall").checkpoint or "", "config.json").read_text()), "rope_scaling"]


@FUZZ
@given(
    key=st.sampled_from([*KEYS, "rope_parameters", "quantization_config"]),
    value=JSON | st.sampled_from([0, -1, 10**30]),
)
def test_any_value_in_a_config_is_computed_with_or_refused(key: str, value: object, checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    described = json.loads(path.read_bytes()) | {key: value}
    with replaced(path, json.dumps(described).encode()):
        if outcome(checkpoint, "") == "loads":
            model = load_model(checkpoint)
            logits = model(torch.tensor([1]), torch.tensor([0]), lambda layer, query, keys, values: query)
            assert logits.shape == (1, SMALL.vocab_size)


@FUZZ
@given(damage=damage(within=2500))
def test_a_damaged_checkpoint_is_refused_unless_a_weight_alone_changed(damage: Any, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    damaged = damage(whole)
    header = 8 + int.from_bytes(whole[:8], "little")
    with replaced(path, damaged):
        told = outcome(checkpoint, "model.safetensors")
    if len(damaged) != len(whole):
        assert told != "loads"
    elif told == "loads" and damaged[:header] != whole[:header]:
        assert json.loads(damaged[8:header]).keys() == json.loads(whole[8:header]).keys() or b"metadata" in damaged


@FUZZ
@given(damage=damage(within=8000))
def test_a_damaged_tokenizer_loads_as_it_reads_or_is_refused(damage: Any, checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    damaged = damage(path.read_bytes())
    with replaced(path, damaged):
        told = outcome(checkpoint, "tokenizer.json")
    assert told != "loads" or json.loads(damaged)["model"]


def test_weights_that_are_no_floating_point_are_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    with replaced(path, path.read_bytes().replace(b'"F32"', b'"I32"', 1)):
        assert "no floating point: fetch the checkpoint again" in outcome(checkpoint, "model.safetensors")


def test_json_nested_without_end_is_refused(checkpoint: Path) -> None:
    for name in ("config.json", "model.safetensors.index.json"):
        (checkpoint / name).touch()
        with replaced(checkpoint / name, b"[" * 100_000), pytest.raises(ValueError, match=name):
            load_model(checkpoint)
        if name.endswith("index.json"):
            (checkpoint / name).unlink()


def test_a_model_deeper_than_any_is_refused_before_it_is_built(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    described = json.loads(path.read_bytes()) | {"num_hidden_layers": 10**9}
    with replaced(path, json.dumps(described).encode()):
        assert "num_hidden_layers is 1000000000: give at most 1000" in outcome(checkpoint, "config.json")


# A tokenizer of another model


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    larger = Tokenizer(WordLevel({str(token): token for token in range(2000)}, unk_token="0"))
    told = r"the tokenizer has a token 1999, and the model a vocabulary of \d+: they belong to different models"
    with pytest.raises(ValueError, match=told):
        Engine(load_model("recall"), tokenizer=larger)


def test_a_tokenizer_without_the_models_last_token_is_refused() -> None:
    smaller = Tokenizer(WordLevel({"a": 1}, unk_token="a"))
    told = "the model ends a text with token 0, and the tokenizer has none: they belong to different models"
    with pytest.raises(ValueError, match=told):
        check_tokenizer(smaller, load_model("recall").config)
    check_tokenizer(smaller, ModelConfig(2, 16, 16, 2, 4, 2, 4, 64))  # which names none


def test_the_command_line_refuses_a_tokenizer_of_another_model(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Tokenizer(WordLevel({"<eos>": 0, "Ada": 5000}, unk_token="<eos>"))
    for command in (["compare", "--prompt"], ["generate"]):
        with replaced(checkpoint / "tokenizer.json", other.to_str().encode()), pytest.raises(SystemExit) as refused:
            main([*command, "Ada", "--model", str(checkpoint)])
        assert refused.value.code == 2
        assert "they belong to different models" in capsys.readouterr().err


# Prompts


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load_model("recall"), num_pages=64, page_size=4)


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=40))
def test_hostile_bytes_are_served_as_text_or_refused_and_leave_nothing(engine: Engine, raw: bytes) -> None:
    for prompt in (raw.decode("utf-8", "surrogateescape"), raw.decode("latin-1"), raw.decode("utf-8", "replace")):
        refused = not prompt or any("\ud800" <= character <= "\udfff" for character in prompt)
        with pytest.raises(ValueError, match="^the prompt (is empty|has )") if refused else nullcontext():
            [output] = engine.generate(prompt, SamplingParams(max_tokens=2))
            assert all(0 <= token < engine.model.config.vocab_size for token in output.outputs[0].tokens)
    assert engine.num_unfinished == 0
    assert engine.cache.pool.num_used == len(engine.cache.prefix)
    engine.cache.check()


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (b"Ada hid", TypeError, "the prompt is bytes: decode it to a string first"),
        (["Ada", bytearray(b"hid")], TypeError, "the prompt is bytearray: decode it to a string first"),
        ([memoryview(b"hid")], TypeError, "the prompt is memoryview: decode it to a string first"),
        (None, TypeError, "prompts are None: give a string, a list of token ids, or a list of such"),
        (3.5, TypeError, r"prompts are 3\.5: give a string"),
        (["Ada", 3], TypeError, "tokens are 3; hand in a list of ints"),
        ([[1, "x"]], TypeError, "at index 1: token 'x' is not an int"),
        ([[1, -1]], ValueError, "at index 1: token -1 is outside"),
        ("Ada \ud800", ValueError, r"the prompt has '\\ud800', which is no character, at index 4: decode its bytes"),
        (["Ada", ""], ValueError, "the prompt is empty"),
        ([[10**6]], ValueError, "token 1000000 is outside the model's vocabulary of"),
    ],
)
def test_what_is_no_prompt_is_refused_before_anything_runs(
    engine: Engine, prompts: Any, error: type[Exception], message: str
) -> None:
    steps = engine.metrics().steps
    with pytest.raises(error, match=message):
        engine.generate(prompts)
    assert (engine.metrics().steps, engine.num_unfinished) == (steps, 0)


def test_a_command_line_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["generate", b"Ada \xff".decode("utf-8", "surrogateescape")])
    assert refused.value.code == 2
    assert capsys.readouterr().err == (
        "error: the prompt has '\\udcff', which is no character, at index 4: decode its bytes as what they are\n"
    )
