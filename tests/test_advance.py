"""The end of a step without a model: logits made by hand, and what each branch is given by them."""

from hashlib import blake2b

import pytest
import torch
from torch import Tensor

from kvpaged.engine import BeamSearchParams, SamplingParams
from kvpaged.engine.advance import advance, end
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampler import Draw, draw, uniform
from kvpaged.engine.scheduler import Scheduler
from kvpaged.model import load_tokenizer
from support.scheduling import GREEDY, new_request, new_scheduler, waiting

VOCABULARY = 12


def likely(*tokens: int) -> Tensor:
    """For each token a row of logits that makes it the likeliest; no two rows are alike."""
    logits = torch.linspace(0, 1, len(tokens) * VOCABULARY).view(-1, VOCABULARY)
    logits[range(len(tokens)), list(tokens)] = 5.0
    return logits


def step(scheduler: Scheduler, logits: Tensor) -> list[Request]:
    """Run a step whose pass gives these logits; who ended by it."""
    return advance(scheduler.schedule(), logits, scheduler, scheduler._counters)


def begun(*requests: Request, budget: int = 64, guesses: int = 0) -> Scheduler:
    scheduler = new_scheduler(budget=budget, guesses=guesses)
    waiting(scheduler, *requests)
    return scheduler


def test_a_prompt_gets_its_token_when_all_of_it_is_computed_and_not_before() -> None:
    first, second = new_request(0, range(4)), new_request(1, range(20, 25))
    scheduler = begun(first, second, budget=6)
    assert step(scheduler, likely(7)) == []
    [one], [other] = first.branches, second.branches
    assert (one.output, other.output) == ([7], [])
    assert one.sequence is not None
    assert other.sequence is not None
    assert (one.sequence.num_computed, other.sequence.num_computed) == (4, 2)
    assert (first.metrics.computed_tokens, second.metrics.computed_tokens) == (4, 2)
    assert first.metrics.first_token is not None
    assert second.metrics.first_token is None
    began = first.metrics.first_token
    assert step(scheduler, likely(8, 9)) == []
    assert (one.output, other.output) == ([7, 8], [9])
    assert (first.metrics.computed_tokens, second.metrics.computed_tokens) == (5, 5)
    assert first.metrics.first_token == began
    assert scheduler._counters.generated_tokens == 3


def test_who_computes_a_part_of_its_prompt_takes_no_row_of_the_logits() -> None:
    first, second = new_request(0, range(4)), new_request(1, range(20, 25))
    scheduler = begun(first, second, budget=6)
    advance(scheduler.schedule()[::-1], likely(7), scheduler, scheduler._counters)
    assert (first.branches[0].output, second.branches[0].output) == ([7], [])


def test_samples_fork_where_their_prompt_ends_and_each_draws_with_its_own_number() -> None:
    params = SamplingParams(n=3, seed=4, ignore_eos=True)
    other, request = new_request(0, range(20, 25)), new_request(1, range(6), params)
    scheduler = begun(other, request)
    logits = likely(9, 3) / 3
    assert step(scheduler, logits) == []
    expected = draw(logits, [Draw(1, params, uniform(4, index, 0)) for index in range(3)])
    assert [branch.output for branch in request.branches] == [[token] for token in expected]
    assert [branch.index for branch in request.branches] == [0, 1, 2]
    assert other.branches[0].output == [9]
    assert scheduler.running == [*other.branches, *request.branches]
    scheduler.check([other, request])
    logits = likely(4, 1, 2, 3) / 3
    step(scheduler, logits)
    expected = draw(logits, [Draw(1 + index, params, uniform(4, index, 1)) for index in range(3)])
    assert [branch.output[1] for branch in request.branches] == expected


REPEATING = [1, 2, 3] * 5


def guessed(params: SamplingParams = GREEDY, max_tokens: int = 20) -> tuple[Scheduler, Request]:
    """A request whose first token is 1, so that 2, 3 and 1 are guessed for what follows."""
    request = new_request(0, REPEATING, params, max_tokens)
    scheduler = begun(request, guesses=3)
    step(scheduler, likely(1))
    assert request.branches[0].output == [1]
    return scheduler, request


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        ([2, 3, 1, 8], [2, 3, 1, 8]),
        ([2, 3, 9, 8], [2, 3, 9]),
        ([2, 9, 1, 8], [2, 9]),
        ([9, 3, 1, 8], [9]),
    ],
)
def test_guesses_are_kept_as_far_as_they_are_right_and_one_more_is_given(rows: list[int], given: list[int]) -> None:
    scheduler, request = guessed()
    assert step(scheduler, likely(*rows)) == []
    [branch] = request.branches
    assert branch.output == [1, *given]
    assert branch.sequence is not None
    assert branch.sequence.tokens == [*REPEATING, 1, *given[:-1]]
    assert branch.sequence.num_computed == len(branch.sequence)
    counters = scheduler._counters
    assert (counters.draft_tokens, counters.accepted_tokens) == (3, len(given) - 1)
    assert counters.generated_tokens == 1 + len(given)
    scheduler.cache.check()


def test_drafts_are_counted_over_all_steps() -> None:
    scheduler, _ = guessed()
    step(scheduler, likely(2, 3, 1, 2))
    step(scheduler, likely(3, 1, 2, 3))
    counters = scheduler._counters
    assert (counters.draft_tokens, counters.accepted_tokens) == (6, 6)


def test_guesses_are_drawn_each_with_the_number_of_its_place() -> None:
    params = SamplingParams(seed=4, ignore_eos=True)
    request = new_request(0, REPEATING, params)
    scheduler = begun(request, guesses=3)
    step(scheduler, 10 * likely(1))
    logits = 10 * likely(2, 3, 1, 8)
    logits[3] = 0.0  # so that any token is as likely
    step(scheduler, logits)
    expected = draw(logits, [Draw(3, params, uniform(4, 0, 4))])
    assert request.branches[0].output == [1, 2, 3, 1, *expected]


def test_log_probabilities_are_of_each_token_given_and_add_up() -> None:
    scheduler, request = guessed(SamplingParams(temperature=0, ignore_eos=True, logprobs=2))
    logits = likely(2, 3, 9, 8)
    step(scheduler, logits)
    [branch] = request.branches
    assert branch.output == [1, 2, 3, 9]
    assert [len(each) for each in branch.logprobs] == [2, 2, 2, 2]
    of_tokens = torch.log_softmax(logits.double(), dim=-1)[range(3), [2, 3, 9]].tolist()
    assert [each[token] for each, token in zip(branch.logprobs[1:], [2, 3, 9], strict=True)] == of_tokens
    assert branch.cumulative_logprob == pytest.approx(branch.logprobs[0][1] + sum(of_tokens), rel=1e-12)


def test_logits_are_hashed_as_far_as_they_led_to_a_token() -> None:
    scheduler, request = guessed(SamplingParams(temperature=0, ignore_eos=True, hash_logits=True))
    logits = likely(2, 9, 1, 8)
    step(scheduler, logits)
    hashed = blake2b(likely(1).numpy().tobytes() + logits[:2].numpy().tobytes(), digest_size=8)
    assert request.branches[0].logits_hash.hexdigest() == hashed.hexdigest()


def test_logits_are_not_hashed_for_who_does_not_ask() -> None:
    scheduler, request = guessed()
    assert request.branches[0].logits_hash.hexdigest() == blake2b(digest_size=8).hexdigest()
    assert request.branches[0].logprobs == []
    assert request.branches[0].cumulative_logprob == 0
    assert scheduler.running == request.branches


@pytest.mark.parametrize(
    ("rows", "output", "reasons"),
    [
        ([2, 6, 1, 8], [1, 2, 6], ("stop", 6)),
        ([2, 3, 1, 8], [1, 2, 3, 1], ("length", None)),
    ],
)
def test_a_request_ends_where_its_end_stands_among_the_guesses(
    rows: list[int], output: list[int], reasons: tuple[str, int | None]
) -> None:
    params = SamplingParams(temperature=0, ignore_eos=True, stop_token_ids=[6])
    scheduler, request = guessed(params, max_tokens=4)
    assert step(scheduler, likely(*rows)) == [request]
    [branch] = request.branches
    assert branch.output == output
    assert (branch.finish_reason, branch.stop_reason) == reasons
    assert (scheduler.running, branch.sequence) == ([], None)


def test_the_models_own_end_is_no_reason_to_name() -> None:
    request = Request(0, 0, None, [1, 2], SamplingParams(temperature=0), frozenset({5}), 9, None, None)
    assert step(begun(request), likely(5)) == [request]
    assert (request.branches[0].finish_reason, request.branches[0].stop_reason) == ("stop", None)


def test_a_request_of_several_samples_ends_with_the_last_of_them() -> None:
    params = SamplingParams(n=2, temperature=0.01, ignore_eos=True, stop_token_ids=[6])
    request = new_request(0, range(4), params)
    scheduler = begun(request)
    step(scheduler, likely(3))
    assert step(scheduler, likely(6, 4)) == []
    assert step(scheduler, likely(6)) == [request]
    assert [branch.output for branch in request.branches] == [[3, 6], [3, 4, 6]]


@pytest.mark.parametrize("params", [GREEDY, BeamSearchParams(beam_width=2, max_tokens=8)])
def test_logits_that_are_no_numbers_end_their_request_and_no_other(params: SamplingParams | BeamSearchParams) -> None:
    first, broken, third = new_request(0, range(4)), new_request(1, range(20, 24), params), new_request(2, [7, 7])
    scheduler = begun(first, broken, third)
    logits = likely(3, 4, 5)
    logits[1, 0] = float("nan")
    assert step(scheduler, logits) == [broken]
    assert (first.branches[0].output, third.branches[0].output) == ([3], [5])
    assert broken.branches[0].finish_reason == "error"
    assert broken.error == "ValueError: the model's logits are no numbers to choose by: the largest is nan"
    assert scheduler.running == [first.branches[0], third.branches[0]]
    scheduler.check([first, third])


def test_logits_behind_a_guess_must_be_numbers_too() -> None:
    other, request = new_request(0, [7, 8]), new_request(1, REPEATING)
    scheduler = begun(other, request, guesses=3)
    step(scheduler, likely(9, 1))
    logits = likely(9, 2, 3, 1, 8)
    logits[2, 0] = float("inf")
    assert step(scheduler, logits) == [request]
    assert request.branches[0].finish_reason == "error"
    assert (scheduler.running, other.branches[0].output) == (other.branches, [9, 9])


def test_a_text_ends_where_a_stop_string_is_complete() -> None:
    tokenizer = load_tokenizer("recall")
    tokens = tokenizer.encode("the coin in the attic.").ids
    params = SamplingParams(temperature=0, stop=["the attic"], ignore_eos=True)
    request = Request(0, 0, None, tokens[:2], params, frozenset(), 20, None, tokenizer)
    scheduler, logits = begun(request), torch.zeros(1, max(tokens) + 1)
    for token in tokens[2:-2]:
        assert step(scheduler, logits.index_fill(1, torch.tensor(token), 5.0)) == []
    assert step(scheduler, logits.index_fill(1, torch.tensor(tokens[-2]), 5.0)) == [request]
    assert (request.branches[0].finish_reason, request.branches[0].stop_reason) == ("stop", "the attic")
    assert request.branches[0].output == tokens[2:-1]


def test_beams_get_their_next_generation_and_each_token_is_counted() -> None:
    request = new_request(0, range(4), BeamSearchParams(beam_width=2, max_tokens=2), max_tokens=2)
    scheduler = begun(request)
    assert step(scheduler, likely(3)) == []
    assert [branch.output for branch in request.branches] == [[3], [11]]
    assert scheduler._counters.generated_tokens == 2
    assert step(scheduler, likely(4, 5)) == [request]
    assert request.branches[0].output == [3, 4]
    assert scheduler._counters.generated_tokens == 2, "what ends with the length is no beam that goes on"


def test_who_is_cancelled_ends_with_abort_and_what_had_ended_keeps_its_reason() -> None:
    request = new_request(0, range(4))
    scheduler = begun(request)
    step(scheduler, likely(3))
    request.branches.append(Branch(request, 1))
    request.branches[1].finish_reason = "length"
    end(request, scheduler)
    assert [branch.finish_reason for branch in request.branches] == ["abort", "length"]
    assert (request.error, scheduler.running, scheduler.cache.sequences) == (None, [], set())


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyError("a\nb"), "KeyError: 'a\\nb'"), (ValueError("one\ntwo"), "ValueError: one"), (OSError(), "OSError")],
)
def test_who_ends_by_an_error_is_told_its_kind_and_first_line(error: Exception, told: str) -> None:
    request = new_request(0, range(4))
    scheduler = begun(request)
    end(request, scheduler, error)
    assert (request.error, request.branches[0].finish_reason) == (told, "error")
    assert scheduler.waiting == []
