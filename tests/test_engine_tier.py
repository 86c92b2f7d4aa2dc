"""An engine with a tier: the same tokens and bits, and fewer of them computed twice."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kvpaged.engine import Engine, RequestOutput, SamplingParams
from kvpaged.model import Decoder, load_model
from kvpaged.model.compute import open_storage
from kvpaged.page import PageStorage
from kvpaged.quantised import TailStorage, TokenStorage
from kvpaged.recall.text import ask, make_story
from kvpaged.tier import RecordFile, Store, Tier
from kvpaged.tier.fingerprint import fingerprint

MODEL = load_model("recall")
PARAMS = SamplingParams(max_tokens=6, temperature=0.0, hash_logits=True)
STORIES = [make_story(num_facts=6, seed=seed) for seed in range(6)]
PAGES, SIZE = 24, 8
Open = Callable[..., PageStorage]
BY_TOKEN = functools.partial(TailStorage, keys="token", values="channel")
BY_CHANNEL = functools.partial(TailStorage, keys="channel", values="token")


def tier(folder: Path, model: Decoder = MODEL, storage: Open = PageStorage) -> Tier:
    page = open_storage(model, 1, SIZE, storage)
    return Tier(RecordFile(folder / "tier", 200, 1000, page.bytes_per_page), SIZE, fingerprint(model, page))


def rounds(engine: Engine) -> list[RequestOutput]:
    """All users ask, three at a time, and then again: more than the pool can remember."""
    outputs = []
    for turn in range(3):
        for first in (0, 3):
            prompts = [story.text + ask(story.facts[turn], "where").prompt for story in STORIES[first : first + 3]]
            outputs += engine.generate(prompts, PARAMS)
            engine.cache.check()
    return outputs


def bits(outputs: list[RequestOutput]) -> list[object]:
    return [(each.outputs[0].tokens, each.outputs[0].logits_hash) for each in outputs]


@pytest.mark.parametrize("poisoned", [False, True])
@pytest.mark.parametrize("store", [Store.AT_ONCE, Store.ON_SECOND_USE, Store.WHEN_EVICTED])
def test_with_a_tier_an_engine_finds_more_and_says_the_same_to_the_bit(
    tmp_path: Path, store: Store, poisoned: bool
) -> None:
    without = Engine(MODEL, PAGES, SIZE)
    expected = rounds(without)
    engine = Engine(MODEL, PAGES, SIZE, poisoned=poisoned, tier=tier(tmp_path), store=store)
    assert bits(rounds(engine)) == bits(expected)
    assert engine.metrics().cached_tokens > without.metrics().cached_tokens
    assert engine.cache.tier.num_read > 0


@pytest.mark.parametrize("storage", [TokenStorage, TailStorage])
def test_pages_of_fewer_bits_come_back_with_the_same_bits(tmp_path: Path, storage: type[PageStorage]) -> None:
    expected = bits(rounds(Engine(MODEL, PAGES, SIZE, storage=storage)))
    engine = Engine(MODEL, PAGES, SIZE, storage=storage, tier=tier(tmp_path, storage=storage))
    assert bits(rounds(engine)) == expected
    assert engine.cache.tier.num_read > 0


def test_with_a_tier_a_preempted_request_finds_its_pages_again(tmp_path: Path) -> None:
    prompts = [story.text for story in STORIES]
    params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True, hash_logits=True)
    expected = bits(Engine(MODEL, 200, SIZE).generate(prompts, params))
    engine = Engine(MODEL, PAGES, SIZE, tier=tier(tmp_path))
    assert bits(engine.generate(prompts, params)) == expected
    assert engine.metrics().preemptions > 0
    engine.cache.check()


def test_another_engine_goes_on_with_what_one_has_left_in_the_file(tmp_path: Path) -> None:
    first = Engine(MODEL, PAGES, SIZE, tier=tier(tmp_path))
    rounds(first)
    first.cache.outbound.run()
    [output] = Engine(MODEL, PAGES, SIZE, tier=tier(tmp_path)).generate([STORIES[0].text + " Where is it?"], PARAMS)
    assert output.num_cached_tokens == 48


def test_a_tier_of_other_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of these weights, and torch.float32: open it with computed_by="):
        Engine(MODEL, PAGES, SIZE, tier=Tier(tier(tmp_path).records, SIZE))


EQUALLY_LARGE = [
    (BY_TOKEN, BY_CHANNEL),
    (functools.partial(TailStorage, keys="token"), TokenStorage),
    (functools.partial(BY_TOKEN, bits=4), functools.partial(BY_CHANNEL, bits=4)),
]


@pytest.mark.parametrize(("one", "other"), EQUALLY_LARGE)
def test_a_tier_of_pages_of_another_kind_is_refused(tmp_path: Path, one: Open, other: Open) -> None:
    with pytest.raises(ValueError, match="its pages are of these weights, and T[a-z]*Storage, [84] bits, scales"):
        Engine(MODEL, PAGES, SIZE, storage=other, tier=tier(tmp_path, storage=one))


@pytest.mark.parametrize(("one", "other"), EQUALLY_LARGE)
def test_pages_of_another_kind_in_the_file_are_misses_and_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, one: Open, other: Open
) -> None:
    first = Engine(MODEL, PAGES, SIZE, storage=one, tier=tier(tmp_path, storage=one))
    first.generate([STORIES[0].text], PARAMS)
    first.cache.outbound.run()
    written = first.cache.tier.num_written
    with caplog.at_level(logging.WARNING):
        second = Engine(MODEL, PAGES, SIZE, storage=other, tier=tier(tmp_path, storage=other))
    [line] = caplog.messages
    assert line == f"{written} pages in {tmp_path / 'tier'} are of other weights, or of another kind: misses"
    [output] = second.generate([STORIES[0].text], PARAMS)
    assert (written, output.num_cached_tokens) == (len(output.prompt_tokens) // SIZE, 0)
    [alone] = Engine(MODEL, PAGES, SIZE, storage=other).generate([STORIES[0].text], PARAMS)
    assert bits([output]) == bits([alone])


def test_weights_that_change_are_noticed_although_only_the_tier_holds_pages(tmp_path: Path) -> None:
    model = load_model("recall")
    engine = Engine(model, PAGES, SIZE, tier=tier(tmp_path, model))
    engine.generate([STORIES[0].text], PARAMS)
    engine.cache.outbound.run()
    engine.cache.prefix.clear()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    with pytest.raises(ValueError, match="another model, or of other weights"):
        engine.generate([STORIES[0].text], PARAMS)


def test_a_tier_without_a_prefix_cache_and_an_unknown_moment_to_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out one of tier and prefix_caching=False"):
        Engine(MODEL, PAGES, SIZE, prefix_caching=False, tier=tier(tmp_path))
    with pytest.raises(ValueError, match="'sometimes' is not a valid Store"):
        Engine(MODEL, PAGES, SIZE, tier=tier(tmp_path), store="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="poisoned is 'yes'; it must be True or False"):
        Engine(MODEL, PAGES, SIZE, poisoned="yes")  # type: ignore[arg-type]


def test_the_moment_to_store_may_be_named_in_words(tmp_path: Path) -> None:
    engine = Engine(MODEL, PAGES, SIZE, tier=tier(tmp_path), store="at once")  # type: ignore[arg-type]
    rounds(engine)
    assert len(engine.cache.tier) > 0  # type: ignore[attr-defined]
