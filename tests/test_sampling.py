"""Sampling: what a request may ask for, how tokens are drawn, and that nothing but the request's seed decides."""

import math
from collections import Counter

import pytest
import torch

from kvpaged.engine import BeamSearchParams, Engine, SamplingParams
from kvpaged.engine.sampler import Draw, draw, uniform
from kvpaged.model import load_model
from kvpaged.recall.text import ask, make_story

MODEL = load_model("recall")
STORY = make_story(3, seed=1)
OPEN_END = STORY.text  # many tokens are likely next: a name, a question


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"n": 1.5}, "n is 1.5; it must be a whole number"),
        ({"n": 2, "temperature": 0}, "n is 2, but temperature 0 gives the same continuation each time"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan; it must be a finite number"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_p": 0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"top_k": -2}, "top_k is -2; it must be at least -1"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"max_tokens": -3}, "max_tokens is -3"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"seed": "7"}, "seed is '7'; it must be a whole number"),
        ({"stop": ""}, "stop is ''; it must be a string or several, none of them empty"),
        ({"stop": ["a", ""]}, "none of them empty"),
        ({"stop_token_ids": [3, -1]}, "each of stop_token_ids is -1"),
    ],
)
def test_parameters_that_no_request_can_have_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_width": 0}, "beam_width is 0; it must be at least 1"),
        ({"beam_width": 9}, "beam_width is 9; it must be at most 8"),
        ({"beam_width": 2, "max_tokens": 0}, "max_tokens is 0"),
        ({"beam_width": 2, "length_penalty": math.inf}, "length_penalty is inf"),
    ],
)
def test_beams_that_no_request_can_have_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearchParams(**values)


def test_the_defaults_are_those_of_vllm() -> None:
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.max_tokens) == (1, 1.0, 1.0, 0, 16)
    assert (params.seed, params.logprobs, params.stop, params.stop_token_ids) == (None, None, (), ())
    assert SamplingParams(stop="x").stop == ("x",)


def kept(logits: list[float], temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The slow oracle: tokens that may be drawn, with their probabilities."""
    weights = {token: math.exp(logit / temperature) for token, logit in enumerate(logits)}
    ranked = sorted(weights, key=lambda token: (-weights[token], token))
    ranked = ranked[:top_k] if top_k > 0 else ranked
    total = sum(weights[token] for token in ranked)
    chosen, mass = [], 0.0
    for token in ranked:
        if mass >= top_p:
            break
        chosen.append(token)
        mass += weights[token] / total
    total = sum(weights[token] for token in chosen)
    return {token: weights[token] / total for token in chosen}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (-1, 1.0), (1, 1.0), (5, 1.0), (0, 0.5), (7, 0.8), (0, 1e-9)])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature: float, top_k: int, top_p: float) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(2, 12)
    logits[0, 3] = logits[0, 5]  # a tie
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    points = [(each + 0.5) / 4000 for each in range(4000)]
    for row in (0, 1):
        expected = kept(logits[row].tolist(), temperature, top_k, top_p)
        counts = Counter(draw(logits, [Draw(row, params, point) for point in points]))
        assert set(counts) <= set(expected)
        for token, probability in expected.items():
            assert counts[token] / 4000 == pytest.approx(probability, abs=2 / 4000)


def test_the_ends_of_the_unit_interval_draw_tokens_that_may_be_drawn() -> None:
    logits = torch.tensor([[-1e9, 0.0, 1.0, -1e9]])
    params = SamplingParams(temperature=0.01)
    assert draw(logits, [Draw(0, params, 0.0), Draw(0, params, 1 - 2**-53)]) in ([1, 2], [2, 2])


def test_what_is_drawn_for_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 50)
    kinds = [SamplingParams(), SamplingParams(top_k=5), SamplingParams(top_p=0.5, temperature=2.0)] * 2
    draws = [Draw(row, params, uniform(7, 0, row)) for row, params in enumerate(kinds)]
    assert draw(logits, draws) == [draw(logits, [each])[0] for each in draws]


def test_random_numbers_are_spread_evenly_and_follow_from_seed_sample_and_position_alone() -> None:
    numbers = [uniform(seed, index, position) for seed in (0, 1, -5) for index in range(10) for position in range(100)]
    assert len(set(numbers)) == 3000
    assert all(0 <= number < 1 for number in numbers)
    for decile in range(10):
        assert 240 < sum(decile <= 10 * number < decile + 1 for number in numbers) < 360
    assert uniform(1, 2, 3) == numbers[1000 + 200 + 3]


def sampled(engine: Engine, seed: int, **values: object) -> list[list[int]]:
    output = engine.generate(OPEN_END, SamplingParams(seed=seed, temperature=1.3, max_tokens=8, **values))[0]
    return [each.tokens for each in output.outputs]


@pytest.mark.parametrize("seed", range(12))
def test_sampled_tokens_follow_from_the_seed_alone_whatever_runs_beside(seed: int) -> None:
    expected = sampled(Engine(MODEL, 64, 4), seed)[0]
    noisy = Engine(MODEL, 24, 4, max_batched_tokens=5 + seed, num_speculative_tokens=seed % 4)
    others = [noisy.submit(OPEN_END, SamplingParams(max_tokens=12)) for _ in range(seed % 5)]
    assert sampled(noisy, seed)[0] == expected
    assert sampled(noisy, seed, n=3)[0] == expected
    for other in others:
        noisy.cancel(other)


def test_other_seeds_and_no_seed_give_other_tokens() -> None:
    engine = Engine(MODEL, 64, 4)
    assert len({tuple(sampled(engine, seed)[0]) for seed in range(8)}) > 2
    unseeded = engine.generate([OPEN_END] * 8, SamplingParams(temperature=1.3))
    assert len({tuple(output.outputs[0].tokens) for output in unseeded}) > 2


@pytest.mark.parametrize("num_pages", [12, 16, 64])
def test_parallel_samples_survive_preemption_and_differ(num_pages: int) -> None:
    engine = Engine(MODEL, num_pages, 4)
    request = engine.submit(OPEN_END, SamplingParams(n=5, seed=3, temperature=2.0, max_tokens=12, ignore_eos=True))
    while engine.num_unfinished:
        engine.step()
        engine.cache.check()
    tokens = [each.tokens for each in engine.output(request).outputs]
    assert (engine.metrics().preemptions > 0) == (num_pages < 64)
    roomy = Engine(MODEL, 256, 16).generate(OPEN_END, request.params)[0]
    assert tokens == [each.tokens for each in roomy.outputs]
    assert [each.index for each in roomy.outputs] == [0, 1, 2, 3, 4]
    assert len({tuple(each) for each in tokens}) > 1


def test_parallel_samples_compute_the_prompt_once_and_share_its_pages() -> None:
    engine = Engine(MODEL, 64, 4)
    output = engine.generate(OPEN_END, SamplingParams(n=4, seed=0, max_tokens=2, ignore_eos=True))[0]
    prompt = len(output.prompt_tokens)
    assert output.metrics.computed_tokens == prompt + 4
    assert engine.metrics().peak_pages == prompt // 4 + 4


def test_logprobs_name_the_likeliest_tokens_and_the_one_chosen() -> None:
    engine = Engine(MODEL, 64, 4)
    output = engine.generate(OPEN_END, SamplingParams(seed=1, temperature=5.0, logprobs=2, max_tokens=6))[0].outputs[0]
    assert len(output.logprobs) == len(output.tokens)
    for token, found in zip(output.tokens, output.logprobs, strict=True):
        assert token in found
        assert len(found) in (2, 3)
        assert sorted(found.values())[-1] >= found[token]
    chosen = [found[token] for token, found in zip(output.tokens, output.logprobs, strict=True)]
    assert output.cumulative_logprob == pytest.approx(sum(chosen))
    plain = engine.generate(OPEN_END, SamplingParams(temperature=0))[0].outputs[0]
    assert (plain.logprobs, plain.cumulative_logprob) == (None, None)


def test_logprobs_are_those_of_the_model_before_temperature() -> None:
    prompt = STORY.text + ask(STORY.facts[0]).prompt
    engine = Engine(MODEL, 64, 4)
    everything = MODEL.config.vocab_size
    hot, cold = (
        engine.generate(prompt, SamplingParams(temperature=temperature, seed=0, logprobs=everything, max_tokens=1))[0]
        for temperature in (0.0, 9.0)
    )
    first, other = hot.outputs[0].logprobs[0], cold.outputs[0].logprobs[0]
    assert first == pytest.approx(other, abs=1e-4)
    assert sum(map(math.exp, first.values())) == pytest.approx(1)
