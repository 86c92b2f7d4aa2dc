"""The simulations of chapter 11, beside slow ones and beside what can be derived."""

import random
from collections.abc import Callable
from dataclasses import astuple

import pytest

from kvpaged.lab.branching import beam_search, parallel_sampling
from kvpaged.lab.saturation import (
    LONGEST,
    Job,
    Occupancy,
    Paging,
    Reserving,
    orca_max,
    orca_oracle,
    orca_pow2,
    serve,
)
from kvpaged.lab.workload import SHAREGPT
from test_buddy import SlotBySlot


def some_lengths(count: int, seed: int, longest: int = 60) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    return [(rng.randint(1, longest), rng.randint(1, longest)) for _ in range(count)]


class Slow:
    """One request of the slow simulation: everything is written out, and computed anew at each step."""

    def __init__(self, number: int, prompt: int, output: int) -> None:
        self.number = number
        self.prompt = prompt
        self.output = output
        self.generated = 0

    @property
    def length(self) -> int:
        """Slots with a token: the prompt, and all that was generated but the newest token."""
        return self.prompt + self.generated - 1

    @property
    def final(self) -> int:
        return self.prompt + self.output - 1


def slow_pages(lengths: list[tuple[int, int]], num_slots: int, page_size: int) -> Occupancy:
    """Paging by arithmetic alone: pages are counted, never handed out."""
    num_pages = num_slots // page_size

    def pages(tokens: int) -> int:
        return -(-tokens // page_size)

    waiting = [Slow(number, *each) for number, each in enumerate(lengths)]
    running: list[Slow] = []
    shares: list[tuple[float, ...]] = []
    preemptions, departed = 0, False
    while waiting:
        preempted = False
        for request in list(running):
            if request not in running:
                continue
            request.generated += 1
            while sum(pages(each.length) for each in running) > num_pages:
                victim = running.pop()
                waiting.insert(0, victim)
                preemptions += 1
                preempted = True
                if victim is request:  # it generates this token when it comes back, as who had not had its turn
                    request.generated -= 1
                    break
        while not preempted and waiting:
            if sum(pages(each.length) for each in running) + pages(waiting[0].length + 1) > num_pages:
                break
            waiting[0].generated += 1
            running.append(waiting.pop(0))
        if departed and waiting:
            filled = sum(each.length for each in running)
            held = sum(pages(each.length) * page_size for each in running)
            later = sum(min(pages(each.length) * page_size, each.final) - each.length for each in running)
            shares.append((filled, later, held - filled - later, num_slots - held, len(running) * num_slots))
        departed |= any(each.generated == each.output for each in running)
        running = [each for each in running if each.generated < each.output]
    means = [sum(each) / len(shares) / num_slots for each in zip(*shares, strict=True)]
    return Occupancy(*means, steps=len(shares), preemptions=preemptions)


def slow_reserving(lengths: list[tuple[int, int]], num_slots: int, reserve: Callable[[Job], int]) -> Occupancy:
    """Reservation in a map of all slots."""
    memory = SlotBySlot(num_slots)
    waiting = [Slow(number, *each) for number, each in enumerate(lengths, start=1)]
    running: list[Slow] = []
    shares: list[tuple[float, ...]] = []
    departed = False
    while waiting:
        for request in running:
            request.generated += 1
        while waiting:
            job = Job(waiting[0].prompt, waiting[0].final)
            if memory.allocate(waiting[0].number, reserve(job)) is None:
                break
            waiting[0].generated += 1
            running.append(waiting.pop(0))
        if departed and waiting:
            filled = sum(each.length for each in running)
            free = memory.owner_of.count(None)
            later = sum(min(memory.owner_of.count(each.number), each.final) - each.length for each in running)
            shares.append((filled, later, num_slots - free - filled - later, free, len(running) * num_slots))
        for request in [each for each in running if each.generated == each.output]:
            memory.release(request.number)
            running.remove(request)
            departed = True
    means = [sum(each) / len(shares) / num_slots for each in zip(*shares, strict=True)]
    return Occupancy(*means, steps=len(shares))


def same(one: Occupancy, other: Occupancy) -> bool:
    return astuple(one) == pytest.approx(astuple(other))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_paging_is_as_counting_pages_says(seed: int, page_size: int) -> None:
    lengths = some_lengths(40, seed)
    found = serve(Paging(400, page_size), lengths)
    assert same(found, slow_pages(lengths, 400, page_size))


def test_some_of_these_had_to_preempt() -> None:
    assert serve(Paging(400, 4), some_lengths(40, 0)).preemptions > 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reserve", [orca_pow2, orca_oracle, lambda job: 128], ids=["pow2", "oracle", "max"])
def test_reserving_is_as_a_map_of_all_slots_says(seed: int, reserve: Callable[[Job], int]) -> None:
    lengths = some_lengths(40, seed)
    assert same(serve(Reserving(500, reserve), lengths), slow_reserving(lengths, 500, reserve))


def test_the_shares_add_up_to_one() -> None:
    for memory in (Paging(400, 16), Reserving(500, orca_oracle)):
        found = serve(memory, some_lengths(60, 3))
        assert found.filled + found.reserved + found.never_filled + found.not_given == pytest.approx(1)


def test_the_baselines_reserve_what_the_paper_says() -> None:
    job = Job(known=10, final=10 + 25 - 1)  # an output of 25 tokens, of which the last needs no slot
    assert (orca_max(job), orca_pow2(job), orca_oracle(job)) == (LONGEST, 10 + 32, 34)


def test_a_request_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="a request of 40 tokens does not fit into 32 slots"):
        serve(Reserving(32, orca_oracle), [(20, 21)])
    with pytest.raises(ValueError, match="a request of 40 tokens does not fit into 32 slots"):
        serve(Paging(32, 4), [(20, 21), (1, 1)])


@pytest.mark.parametrize(("samples", "page_size"), [(2, 16), (4, 16), (6, 4)])
def test_samples_save_the_full_pages_of_their_prompt(samples: int, page_size: int) -> None:
    lengths = some_lengths(10, 1)
    used = unshared = 0
    for prompt, output in lengths:
        for length in range(prompt + 1, prompt + output):
            pages = -(-length // page_size)
            used += prompt // page_size + samples * (pages - prompt // page_size)
            unshared += samples * pages
    assert parallel_sampling(lengths, samples, page_size) == pytest.approx(1 - used / unshared)


@pytest.mark.parametrize("width", [2, 4])
def test_beams_share_more_than_samples_and_less_than_everything(width: int) -> None:
    lengths = SHAREGPT.draw(4, seed=1)
    found = beam_search(lengths, width)
    assert parallel_sampling(lengths, width) < found < (width - 1) / width
    assert found == beam_search(lengths, width) != beam_search(lengths, width, seed=1)


def test_one_branch_and_one_token_save_nothing() -> None:
    assert parallel_sampling([(20, 9)], 1) == beam_search([(20, 9)], 1) == 0
    assert parallel_sampling([(20, 1)], 4) == 0
