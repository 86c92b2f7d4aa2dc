"""The scheduler without a model: who computes what, who waits, who is preempted, and what that leaves behind."""

import re
from collections.abc import Hashable, Sequence

import pytest

from kvpaged import OutOfPages, PagedKVCache
from kvpaged.engine import BeamSearchParams, Params, SamplingParams
from kvpaged.engine.batch import Chunk
from kvpaged.engine.metrics import Counters
from kvpaged.engine.request import Branch
from kvpaged.engine.scheduler import Scheduler
from support.scheduling import GREEDY, compute, new_request, new_scheduler, spans, waiting

REPEATING = [1, 2, 3] * 5  # what follows its last words was said before


# --- seats ------------------------------------------------------------------------------------------------------


def test_a_fork_runs_on_the_last_seat_and_waits_without_pages_when_there_is_none() -> None:
    scheduler = new_scheduler(seats=2)
    request = new_request(0)
    [first] = waiting(scheduler, request)
    compute(scheduler.schedule())
    second, third = Branch(request, 1), Branch(request, 2)
    request.branches += [second, third]
    assert first.sequence is not None
    for fork in (second, third):
        fork.sequence = first.sequence.fork()
        scheduler.run_or_wait(fork)
    assert (scheduler.running, scheduler.waiting) == ([first, second], [third])
    assert third.sequence is None
    scheduler.check([request])
    scheduler.remove(first)
    scheduler.remove(second)
    scheduler.remove(third)
    assert (scheduler.running, scheduler.waiting) == ([], [])


def test_a_branch_without_pages_waits_even_when_there_are_seats() -> None:
    scheduler = new_scheduler()
    branch = new_request(0).branches[0]
    scheduler.run_or_wait(branch)
    assert (scheduler.running, scheduler.waiting) == ([], [branch])


def test_a_prompt_takes_the_seats_of_all_its_samples_until_they_fork() -> None:
    scheduler = new_scheduler(seats=3)
    several, late = new_request(0, params=SamplingParams(n=3)), new_request(1, [5, 6, 7])
    [first, second] = waiting(scheduler, several, late)
    assert spans(scheduler.schedule()) == [(0, 0, 3)]
    scheduler.check([several, late])
    scheduler.seat_forks(first)
    scheduler.check([several, late])
    assert first.seats == 1
    compute([Chunk(first, 0, 3)])
    assert spans(scheduler.schedule()) == [(0, 3, 4), (1, 0, 3)]
    assert scheduler.running == [first, second]


# --- preemption -------------------------------------------------------------------------------------------------


def test_whoever_is_preempted_gives_up_its_pages_and_is_written_down() -> None:
    scheduler = new_scheduler()
    request = new_request(7)
    [branch] = waiting(scheduler, request)
    compute(scheduler.schedule())
    assert branch.sequence is not None
    sequence = branch.sequence
    scheduler.preempt(branch)
    assert (scheduler.running, scheduler.waiting) == ([], [branch])
    assert branch.sequence is None
    assert ("preempt", sequence.id, (), (), 7) in list(scheduler.cache.events)
    scheduler.check([request])
    scheduler.schedule()
    scheduler.preempt(branch)
    assert (request.metrics.preemptions, scheduler._counters.preemptions) == (2, 2)


def test_all_are_preempted_the_last_arrived_first() -> None:
    scheduler = new_scheduler()
    requests = [new_request(number, [number, 5, 6]) for number in range(3)]
    branches = waiting(scheduler, *requests)
    compute(scheduler.schedule())
    scheduler.preempt_all()
    assert (scheduler.running, scheduler.waiting) == ([], branches)
    assert [event.number for event in scheduler.cache.events if event.kind == "preempt"] == [2, 1, 0]
    scheduler.check(requests)


def test_of_a_requests_beams_those_that_have_nothing_to_compute_go_first_and_do_not_wait() -> None:
    scheduler = new_scheduler()
    request = new_request(0, params=BeamSearchParams(beam_width=2, max_tokens=8))
    [first] = waiting(scheduler, request)
    compute(scheduler.schedule())
    scheduler.seat_forks(first)
    second = Branch(request, 1)
    assert first.sequence is not None
    second.sequence = first.sequence.fork()
    scheduler.run(second)
    first.candidates = []
    scheduler.preempt_last()
    assert (scheduler.running, scheduler.waiting) == ([second], [])


def test_who_decodes_takes_a_page_from_the_last_arrived_and_at_last_from_itself() -> None:
    scheduler = new_scheduler(num_pages=2, prefix_caching=False)
    first, second = waiting(scheduler, *(new_request(number, [number, 2, 3, 4]) for number in range(2)))
    compute(scheduler.schedule())
    for length in (5, 6, 7, 8):
        chunks = scheduler.schedule()
        assert spans(chunks) == [(0, length - 1, length)]
        assert (scheduler.running, scheduler.waiting) == ([first], [second])
        compute(chunks)
    assert scheduler.schedule() == [], "it would need a third page"
    assert (scheduler.running, scheduler.waiting) == ([], [first, second])


def test_a_beam_that_only_waits_for_its_siblings_makes_room_for_them_in_the_same_step() -> None:
    scheduler = new_scheduler(num_pages=2, prefix_caching=False)
    idle, needy = new_request(0, [1, 2, 3, 4, 5, 6]), new_request(1, [7, 8, 9])
    [beam] = waiting(scheduler, idle)
    compute(scheduler.schedule())
    beam.candidates = []
    [branch] = waiting(scheduler, needy)
    assert spans(scheduler.schedule()) == [(1, 0, 3)]
    assert (scheduler.running, beam.sequence) == ([branch], None)


# --- after an interrupt -----------------------------------------------------------------------------------------


def restarted(branches: int, output: Sequence[int]) -> Branch:
    """The first branch of a request for three samples, after an interrupt."""
    scheduler, request = new_scheduler(), new_request(0, params=SamplingParams(n=3))
    request.branches += [Branch(request, index) for index in range(1, branches)]
    first = request.branches[0]
    first.output += output
    first.logprobs += [{}] * (len(output) + 2)
    scheduler.restart([request])
    assert scheduler.waiting == request.branches
    assert len(first.logprobs) == len(output)
    return first


def test_after_an_interrupt_a_branch_stands_for_all_its_request_until_it_has_forked_or_spoken() -> None:
    assert restarted(branches=1, output=[]).seats == 3
    assert restarted(branches=1, output=[5]).seats == 1
    assert restarted(branches=2, output=[]).seats == 1
    assert restarted(branches=3, output=[5]).seats == 1


def test_after_an_interrupt_what_goes_on_waits_in_the_order_of_arrival() -> None:
    scheduler = new_scheduler()
    requests = [new_request(number, [number, 5, 6]) for number in range(3)]
    branches = waiting(scheduler, *requests)
    compute(scheduler.schedule())
    branches[0].candidates = []
    branches[1].finish_reason = "stop"
    scheduler.cache.salvage([])
    scheduler.restart([requests[2], requests[1], requests[0]])
    assert (scheduler.running, scheduler.waiting) == ([], [branches[0], branches[2]])
    assert [branch.sequence for branch in branches] == [None] * 3
    assert branches[0].candidates is None
    scheduler.check(requests)


# --- nobody can go on -------------------------------------------------------------------------------------------


def test_pages_of_its_own_sequences_and_of_the_prefix_cache_are_nobody_elses() -> None:
    scheduler = new_scheduler()
    waiting(scheduler, new_request(0, range(10)), new_request(1, range(20, 30)))
    compute(scheduler.schedule())
    scheduler.cache.sequence(range(40, 45)).release()
    done = scheduler.cache.sequence(range(50, 59))
    done.mark_computed()
    done.release()
    scheduler.refuse_if_stuck(2)


def test_pages_that_somebody_else_holds_are_counted_when_nobody_can_go_on() -> None:
    scheduler = new_scheduler()
    waiting(scheduler, new_request(0, range(10)))
    compute(scheduler.schedule())
    other = scheduler.cache.sequence([*range(8), 30])  # two pages shared with the request, and one alone
    message = (
        "no request can go on: 5 are unfinished, and 3 of 4 pages in use are held by somebody else than this engine; "
        "release them, or cancel requests"
    )
    with pytest.raises(OutOfPages, match=f"^{re.escape(message)}$"):
        scheduler.refuse_if_stuck(5)
    scheduler.refuse_if_stuck(0)
    other.release()
    scheduler.refuse_if_stuck(5)


# --- guesses ----------------------------------------------------------------------------------------------------


def num_guesses(guesses: int = 3, budget: int = 64, max_tokens: int = 20, params: Params = GREEDY) -> int:
    """How many tokens are guessed for a text that repeats itself, after its first token."""
    scheduler = new_scheduler(budget=budget, guesses=guesses)
    request = new_request(0, REPEATING, params, max_tokens)
    waiting(scheduler, request)
    while not request.branches[0].output:
        compute(scheduler.schedule(), token=1)
    [(branch, start, stop, num_drafts)] = scheduler.schedule()
    assert branch.sequence is not None
    assert (start, stop) == (len(REPEATING), len(REPEATING) + 1 + num_drafts)
    assert branch.sequence.tokens[start:] == [1, 2, 3, 1, 2, 3][: 1 + num_drafts]
    return num_drafts


def test_guesses_are_as_many_as_were_asked_for_fit_the_step_and_are_still_wanted() -> None:
    assert [num_guesses(guesses) for guesses in (0, 1, 3)] == [0, 1, 3]
    assert [num_guesses(budget=budget) for budget in (1, 2, 3, 4, 5)] == [0, 1, 2, 3, 3]
    assert [num_guesses(max_tokens=max_tokens) for max_tokens in (2, 3, 4, 5, 6)] == [0, 1, 2, 3, 3]


def test_beams_are_not_guessed_for() -> None:
    assert num_guesses(params=BeamSearchParams(beam_width=2, max_tokens=8)) == 0


def test_guesses_take_no_page_from_anybody() -> None:
    scheduler = new_scheduler(num_pages=4, guesses=3)
    request = new_request(0, REPEATING[:14], max_tokens=20)
    waiting(scheduler, request)
    compute(scheduler.schedule(), token=3)
    [chunk] = scheduler.schedule()
    assert chunk.num_drafts == 1, "the fourth page has one slot more"


def test_who_decodes_with_guesses_leaves_each_other_one_token_of_the_step() -> None:
    scheduler = new_scheduler(budget=64, guesses=3)
    waiting(scheduler, *(new_request(number, [number, *REPEATING, 1, 2]) for number in (50, 51, 52)))
    compute(scheduler.schedule(), token=3)
    scheduler.max_batched_tokens = 5
    assert spans(scheduler.schedule()) == [(50, 18, 21), (51, 18, 19), (52, 18, 19)]
    for branch in scheduler.running:
        assert branch.sequence is not None
        branch.sequence.truncate(18)
    scheduler.max_batched_tokens = 7
    assert spans(scheduler.schedule()) == [(50, 18, 22), (51, 18, 20), (52, 18, 19)]


# --- who waits for whom -----------------------------------------------------------------------------------------


def is_let_in(prompt: Sequence[int], other: Sequence[int], computed: int, salt: Hashable = None) -> bool:
    """Whether a request may begin while another, of whose prompt so many tokens are computed, computes the rest."""
    scheduler = new_scheduler(budget=max(computed, 1))
    waiting(scheduler, new_request(0, other, cache_salt=salt))
    if computed:
        compute(scheduler.schedule())
    [branch] = waiting(scheduler, new_request(1, prompt, cache_salt=salt))
    scheduler.max_batched_tokens = 64
    assert spans(scheduler.schedule())[0] == (0, computed, len(other))
    return branch.sequence is not None


LONG = list(range(100, 116))


@pytest.mark.parametrize("salt", [None, "a tenant"])
def test_a_request_waits_for_the_pages_that_another_computes_and_no_longer(salt: Hashable) -> None:
    assert is_let_in([1, 2, 3, 4, 5], LONG, 0, salt), "nothing in common"
    assert [is_let_in([*LONG[:4], 1, 2, 3], LONG, computed, salt) for computed in (0, 4)] == [False, True]
    waits = [is_let_in([*LONG[:12], 1, 2, 3], LONG, computed, salt) for computed in (0, 4, 8, 12)]
    assert waits == [False, False, False, True]


def test_a_request_waits_for_a_page_of_which_it_can_use_only_the_first_slots() -> None:
    assert [is_let_in(LONG[:7], LONG, computed) for computed in (4, 8)] == [False, True]
    assert [is_let_in(LONG[:6], LONG, computed) for computed in (4, 8)] == [False, True]
    assert is_let_in(LONG[:5], LONG, 4), "its last token must run whatever is cached"


def test_a_request_does_not_wait_for_a_page_that_will_not_be_full() -> None:
    assert [is_let_in([*LONG[:10], 1, 2], LONG[:10], computed) for computed in (4, 8)] == [False, True]


def test_requests_too_short_to_fill_a_page_start_together() -> None:
    assert is_let_in([1, 2, 3], [1, 2, 3], 0)


@pytest.mark.parametrize("alike", [2, 3])
def test_who_waits_for_a_page_lets_others_pass(alike: int) -> None:
    scheduler = new_scheduler()
    waiting(scheduler, *(new_request(number, LONG) for number in range(alike)), new_request(9, [7, 8, 9]))
    assert spans(scheduler.schedule()) == [(0, 0, 16), (9, 0, 3)]


def test_without_a_prefix_cache_nobody_waits_for_anybodys_pages() -> None:
    scheduler = new_scheduler(prefix_caching=False)
    waiting(scheduler, new_request(0, LONG), new_request(1, LONG))
    assert spans(scheduler.schedule()) == [(0, 0, 16), (1, 0, 16)]


# --- the step ---------------------------------------------------------------------------------------------------


def test_what_decodes_comes_first_and_prompts_share_the_rest_of_the_step_in_order() -> None:
    scheduler = new_scheduler(budget=6)
    branches = waiting(scheduler, *(new_request(number, [number, *range(9)]) for number in (50, 51, 52)))
    assert spans(scheduler.schedule()) == [(50, 0, 6)]
    compute([Chunk(branches[0], 0, 6)])
    chunks = scheduler.schedule()
    assert spans(chunks) == [(50, 6, 10), (51, 0, 2)]
    compute(chunks)
    assert spans(scheduler.schedule()) == [(50, 10, 11), (51, 2, 7)]
    assert scheduler.waiting == branches[2:]


def test_no_more_decode_than_a_step_has_room_for() -> None:
    scheduler = new_scheduler()
    waiting(scheduler, *(new_request(number, [number, 5, 6]) for number in range(3)))
    compute(scheduler.schedule())
    scheduler.max_batched_tokens = 2
    assert spans(scheduler.schedule()) == [(0, 3, 4), (1, 3, 4)]


def test_what_requests_find_in_the_cache_is_counted_once_for_each_and_then_as_recovered() -> None:
    scheduler = new_scheduler()
    known = scheduler.cache.sequence(LONG)
    known.mark_computed()
    known.release()
    requests = [new_request(number, [*LONG[:8], number, 2]) for number in (7, 8)]
    branches = waiting(scheduler, *requests)
    assert [request.metrics.first_scheduled for request in requests] == [None, None]
    compute(scheduler.schedule())
    began = [request.metrics.first_scheduled for request in requests]
    for branch in branches:
        assert branch.sequence is not None
        assert ("admit", branch.sequence.id, (), (), branch.request.id) in list(scheduler.cache.events)
    scheduler.preempt_all()
    assert spans(scheduler.schedule()) == [(7, 10, 11), (8, 10, 11)]
    counters = scheduler._counters
    assert (counters.prompt_tokens, counters.cached_tokens, counters.recovered_tokens) == (20, 16, 20)
    assert [request.num_cached_tokens for request in requests] == [8, 8]
    assert None not in began
    assert [request.metrics.first_scheduled for request in requests] == began


def test_who_does_not_fit_the_pool_waits_and_holds_up_those_behind() -> None:
    scheduler = new_scheduler(num_pages=3)
    branches = waiting(scheduler, new_request(0, range(6)), new_request(1, range(10, 16)), new_request(2, [7]))
    assert spans(scheduler.schedule()) == [(0, 0, 6)]
    assert scheduler.waiting == branches[1:]
    scheduler.check([branch.request for branch in branches])


def test_a_prompt_that_loses_its_pages_to_who_decodes_has_no_part_in_the_step() -> None:
    scheduler = new_scheduler(num_pages=3, budget=8, prefix_caching=False)
    first, second = waiting(scheduler, new_request(0, range(4)), new_request(1, range(10, 18)))
    compute(scheduler.schedule())
    assert second.sequence is not None
    assert second.sequence.num_computed == 4
    assert spans(scheduler.schedule()) == [(0, 4, 5)]
    assert (scheduler.running, scheduler.waiting) == ([first], [second])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0, 8, 0), "max_batched_tokens is 0; it must be at least 1"),
        ((64, 0, 0), "max_running is 0; it must be at least 1"),
        ((64, 8, -1), "num_speculative_tokens is -1; it must be at least 0"),
    ],
)
def test_limits_with_which_nobody_could_go_on_are_refused(limits: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Scheduler(PagedKVCache(8, 4), Counters(), *limits)


# --- the judge --------------------------------------------------------------------------------------------------


def test_who_runs_who_waits_and_how_many_seats_they_take_is_checked() -> None:
    scheduler = new_scheduler(budget=6)
    requests = [new_request(number, [number, 7, 8]) for number in range(3)]
    first, second, third = waiting(scheduler, *requests)
    compute(scheduler.schedule())
    scheduler.check(requests)

    def objection() -> str:
        with pytest.raises(AssertionError) as raised:
            scheduler.check(requests)
        return str(raised.value)

    scheduler._seats = 3
    assert objection() == f"3 seats are taken, but 2 branches run: [{first}, {second}]"
    scheduler._seats = 2
    scheduler.waiting = []
    assert objection() == f"[{third}] should wait, but the scheduler has []"
    scheduler.waiting, scheduler.running = [third], [second]
    assert objection() == f"[{first}, {second}] should run, but the scheduler has [{second}]"
    scheduler.running = [first, second]
    other = scheduler.cache.sequence([1])
    assert objection() == f"{other} belongs to no request that goes on"
    scheduler.check(requests, others=[other])
