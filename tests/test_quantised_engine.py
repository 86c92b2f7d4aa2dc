"""Requests on pages of fewer bits: right answers, and the bits that each gets alone on such pages."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kvpaged import PagedKVCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.engine.output import CompletionOutput
from kvpaged.lab.stored import found_last
from kvpaged.model import load_model, load_tokenizer
from kvpaged.model.compute import compute, open_storage
from kvpaged.page import PageStorage
from kvpaged.poison import NAN, PoisonedStorage, PoisonError
from kvpaged.quantised import QuantisedStorage, RewritingStorage, TailStorage, TokenStorage
from kvpaged.recall.text import make_stories, make_story
from kvpaged.tier import RecordFile, Tier, TieredKVCache
from kvpaged.tier.fingerprint import fingerprint
from support.same_bits import BitsEpisode

Open = Callable[..., PageStorage]
MODEL = load_model("recall")
GREEDY = SamplingParams(temperature=0, max_tokens=6, hash_logits=True)
STORIES = make_stories(10, 12)
PROMPTS = [story.text + story.questions[0].prompt for story in STORIES]


class Poisoned(PoisonedStorage, QuantisedStorage):
    """Where pages hold codes, it is scales and tails that can be no numbers."""

    def _spoil(self, page_id: int, first_slot: int) -> None:
        for scales, sharing in zip(self.scales, self.sharing, strict=True):
            if sharing == "token":
                scales[:, page_id, :, first_slot:] = NAN
            elif not first_slot:
                scales[:, page_id] = NAN
        if self.tail_of[page_id] >= 0:
            self.tails[:, :, self.tail_of[page_id], :, first_slot:] = NAN
        self._digests[:, page_id, first_slot:] = 0


class PoisonedTokens(Poisoned, TokenStorage):
    pass


class PoisonedTails(Poisoned, TailStorage):
    pass


def serve(storage: Open, prompts: list[str], params: SamplingParams = GREEDY, **options: int) -> list[CompletionOutput]:
    """All continuations, with the laws checked after every step."""
    engine = Engine(MODEL, **{"num_pages": 512} | options, storage=storage)
    requests = [engine.submit(prompt, params) for prompt in prompts]
    while engine.num_unfinished:
        engine.step()
        engine.check()
    return [branch for request in requests for branch in engine.output(request).outputs]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("answer", [TokenStorage, TailStorage])
def test_stories_are_recalled_from_pages_of_fewer_bits(answer: Open, bits: int) -> None:
    said = [output.text for output in serve(functools.partial(answer, bits=bits), PROMPTS)]
    assert all(text.startswith(story.questions[0].answer) for text, story in zip(said, STORIES, strict=True))


def test_with_two_bits_keys_by_channel_are_recalled_better() -> None:
    stories = [make_story(24, seed=seed) for seed in range(20)]
    prompts = [story.text + story.questions[0].prompt for story in stories]
    right = []
    for answer in (TokenStorage, TailStorage):
        said = [output.text for output in serve(functools.partial(answer, bits=2), prompts)]
        right.append(sum(map(str.startswith, said, [story.questions[0].answer for story in stories])))
    assert right[0] + 4 < right[1] < len(stories)


@pytest.mark.parametrize(
    ("storage", "by_page"),
    [
        (functools.partial(TokenStorage, bits=4), False),
        (functools.partial(TokenStorage, bits=8), False),
        (functools.partial(TailStorage, bits=4), True),
        (functools.partial(TailStorage, bits=2, keys="token", values="channel"), True),
    ],
)
def test_requests_get_the_bits_in_engines_of_any_shape_that_they_get_alone(storage: Open, by_page: bool) -> None:
    """Copies, guesses, forks, preemption; and, where pages do not matter, hits to the token."""
    counts: Counter[str] = Counter()
    for seed in range(8):
        counts += BitsEpisode(seed, storage, by_page).run(num_requests=12)
    assert counts["rows of logits"] > 300
    for what in ("preempted", "guesses that came true", "copies"):
        assert counts[what] > 5, what
    assert (counts["tokens found in the cache"] > 100) == (not by_page)


def logits_after(storage: Open, kept: int, steps: list[list[int]], prefix_caching: bool = True) -> torch.Tensor:
    """Of a prompt whose first `kept` tokens are followed by wrong ones in `steps`, all of them then taken back."""
    tokens = load_tokenizer("recall").encode(PROMPTS[0]).ids[:60]
    opened = open_storage(MODEL, 16, 16, storage)
    cache = PagedKVCache(16, 16, storage=opened, prefix_caching=prefix_caching)
    sequence = cache.sequence(tokens[:kept])
    compute(MODEL, cache, sequence)
    for step in steps:
        for token in step:
            sequence.append(token)
        compute(MODEL, cache, sequence)
    sequence.truncate(kept)
    for token in tokens[kept:]:
        sequence.append(token)
    logits = compute(MODEL, cache, sequence)
    cache.check()
    return logits


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("answer", [TokenStorage, TailStorage])
def test_a_wrong_guess_across_the_end_of_a_page_changes_no_bit(answer: Open, prefix_caching: bool) -> None:
    """Whether it fills page 1 (29 to 31), or begins with page 2 (32): it is taken back before the next step."""
    storage = functools.partial(answer, bits=4)
    for kept in (29, 31, 32):
        guessed = logits_after(storage, kept, [[348, 5, 8, 86]], prefix_caching)
        assert torch.equal(guessed, logits_after(storage, kept, [], prefix_caching)), kept


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_tokens_of_several_steps_are_taken_back_without_a_trace_only_where_no_tail_is_gone(
    prefix_caching: bool,
) -> None:
    """One at a time from 29: the last of them stands behind page 1, whose tail is let go."""
    steps = [[348], [5], [8], [86]]
    for answer, same in ((TokenStorage, True), (TailStorage, False)):
        storage = functools.partial(answer, bits=4)
        after = logits_after(storage, 29, steps, prefix_caching)
        assert torch.equal(after, logits_after(storage, 29, [], prefix_caching)) == same


def test_what_was_found_last_says_what_the_book_says() -> None:
    """Stored by `tools/check_quantised.py` and `benchmarks/quantised.py`."""
    recall, speed = (found_last("quantised")[part] for part in ("recall", "speed"))
    assert recall["stories"] == 1000
    for name, found in recall["found"].items():
        assert (found["right"] == 1000) == ("2 bits" not in name), name
    assert {(each["threads"], each["bytes"] >= 32e6) for each in speed["found"]} == {(1, True), (2, True)}


def test_rewriting_pages_change_the_bits_of_a_request_with_its_company() -> None:
    storage = functools.partial(RewritingStorage, bits=4)
    alone = [serve_unchecked(storage, [prompt], max_batched_tokens=512)[0] for prompt in PROMPTS[:4]]
    together = serve_unchecked(storage, PROMPTS[:4], max_batched_tokens=37)
    assert [output.logits_hash for output in alone] != [output.logits_hash for output in together]


def serve_unchecked(storage: Open, prompts: list[str], **options: int) -> list[CompletionOutput]:
    outputs = Engine(MODEL, 512, storage=storage, **options).generate(prompts, GREEDY)
    return [output.outputs[0] for output in outputs]


def test_rewriting_pages_are_convicted_in_the_engine() -> None:
    with pytest.raises(AssertionError, match=r"law 3: slot \d+ of page \d+ reads otherwise"):
        serve(functools.partial(RewritingStorage, bits=4), PROMPTS[:2], max_batched_tokens=37)


def test_whole_pages_found_in_the_cache_give_the_bits_of_a_request_alone() -> None:
    """Tokens 0 to 95 are told once; each asks another question then."""
    storage = functools.partial(TailStorage, bits=4)
    text = STORIES[0].text
    prompts = [text + f" {asker} looks for the {STORIES[0].facts[1].thing}" for asker in ("Cy", "Ada", "Bo", "Amy")]
    engine = Engine(MODEL, 64, storage=storage)
    first, *others = [engine.generate(prompt, GREEDY)[0] for prompt in prompts]
    alone = [serve_unchecked(storage, [prompt])[0] for prompt in prompts]
    assert [output.num_cached_tokens for output in others] == [96, 96, 96]
    assert [output.outputs[0].logits_hash for output in (first, *others)] == [each.logits_hash for each in alone]
    engine.check()


def test_a_hit_that_ends_inside_a_finished_page_gives_the_bits_of_a_request_alone_only_without_tails() -> None:
    """Alone, a request would read the beginning of that page exact; its exact numbers are gone."""
    story = STORIES[0]
    longer = story.text + story.questions[0].text
    other = " ".join(fact.text for fact in story.facts[:5]) + " Who hid the " + story.facts[0].thing + "?"
    for answer, same in ((TokenStorage, True), (TailStorage, False)):
        storage = functools.partial(answer, bits=4)
        engine = Engine(MODEL, 64, storage=storage)
        engine.generate(longer, GREEDY)
        [found] = engine.generate(other, GREEDY)
        assert found.num_cached_tokens == 40
        [alone] = serve_unchecked(storage, [other])
        assert (found.outputs[0].logits_hash == alone.logits_hash) == same
        assert found.outputs[0].text == alone.text
        engine.check()


@pytest.mark.parametrize("kind", [PoisonedTokens, PoisonedTails])
def test_nothing_is_misused_on_poisoned_pages_of_fewer_bits(kind: Open) -> None:
    storage = functools.partial(kind, bits=4)
    params = SamplingParams(temperature=0.8, seed=3, n=3, max_tokens=12, ignore_eos=True, hash_logits=True)
    plain = serve(functools.partial(kind.__mro__[3], bits=4), PROMPTS[:4], params, prefix_caching=False)
    tight = serve(storage, PROMPTS[:4], params, num_pages=20, num_speculative_tokens=2, prefix_caching=False)
    assert [output.logits_hash for output in tight] == [output.logits_hash for output in plain]


def test_an_engine_has_one_kind_of_pages() -> None:
    with pytest.raises(ValueError, match="leave out one of poisoned and storage"):
        Engine(MODEL, 8, poisoned=True, storage=TokenStorage)


@pytest.mark.parametrize("kind", [TokenStorage, TailStorage])
def test_pages_of_fewer_bits_come_back_from_a_tier_as_they_left(kind: Open, tmp_path: Path) -> None:
    storage = open_storage(MODEL, 16, 8, functools.partial(kind, bits=4))
    tier = Tier(
        RecordFile(tmp_path / "tier", 64, 1000, storage.bytes_per_page), 8, computed_by=fingerprint(MODEL, storage)
    )
    cache = TieredKVCache(16, 8, tier, storage=storage)
    tokens = load_tokenizer("recall").encode(PROMPTS[0]).ids[:60]
    sequence = cache.sequence(tokens)
    before = compute(MODEL, cache, sequence)
    sequence.release()
    cache.outbound.run()
    cache.prefix.clear()
    again = cache.sequence(tokens)
    assert again.num_cached_tokens == 56
    assert torch.equal(compute(MODEL, cache, again), before)
    cache.check()


def test_a_computed_slot_cannot_be_written_again() -> None:
    engine = Engine(MODEL, 8, storage=functools.partial(PoisonedTails, bits=4))
    sequence = engine.cache.sequence([5, 6, 7])
    shape = (1, MODEL.config.num_kv_heads, MODEL.config.head_dim)
    rows = PageStorage(1, 1, 1, *shape[1:]).keys(0)[0].transpose(0, 1)
    storage = engine.cache.storage
    assert isinstance(storage, PageStorage)
    for layer in range(2):
        storage.write(layer, sequence.slot_mapping(0, 3), rows.expand(3, -1, -1), rows.expand(3, -1, -1))
    sequence.mark_computed()
    with pytest.raises(PoisonError, match="law 3"):
        storage.write(0, sequence.slot_mapping(1, 2), rows, rows)
