"""A random hour of the small engine without a model: requests run, are preempted, and run again; a judge looks on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Function
from kvpaged.exercises.museum.history import write
from kvpaged.exercises.museum.in_place import in_place_of
from kvpaged.exercises.museum.judge import judge
from kvpaged.exercises.museum.played import Played, told
from kvpaged.exercises.small_cache import Slots

MOST_STEPS = 60


@dataclass(frozen=True)
class Serving:
    """Requests (prompt, how many tokens to say) that wait at the beginning, and the engine's size."""

    replaced: str  # the name of a function of the small engine
    num_pages: int
    page_size: int
    requests: tuple[tuple[tuple[int, ...], int], ...]

    def words(self, steps: int | None = None) -> str:
        """The requests, below the size of the pool, however long they were served."""
        lines = [f"{'ABCDEF'[i]} = Request({[*prompt]}, {most})" for i, (prompt, most) in enumerate(self.requests)]
        return told(self.num_pages, self.page_size, lines)

    def play(self, function: Function) -> Played:
        """Serve them all, or until the judge objects."""
        cache = mini.Cache(self.num_pages, self.page_size, Slots(self.num_pages, self.page_size))
        waiting = [mini.Request([*prompt], most) for prompt, most in self.requests]
        engine = SimpleNamespace(cache=cache, running=[], waiting=waiting, budget=8, eos=None)
        names = dict(zip(map(id, waiting), "ABCDEF", strict=False))
        played = Played(cache, ("preempted", "done"))
        with in_place_of(self.replaced, function):
            while engine.running or engine.waiting:
                played.steps += 1
                try:
                    self._step(engine, names, played)
                except AssertionError as objection:
                    played.objection = f"step {played.steps}: {objection}"
                    break
        return played

    def _step(self, engine: Any, names: dict[int, str], played: Played) -> None:
        if played.steps > MOST_STEPS:
            raise AssertionError(f"after {MOST_STEPS} steps somebody is still not done")
        ran = {id(each): each.sequence for each in engine.running}
        chunks = mini.schedule(engine)
        played.counted["preempted"] += [names[id(each)] for each in engine.waiting if id(each) in ran]
        for each in engine.running:
            if each.sequence is not ran.get(id(each)):
                asked, found = len(each.prompt + each.output), each.sequence.num_cached_tokens
                played.beginnings.append((names[id(each)], asked, found))
        played.live = {names[id(each)]: each.sequence for each in engine.running if each.sequence}
        judge(engine.cache, played.live)
        for request, start, stop in chunks:
            write(engine.cache, names[id(request)], request.sequence, start, stop)
        for request, _, stop in chunks:
            mini.mark_computed(request.sequence, stop)
            if not mini.missing(request):
                request.output.append(sum(request.sequence.tokens) % 2)
                if len(request.output) == request.max_tokens:
                    mini.end(request.sequence)
                    engine.running.remove(request)
                    played.counted["done"].append(f"{names[id(request)]} {request.output}")
        played.live = {names[id(each)]: each.sequence for each in engine.running if each.sequence}
        judge(engine.cache, played.live)


def servings(replaced: str) -> Callable[[Random, int], Serving]:
    """Makes requests that together need more pages than there are, though each alone has room."""

    def make(chance: Random, size: int) -> Serving:
        page_size = chance.choice([1, 2, 3])
        requests = []
        for _ in range(chance.randint(3, 4)):
            prompt = tuple(chance.randrange(2) for _ in range(chance.randint(2, 3 + size // 2)))
            requests.append((prompt, chance.randint(2, 3 + size // 2)))
        least = max(mini.pages_for(len(prompt) + most - 1, page_size) for prompt, most in requests)
        return Serving(replaced, least, page_size, tuple(requests))

    return make
