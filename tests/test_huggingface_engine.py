"""Unmodified transformers models in the engine; and those that pages cannot serve, refused with the reason."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from kvpaged import PagedKVCache
from kvpaged.adapters.huggingface import HuggingFaceModel
from kvpaged.engine import BeamSearchParams, Engine, SamplingParams
from kvpaged.model import load_model
from kvpaged.model.compute import compute, open_storage
from kvpaged.page import PageStorage
from support.small_models import ARCHITECTURES, build, generate, padded, prompts, served

TEXTS = prompts(100, seed=1)
GREEDY = SamplingParams(temperature=0, max_tokens=16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_engine_gives_100_random_prompts_the_tokens_of_generate(architecture: str) -> None:
    model = served(architecture)
    engine = Engine(model, num_pages=400, page_size=4, max_batched_tokens=64, num_speculative_tokens=2)
    outputs = engine.generate(TEXTS, GREEDY)
    assert [output.outputs[0].tokens for output in outputs] == generate(model.model, padded(TEXTS))
    assert max(record.tokens for record in engine.history) > 32
    engine.cache.check()


def test_decode_steps_of_the_engine_gather_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(served("gpt2"), num_pages=400, page_size=4)
    for text in TEXTS[:20]:
        engine.submit(text, GREEDY)
    engine.step()
    monkeypatch.setattr(PageStorage, "read", None)
    while engine.num_unfinished:
        engine.step()
    assert engine.metrics().generated_tokens == 20 * 16


def test_requests_share_their_prefix_and_samples_their_prompt() -> None:
    model, story = served("qwen3"), prompts(1, seed=2, shortest=21, longest=21)[0]
    engine = Engine(model, num_pages=400, page_size=4)
    engine.generate(story, GREEDY)
    texts = [[*story, token] for token in (3, 4, 5)]
    outputs = engine.generate(texts, SamplingParams(n=4, seed=5, max_tokens=8))
    assert [output.num_cached_tokens for output in outputs] == [21, 21, 21]
    assert engine.metrics().copies >= 3 * 3  # samples that part inside a page
    alone = Engine(model, num_pages=400, page_size=4, prefix_caching=False)
    for text, output in zip(texts, outputs, strict=True):
        expected = alone.generate(text, SamplingParams(n=4, seed=5, max_tokens=8))[0]
        assert [each.tokens for each in output.outputs] == [each.tokens for each in expected.outputs]


def test_the_engine_searches_with_beams() -> None:
    model, text = served("gpt_neox"), TEXTS[0]
    engine = Engine(model, num_pages=400, page_size=4)
    [output] = engine.generate(text, BeamSearchParams(beam_width=4, max_tokens=10))
    assert output.outputs[0].tokens == generate(model.model, padded([text]), num_beams=4, max_new_tokens=10)[0]


def test_several_tokens_may_end_a_text() -> None:
    model = build("llama")
    unbound = generate(model, padded([TEXTS[0]]))[0]
    model.generation_config.eos_token_id = [96, unbound[5]]
    engine = Engine(HuggingFaceModel(model), num_pages=40, page_size=4)
    [output] = engine.generate(TEXTS[0], GREEDY)
    assert output.outputs[0].tokens == unbound[: unbound.index(unbound[5]) + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", None)


def test_a_score_may_be_scaled_otherwise_than_by_the_width_of_a_head() -> None:
    model = build("gpt2", scale_attn_by_inverse_layer_idx=True)
    engine = Engine(HuggingFaceModel(model), num_pages=400, page_size=4)
    found = [output.outputs[0].tokens for output in engine.generate(TEXTS[:30], GREEDY)]
    assert found == generate(model, padded(TEXTS[:30]))


def test_the_recall_model_is_the_same_through_transformers_as_through_our_decoder() -> None:
    ours = load_model("recall")
    theirs = HuggingFaceModel(
        AutoModelForCausalLM.from_pretrained(ours.checkpoint, dtype=torch.float32), ours.checkpoint
    )
    for name in ("vocab_size", "num_layers", "num_kv_heads", "head_dim", "max_position_embeddings", "eos_token_ids"):
        assert getattr(theirs.config, name) == getattr(ours.config, name)
    text = "Ada hid the coin in the attic. Bo hid the map under the bed. Where is the coin?"
    for model in (ours, theirs):
        assert Engine(model, 64).generate(text)[0].outputs[0].text.strip() == "In the attic."


def test_the_model_outside_the_engine_is_as_it_was() -> None:
    model, inputs = build("phi"), padded(TEXTS[:10])
    with torch.inference_mode():
        before = model(**inputs).logits
        HuggingFaceModel(model)
        assert model.config._attn_implementation == "kvpaged"
        torch.testing.assert_close(model(**inputs).logits, before)


def test_a_model_whose_attention_was_set_back_is_not_run_on_pages() -> None:
    model = HuggingFaceModel(build("llama"))
    model.model.set_attn_implementation("sdpa")
    cache = PagedKVCache(8, 4, storage=open_storage(model, 8, 4))
    with pytest.raises(RuntimeError, match="attention is 'sdpa', which cannot read pages: call model.set_attn_impl"):
        compute(model, cache, cache.sequence([1, 2, 3]))


class Biased(torch.nn.Module):
    """Distorts what a layer reads by the number of tokens it sees: no causal attention does that."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor, **arguments: Any) -> Any:
        mask = arguments["attention_mask"]
        return self.inner(hidden if mask is None else hidden * 1.5, **arguments)


def _biased() -> PreTrainedModel:
    model = build("llama")
    model.model.layers[0] = Biased(model.model.layers[0])
    return model


def _translator() -> PreTrainedModel:
    config = T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_translator, "it has cross-attention, whose keys and values belong to another text"),
        (lambda: build("gpt2", add_cross_attention=True), "it has cross-attention, whose keys and values belong to"),
        (
            lambda: build("mamba", state_size=4),
            "it keeps a recurrent state, which has no keys and values for each token",
        ),
        (lambda: build("qwen3_next", num_key_value_heads=2), "it keeps a recurrent state"),
        (
            lambda: build("bloom"),
            "it computes attention by itself, where transformers' AttentionInterface cannot reach",
        ),
        (lambda: build("gemma2", head_dim=16, num_key_value_heads=2), "layer 0 has a soft cap on scores"),
        (lambda: build("gpt_oss", num_key_value_heads=2, head_dim=16), "layer 0 has attention sinks"),
        (lambda: build("deepseek_v3"), "layer 0 has keys of 192 numbers and values of 128"),
        (lambda: build("llama").train(), "it is in training mode"),
        (lambda: build("llama").double(), "it computes in torch.float64; pages hold torch.float32"),
        (
            lambda: build("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
            "dynamic RoPE",
        ),
        (_biased, "ordinary causal attention changes its logits by"),
    ],
)
def test_a_model_that_pages_cannot_serve_is_refused_with_the_reason(make: Any, reason: str) -> None:
    model = make()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=f"{type(model).__name__} cannot be served from pages: .*{reason}") as error:
        HuggingFaceModel(model)
    assert "\n" not in str(error.value)
    assert model.config._attn_implementation == before
