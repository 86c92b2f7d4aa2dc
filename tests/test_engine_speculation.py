"""Speculation by prompt lookup: guesses cost nothing but time, and wrong ones leave no trace."""

import pytest

from kvpaged import EventLog
from kvpaged.engine import Engine, SamplingParams
from kvpaged.engine.speculation import PromptLookup
from kvpaged.model import load_model
from kvpaged.recall.text import ask, make_story

pytestmark = pytest.mark.usefixtures("poisoned_engines")

MODEL = load_model("recall")
STORY = make_story(6, seed=4)
# Each question again, so that its answer was said before with the same words.
PHRASES = STORY.text + "".join(ask(fact).text for fact in STORY.facts) + ask(STORY.facts[2]).prompt


def test_a_lookup_proposes_what_followed_the_longest_run_that_was_said_before() -> None:
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2) == [9, 2]  # 1 2 3 was said once, 2 3 later too
    assert lookup.propose([1, 2, 3, 9, 2, 3, 8, 1, 2, 3, 7, 2, 3], 5) == [7, 2, 3]
    assert lookup.propose([1, 2, 3, 9, 2, 3, 8, 1, 2, 3, 7, 2, 3, 5], 3) == []


def test_a_lookup_needs_two_tokens_that_agree() -> None:
    assert PromptLookup().propose([4], 3) == []
    assert PromptLookup().propose([4, 5, 6, 4], 3) == []
    assert PromptLookup().propose([4, 4, 4, 4], 3) == [4]


@pytest.mark.parametrize("num_speculative_tokens", [1, 2, 5, 12])
def test_greedy_and_sampled_tokens_are_the_same_with_speculation_and_without(num_speculative_tokens: int) -> None:
    kinds = [
        SamplingParams(temperature=0, max_tokens=40, ignore_eos=True),
        SamplingParams(temperature=0, max_tokens=40),
        SamplingParams(temperature=1.2, seed=5, max_tokens=40, ignore_eos=True, n=2),
    ]
    plain = Engine(MODEL, 128, 4).generate([PHRASES] * 3, kinds)
    guessing = Engine(MODEL, 128, 4, num_speculative_tokens=num_speculative_tokens)
    outputs = guessing.generate([PHRASES] * 3, kinds)
    assert [output.outputs for output in outputs] == [output.outputs for output in plain]
    metrics = guessing.metrics()
    assert metrics.draft_tokens > metrics.accepted_tokens > 0
    guessing.cache.check()


def test_right_guesses_save_steps() -> None:
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    steps = []
    for num_speculative_tokens in (0, 6):
        engine = Engine(MODEL, 128, 4, num_speculative_tokens=num_speculative_tokens)
        engine.generate(PHRASES, params)
        steps.append(engine.metrics().steps)
    assert steps[1] < 0.7 * steps[0]


def test_a_wrong_guess_never_reaches_the_prefix_cache() -> None:
    events = EventLog()
    # Pages of one token: each that is computed is cached.
    engine = Engine(MODEL, 256, 1, num_speculative_tokens=8, events=events)
    output = engine.generate(PHRASES, SamplingParams(temperature=1.5, seed=2, max_tokens=30, ignore_eos=True))[0]
    said = output.prompt_tokens + output.outputs[0].tokens
    assert any(event.kind == "truncate" for event in events)
    assert len(engine.cache.prefix) == len(said) - 1
    assert engine.cache.prefix.match(said).num_tokens == len(said) - 1


def test_guessing_takes_nobodys_pages_and_stays_within_the_budget_and_max_tokens() -> None:
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    need = -(-(len(Engine(MODEL, 1).tokenizer.encode(PHRASES).ids) + 23) // 4)
    engine = Engine(MODEL, need, 4, num_speculative_tokens=7, max_batched_tokens=5)
    output = engine.generate(PHRASES, params)[0].outputs[0]
    assert len(output.tokens) == 24
    assert max(record.tokens for record in engine.history) <= 5
    assert engine.metrics().preemptions == 0
