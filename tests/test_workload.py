"""Workloads: what is drawn, that it is drawn from the seed, and that vLLM's benchmark can read it."""

import json
import random
from itertools import pairwise
from statistics import fmean

import pytest

from kvpaged.lab.workload import (
    ALPACA,
    CHAT_TURNS,
    FIRST_WORDS,
    PREFIX_WORDS,
    SHARED_PREFIXES,
    SHAREGPT,
    WORDS,
    WORKLOADS,
    Arrival,
    Lengths,
    Traffic,
    chats,
    json_lines,
    poisson,
    prefix,
    stories,
)
from kvpaged.model import load_tokenizer


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_follows_from_its_seed_and_comes_in_order(name: str) -> None:
    arrivals = WORKLOADS[name](50, 3.0, 7)
    assert arrivals == WORKLOADS[name](50, 3.0, 7) != WORKLOADS[name](50, 3.0, 8)
    assert len(arrivals) == 50
    assert [arrival.at for arrival in arrivals] == sorted(arrival.at for arrival in arrivals)
    assert min(arrival.num_words for arrival in arrivals) >= 1
    assert min(arrival.output_tokens for arrival in arrivals) >= 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_word_is_a_token_of_the_recall_model(name: str) -> None:
    tokenizer = load_tokenizer("recall")
    unknown = tokenizer.token_to_id("<unk>")
    for arrival in WORKLOADS[name](12, 3.0, 1):
        tokens = tokenizer.encode(arrival.prompt).ids
        assert unknown not in tokens
        if name != "stories":  # whose full stops are tokens too
            assert len(tokens) == arrival.num_words


def test_poisson_arrivals_come_at_the_rate() -> None:
    times = poisson(4000, 50.0, random.Random(0))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert fmean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert fmean(gap > 1 / 50 for gap in gaps) == pytest.approx(0.368, abs=0.03)  # exp(-1): exponentially distributed


@pytest.mark.parametrize(("traffic", "prompt", "output"), [(SHAREGPT, 161.31, 337.99), (ALPACA, 19.31, 58.45)])
def test_lengths_have_the_means_of_the_paper(traffic: Traffic, prompt: float, output: float) -> None:
    prompts, outputs = zip(*traffic.draw(40_000), strict=True)
    assert fmean(prompts) == pytest.approx(prompt, rel=0.03)
    assert fmean(outputs) == pytest.approx(output, rel=0.03)
    assert max(prompts) <= traffic.prompt.most
    assert max(outputs) <= traffic.output.most


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_the_mean_holds_after_the_cut_whatever_the_spread(spread: float) -> None:
    assert fmean(Lengths(100, spread, 500).draw(40_000, random.Random(0))) == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize("arguments", [(0.5, 1.0, 10), (10, 1.0, 10), (5, 0.0, 10)])
def test_lengths_that_cannot_be_are_refused(arguments: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match=f"lengths with mean {arguments[0]}"):
        Lengths(*arguments)


def test_prefixes_are_shared_and_what_follows_is_not() -> None:
    prompts = [arrival.prompt.split() for arrival in prefix(200, 1.0)]
    assert len({tuple(prompt[:PREFIX_WORDS]) for prompt in prompts}) == SHARED_PREFIXES
    assert len({tuple(prompt) for prompt in prompts}) == 200


def test_a_chat_sends_all_that_was_said_before() -> None:
    arrivals = chats(5 * CHAT_TURNS, 1.0)
    turns = [
        [arrival for arrival in arrivals if arrival.prompt.startswith(opening.prompt)]
        for opening in arrivals
        if not any(opening.prompt.startswith(other.prompt) for other in arrivals if other is not opening)
    ]
    assert [len(chat) for chat in turns] == [CHAT_TURNS] * 5
    for chat in turns:
        for before, after in pairwise(chat):
            assert after.prompt.startswith(before.prompt + " ")
            assert after.num_words > before.num_words + before.output_tokens


def test_stories_come_with_their_answers_and_fewer_stories_begin_alike_more_often() -> None:
    arrivals = stories(100, 5.0, num_stories=3, output_tokens=9)
    assert {arrival.output_tokens for arrival in arrivals} == {9}
    assert len({arrival.prompt.split(" Where")[0].split(" Who")[0][:60] for arrival in arrivals}) == 3
    assert all(arrival.answer.endswith(".") for arrival in arrivals)


def test_json_lines_are_what_vllms_custom_data_set_reads() -> None:
    arrivals = prefix(40, 2.0)
    lines = [json.loads(line) for line in json_lines(arrivals)]
    for line, arrival in zip(lines, arrivals, strict=True):
        assert (line["prompt"], line["output_tokens"]) == (arrival.prompt, arrival.output_tokens)


def test_json_lines_are_a_timed_trace_too_alike_as_far_as_the_prompts_are() -> None:
    arrivals = [*prefix(60, 2.0), *chats(30, 2.0)]
    lines = [json.loads(line) for line in json_lines(arrivals)]
    for line, arrival in zip(lines, arrivals, strict=True):
        assert line["timestamp"] == pytest.approx(arrival.at, abs=1e-3)
        assert line["input_length"] == arrival.num_words
        assert len(line["hash_ids"]) == -(-arrival.num_words // 16)
    for one, other in pairwise(lines):
        words = [line["prompt"].split() for line in (one, other)]
        for index, numbers in enumerate(zip(one["hash_ids"], other["hash_ids"], strict=False)):
            begins = [tuple(each[: 16 * (index + 1)]) for each in words]
            assert (numbers[0] == numbers[1]) == (begins[0] == begins[1])


def test_no_line_is_broken_by_what_a_prompt_says() -> None:
    (line,) = json_lines([Arrival(0.0, 'a "quoted"\nline', 3)])
    assert "\n" not in line
    assert json.loads(line)["prompt"] == 'a "quoted"\nline'


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_of_nothing_or_at_no_rate_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="requests is 0"):
        WORKLOADS[name](0, 1.0, 0)
    with pytest.raises(ValueError, match="rate is 0.0"):
        WORKLOADS[name](1, 0.0, 0)


def test_words_are_told_apart() -> None:
    assert len({*WORDS, *FIRST_WORDS}) == len(WORDS) + len(FIRST_WORDS)
