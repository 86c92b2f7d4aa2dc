"""The scripts that train and measure the recall model: a training of a few steps, and what it starts from."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kvpaged.recall.evaluate
import kvpaged.recall.train
from kvpaged.model import Decoder, load_model, load_tokenizer
from kvpaged.recall.batch_cache import BatchCache, batch_logits
from kvpaged.recall.evaluate import continue_stories, judge
from kvpaged.recall.induction import LOOK_BACK, lay_induction_head
from kvpaged.recall.passages import IGNORED, Batch, make_batch
from kvpaged.recall.text import make_story
from kvpaged.recall.tokenizer import build_tokenizer
from kvpaged.recall.train import recall_config, share_right, train

TOKENIZER = build_tokenizer()


def laid(seed: int) -> Decoder:
    torch.manual_seed(seed)
    model = Decoder(recall_config(TOKENIZER))
    lay_induction_head(model, TOKENIZER)
    return model


def test_heads_of_the_first_layer_start_by_looking_back_each_one_token_further() -> None:
    seen: dict[int, Tensor] = {}

    def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
        scores = torch.einsum("qhd,khd->hqk", query, keys) / query.shape[-1] ** 0.5
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        seen[layer] = scores.masked_fill(future, float("-inf")).softmax(-1)
        return torch.zeros_like(query)

    tokens = torch.tensor(TOKENIZER.encode(make_story(6, 1, seed=0).text).ids)
    with torch.no_grad():
        laid(0)(tokens, torch.arange(len(tokens)), attend)
    for head in range(LOOK_BACK):
        weights = seen[0][head, LOOK_BACK:]  # the first tokens have nothing so far back
        expected = torch.arange(LOOK_BACK, len(tokens)) - (head + 1)
        assert torch.equal(weights.argmax(-1), expected)
        assert weights.max(-1).values.min() > 0.9, "by position alone: what stands there makes no difference"


def test_the_same_seed_trains_the_same_model_and_another_seed_another() -> None:
    def trained(seed: int) -> Tensor:
        model = laid(seed)
        train(model, TOKENIZER, 1, random.Random(seed))
        return model.embed_tokens.weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_a_step_of_training_makes_the_loss_on_its_batch_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    model = laid(0)

    def loss() -> float:
        batch = make_batch(TOKENIZER, 4, 1536, random.Random(5))
        logits = batch_logits(model, batch.tokens, BatchCache(len(batch.tokens)))
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return float((losses * batch.weights.flatten()).sum() / batch.weights.sum())

    with torch.no_grad():
        before = loss()
    train(model, TOKENIZER, 2, random.Random(5))
    with torch.no_grad():
        assert loss() < before - 0.05
    assert "step     0    4 facts  loss " in capsys.readouterr().out


def test_more_facts_are_told_once_most_answers_are_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kvpaged.recall.train, "share_right", lambda *_: 20.0)  # enough at once for the running share
    monkeypatch.setattr(kvpaged.recall.train, "TOKENS_PER_STEP", 100)
    train(laid(0), TOKENIZER, 2, random.Random(0))
    lines = capsys.readouterr().out.splitlines()
    assert "  4 facts" in lines[0]
    assert "  5 facts" in lines[-1], "a sixth more, rounded up"


def test_an_answer_is_right_when_every_token_of_it_is() -> None:
    targets = torch.tensor([[IGNORED, 7, 8, 9], [5, 6, IGNORED, IGNORED]])
    batch = Batch(torch.zeros(2, 4), targets, torch.ones(2, 4), [(0, 1, 3), (0, 3, 4), (1, 0, 2)])
    taught = torch.tensor([1, 2, 3, 4, 5])
    assert share_right(torch.tensor([7, 8, 9, 5, 6]), taught, batch) == 1
    assert share_right(torch.tensor([7, 0, 9, 5, 6]), taught, batch) == pytest.approx(2 / 3)
    assert share_right(torch.tensor([0, 0, 0, 0, 6]), taught, batch) == 0


def test_a_batch_pads_its_passages_with_nothing_to_learn() -> None:
    batch = make_batch(TOKENIZER, 16, 600, random.Random(1))
    rows, length = batch.tokens.shape
    assert batch.tokens.numel() >= 600
    assert batch.targets.shape == batch.weights.shape == (rows, length)
    assert ((batch.targets == IGNORED) == (batch.weights == 0)).all()
    assert all(0 <= row < rows and 0 <= start < stop <= length for row, start, stop in batch.answers)
    for row, start, stop in batch.answers:
        said = batch.tokens[row, start + 1 : stop + 1]
        assert torch.equal(batch.targets[row, start:stop], said), "an answer is what comes next"


def test_the_script_writes_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "recall"
    monkeypatch.setattr("sys.argv", ["train", "--steps", "1", "--seed", "3", "--folder", str(folder)])
    kvpaged.recall.train.main()
    model = load_model(folder)
    assert model.config == load_model("recall").config
    assert load_tokenizer(folder).to_str() == load_tokenizer("recall").to_str()
    expected = laid(3)
    train(expected, TOKENIZER, 1, random.Random(3))
    assert all(torch.equal(weight, expected.state_dict()[name]) for name, weight in model.state_dict().items())


def test_the_measuring_script_prints_a_line_for_each_length_and_temperature(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "--questions", "3", "--stories", "1", "--tokens", "4"])
    kvpaged.recall.evaluate.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  1 facts,   13 tokens: 3 of 3 right"
    assert len([line for line in lines if line.endswith("of 3 right")]) == 9
    assert len([line for line in lines if ", then 4 tokens at temperature " in line]) == 12
    assert lines[9].startswith("  4 facts, then 4 tokens at temperature 0.0: 1 answers right, 0 wrong")


def test_a_judge_tells_wrong_unknown_and_malformed_sentences_apart() -> None:
    story = make_story(3, 1, seed=2, kinds=["looks"])
    first, second, _ = story.facts
    where = f"{first.preposition} the {first.place}"
    text = f" Ada looks for the {first.thing} {where}."
    verdict = judge([story], [f"{text}{text} Ada looks for the {second.thing} {where}. Ada looks for the moon. Oh."])
    assert (verdict.right, verdict.different, verdict.wrong, verdict.unknown) == (2, 1, 1, 0)
    assert verdict.malformed == 2
    elsewhere = judge([story], [f" Ada looks for the moon {where}."])
    assert str(elsewhere) == (
        "0 answers right, 0 wrong, 1 about things nobody hid, 0 other sentences, 0 different facts told"
    )


def test_continuations_drawn_at_a_temperature_are_the_same_each_time() -> None:
    stories = [make_story(4, 1, seed, kinds=["looks"]) for seed in range(3)]
    model = load_model("recall")
    hot = [continue_stories(model, TOKENIZER, stories, 12, temperature=4.0) for _ in range(2)]
    assert hot[0] == hot[1]
    assert hot[0] != continue_stories(model, TOKENIZER, stories, 12)
