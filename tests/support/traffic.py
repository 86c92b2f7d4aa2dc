"""Long traffic through one cache, or one engine, and what the process holds meanwhile.

The clock is simulated: a request arrives now and then, and a step of the engine takes a twentieth of a second.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kvpaged import PagedKVCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model, load_tokenizer
from kvpaged.recall.text import make_stories

STEPS_A_SECOND = 20


class Footprint(NamedTuple):
    """What the process holds at one moment, when no request is in flight and nothing is cached."""

    requests: int  # served so far
    own_objects: int  # live objects of kvpaged's classes
    objects: int  # live objects that Python's collector knows
    kilobytes: int  # resident; 0 where the system does not say


def footprint(requests: int) -> Footprint:
    """Take the measure of this process."""
    gc.collect()
    objects = gc.get_objects()
    own = sum(str(type(each).__module__).startswith("kvpaged") for each in objects)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    return Footprint(requests, own, len(objects), kilobytes)


def cache_traffic(minutes: int, requests_a_minute: int, measure_every: int = 10) -> list[Footprint]:
    """Bookkeeping alone: 20 conversations at a time, of several turns, forks among them, on a pool of 2,000 pages."""
    choose, cache = random.Random(1), PagedKVCache(num_pages=2_000, page_size=16)
    conversations: list[list[int]] = [[] for _ in range(20)]

    def minute() -> int:
        for _ in range(requests_a_minute):
            conversation = choose.choice(conversations)
            conversation += [choose.randrange(30_000) for _ in range(choose.randint(1, 40))]
            sequence = cache.sequence(conversation, choose.choice(["a", "b"]))
            sequence.mark_computed()
            fork = sequence.fork()
            for token in range(choose.randint(1, 20)):
                sequence.append(token)
                conversation.append(token)
            sequence.mark_computed()
            fork.append(7)
            fork.release()
            sequence.release()
            if len(conversation) > 400:
                conversation.clear()
        return requests_a_minute

    return _measured(minute, minutes, measure_every, cache)


def engine_traffic(minutes: int, requests_a_minute: int, measure_every: int = 10) -> list[Footprint]:
    """The recall model on 200 pages: requests arrive at random, some are sampled, one in ten is cancelled."""
    choose, model = random.Random(1), load_model("recall")
    tokenizer = load_tokenizer("recall")
    stories = make_stories(40, 4, 2, seed=5, kinds=["where"])
    prompts = [tokenizer.encode(story.text + each.prompt).ids for story in stories for each in story.questions]
    engine = Engine(model, num_pages=200, page_size=8, max_waiting=50)
    kinds = [
        SamplingParams(temperature=0, max_tokens=8),
        SamplingParams(n=2, max_tokens=8, seed=1),
        SamplingParams(temperature=0, max_tokens=8, stop="the"),
    ]

    def minute() -> int:
        num_requests = 0
        for _ in range(60 * STEPS_A_SECOND):
            if choose.random() < requests_a_minute / (60 * STEPS_A_SECOND):
                request = engine.submit(choose.choice(prompts), choose.choice(kinds), choose.choice([None, "a"]))
                num_requests += 1
                if choose.random() < 0.1:
                    engine.step()
                    engine.cancel(request)
            engine.step()
        while engine.num_unfinished:
            engine.step()
        engine.history.clear()  # as who reads it does; it would stop growing at 100,000 steps by itself
        return num_requests

    return _measured(minute, minutes, measure_every, engine.cache)


def _measured(minute: Callable[[], int], minutes: int, every: int, cache: PagedKVCache) -> list[Footprint]:
    """Let the minutes pass; take the measure of the process after every so many of them."""
    found, num_requests = [], 0
    for number in range(1, minutes + 1):
        num_requests += minute()
        if number % every == 0:
            cache.check()
            cache.prefix.clear()
            assert cache.pool.num_used == 0
            found.append(footprint(num_requests))
    return found
