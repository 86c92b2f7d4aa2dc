"""Requests in one strip, each with a run that is reserved beforehand, first fit: what chapter 2 measures."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kvpaged.lab.contiguous import ContiguousAllocator
from kvpaged.lab.saturation import Job


class Served(NamedTuple):
    """Averages over steps. The first four are shares of all slots, and add up to 1."""

    filled: float  # hold a token
    later: float  # reserved by a request that will fill them
    never: float  # reserved by a request that will not: internal fragmentation
    no_run: float  # in no run
    running: float  # requests at once


def serve_in_runs(num_slots: int, reserve: Callable[[Job], int], lengths: Iterable[tuple[int, int]]) -> Served:
    """Serve requests of these prompt and output lengths, all waiting from the start, first come, first served.

    `reserve` says how long a request's run is; runs are placed first fit. Averages are over all steps, to the end of
    the last request. In a step each running request gets a token, and between two ends nothing else changes, so the
    simulation jumps from one end to the next.
    """
    strip, waiting = ContiguousAllocator(num_slots), deque(enumerate(lengths))
    running: dict[int, tuple[int, int]] = {}  # request: (rows held, tokens to come)
    filled = later = reserved = steps = generated = 0
    while waiting or running:
        while waiting and (run := _run(reserve, waiting[0][1])) <= strip.largest_free:
            request, (prompt, output) = waiting.popleft()
            strip.allocate(request, run)
            running[request] = prompt, output
            generated += output
        if not running:
            raise ValueError(f"a run of {run} slots does not fit into {num_slots}; give more, or leave the request out")
        jump = min(output for _, output in running.values())
        growth = len(running) * jump * (jump - 1) // 2
        filled += jump * sum(rows for rows, _ in running.values()) + growth
        later += jump * sum(output - 1 for _, output in running.values()) - growth
        reserved += jump * (num_slots - strip.num_free)
        steps += jump
        for request, (rows, output) in list(running.items()):
            running[request] = rows + jump, output - jump
            if output == jump:
                strip.release(request)
                del running[request]
    slots = max(1, steps) * num_slots
    never, no_run = reserved - filled - later, slots - reserved
    return Served(filled / slots, later / slots, never / slots, no_run / slots, generated / max(1, steps))


def _run(reserve: Callable[[Job], int], lengths: tuple[int, int]) -> int:
    prompt, output = lengths
    return reserve(Job(prompt, prompt + output - 1))
