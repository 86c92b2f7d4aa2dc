"""The decoder computes what Hugging Face's Llama computes, and leaves attention to its caller."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kvpaged.model import Decoder, ModelConfig, load_model, load_tokenizer
from kvpaged.recall.text import make_story


def causal(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One sequence attends to itself: the slow and obvious way."""
    group = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query, keys) / query.shape[-1] ** 0.5
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values)


def logits_of(model: Decoder, tokens: list[int]) -> Tensor:
    return model(torch.tensor(tokens), torch.arange(len(tokens)), causal)


def story_tokens(seed: int, num_facts: int = 8) -> list[int]:
    story = make_story(num_facts, 1, seed)
    return load_tokenizer("recall").encode(story.text + story.questions[0].text).ids


@pytest.fixture(scope="module")
def recall() -> Decoder:
    return load_model("recall")


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers")


def test_the_recall_model_gives_the_logits_of_hugging_face(recall: Decoder, transformers) -> None:
    peer = transformers.LlamaForCausalLM.from_pretrained(recall.checkpoint, dtype=torch.float32)
    tokens = story_tokens(0, num_facts=80)
    with torch.no_grad():
        expected = peer(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits_of(recall, tokens), expected, atol=1e-4, rtol=0)


def test_hugging_face_reads_the_recall_tokenizer(recall: Decoder, transformers) -> None:
    peer = transformers.AutoTokenizer.from_pretrained(recall.checkpoint)
    story = make_story(5, 1, seed=0)
    tokens = story_tokens(0, num_facts=5)
    assert peer(story.text + story.questions[0].text)["input_ids"] == tokens
    assert peer.decode(tokens) == story.text + story.questions[0].text
    assert peer.eos_token_id == recall.config.eos_token_id


@pytest.mark.parametrize(
    ("shape", "shard"),
    [
        ({"num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": False}, "40KB"),
        ({"num_key_value_heads": 1, "tie_word_embeddings": True}, "5GB"),
        ({"num_key_value_heads": 6, "rope_theta": 777.0, "rms_norm_eps": 1e-3}, "5GB"),
    ],
)
def test_any_shape_gives_the_logits_of_hugging_face(transformers, tmp_path: Path, shape: dict, shard: str) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=99,
        hidden_size=96,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        initializer_range=0.3,
        **shape,
    )
    peer = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in peer.named_parameters():
        if "norm" in name:  # norms of one would hide a norm that is left out
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    peer.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "40KB")
    tokens = torch.randint(99, (50,))
    with torch.no_grad():
        expected = peer(tokens[None]).logits[0]
    torch.testing.assert_close(logits_of(load_model(tmp_path), tokens.tolist()), expected, atol=1e-4, rtol=1e-4)


def test_attend_is_called_once_per_layer_in_order_with_the_new_tokens(recall: Decoder) -> None:
    config, calls = recall.config, []

    def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        calls.append((layer, tuple(query.shape), tuple(keys.shape), tuple(values.shape)))
        return query

    recall(torch.tensor([5, 6, 7]), torch.arange(3), attend)
    heads, kv_heads = (3, config.num_heads, config.head_dim), (3, config.num_kv_heads, config.head_dim)
    assert calls == [(layer, heads, kv_heads, kv_heads) for layer in range(config.num_layers)]


def test_a_packed_batch_gives_each_sequence_the_logits_it_has_alone(recall: Decoder) -> None:
    first, second = story_tokens(1), story_tokens(2, num_facts=5)
    cut = len(first)

    def apart(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        halves = [(query[part], keys[part], values[part]) for part in (slice(cut), slice(cut, None))]
        return torch.cat([causal(layer, *half) for half in halves])

    positions = torch.cat((torch.arange(cut), torch.arange(len(second))))
    together = recall(torch.tensor(first + second), positions, apart)
    torch.testing.assert_close(together[:cut], logits_of(recall, first))
    torch.testing.assert_close(together[cut:], logits_of(recall, second))


def test_logits_at_gives_the_wanted_rows_only(recall: Decoder) -> None:
    tokens, rows = torch.tensor(story_tokens(3)), torch.tensor([9, 2])
    positions = torch.arange(len(tokens))
    torch.testing.assert_close(
        recall(tokens, positions, causal, logits_at=rows), recall(tokens, positions, causal)[rows]
    )


def test_a_loaded_model_records_no_gradients(recall: Decoder) -> None:
    assert not logits_of(recall, [5, 6]).requires_grad


def test_a_decoder_can_be_made_without_a_checkpoint() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        max_position_embeddings=32,
    )
    model = Decoder(config)
    assert model.checkpoint is None
    assert logits_of(model, [1, 2, 3]).shape == (3, 11)
