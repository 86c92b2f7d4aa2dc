"""Random requests through an engine on the recall model, beside a model that keeps every request apart.

One seed makes one episode: an engine of random size, and requests that arrive while others run, share beginnings,
continue conversations, sample, search with beams, and are cancelled, under several salts, while allocations, copies and
the model fail. Each must get the tokens that it gets alone: greedy ones from a model that has no cache at all, sampled
ones and beams from an engine that serves nobody else and shares nothing.
"""

from __future__ import annotations

import functools
import random
from collections import Counter

from kvpaged.engine import BeamSearchParams, Engine, Params, Request, SamplingParams
from kvpaged.model import load_model, load_tokenizer
from kvpaged.model.compute import generate_naive
from kvpaged.page_table import pages_for
from kvpaged.poison import PoisonedStorage
from kvpaged.recall.text import make_stories
from support.faults import FailingModel, InjectedError, fail_allocations, fail_copies
from support.simulation import SimulationFailed

LONGEST = 10  # tokens that are generated, at most
MODEL = load_model("recall")
TOKENIZER = load_tokenizer("recall")


@functools.cache
def greedy_alone(prompt: tuple[int, ...]) -> list[int]:
    """The greedy continuation, each token of it computed from the first token of the prompt."""
    return generate_naive(MODEL, prompt, LONGEST)


@functools.cache
def alone(prompt: tuple[int, ...], params: Params) -> list[list[int]]:
    """The tokens of each continuation, from an engine of its own."""
    if isinstance(params, SamplingParams) and params.temperature == 0:
        return [greedy_alone(prompt)[: params.max_tokens]]
    output = Engine(MODEL, 256, 16, prefix_caching=False).generate([prompt], params)[0]
    return [each.tokens for each in output.outputs]


@functools.cache
def prompts() -> list[tuple[int, ...]]:
    """Stories with questions, the second turns of those conversations, and beginnings of any length."""
    found = []
    for story in make_stories(6, 4, 3, seed=11, kinds=["looks", "where"]):
        for question in story.questions:
            first = tuple(TOKENIZER.encode(story.text + question.prompt).ids)
            again = tuple(TOKENIZER.encode(story.questions[0].prompt).ids)
            found += [first, (*first, *greedy_alone(first), *again), first[: 3 * len(found) % len(first) + 1]]
    return found


class EngineEpisode:
    """Everything that one seed makes happen. Raises AssertionError as soon as anything is not as it should be."""

    def __init__(self, seed: int) -> None:
        self.random = choose = random.Random(seed)
        page_size = choose.choice([1, 2, 4, 8, 16])
        least = pages_for(max(map(len, prompts())) + LONGEST, page_size)
        self.engine = Engine(
            MODEL,
            num_pages=choose.choice([least, 2 * least, 8 * least]),
            page_size=page_size,
            max_batched_tokens=choose.choice([5, 16, 64, 512]),
            max_running=choose.choice([4, 8, 64]),
            prefix_caching=choose.random() < 0.9,
            num_speculative_tokens=choose.choice([0, 0, 3]),
            poisoned=choose.random() < 0.2,
        )
        cache = self.engine.cache
        self.pages, self.copies = fail_allocations(cache), fail_copies(cache)
        self.engine.model = FailingModel(MODEL)
        self.faults = [self.pages, self.copies, self.engine.model.layers]
        self.failing = choose.random() < 0.3
        self.salts = choose.choice([[None], [None, "a"], ["a", "b", "c"]])
        self.asked: list[tuple[Request, tuple[int, ...], Params]] = []
        self.cancelled: set[int] = set()
        self.counts: Counter[str] = Counter(poisoned=isinstance(cache.storage, PoisonedStorage))

    def run(self, num_requests: int) -> Counter[str]:
        """Let so many requests arrive, and end; return what happened, counted."""
        choose, engine = self.random, self.engine
        idle = 0
        while len(self.asked) < num_requests or engine.num_unfinished:
            if len(self.asked) < num_requests and choose.random() < 0.5:
                self.submit()
            if self.failing and choose.random() < 0.05:
                choose.choice(self.faults).set(choose.randint(1, 3))
            if choose.random() < 0.02 and self.asked:
                self.cancel(choose.choice(self.asked)[0])
            steps = len(engine.history)
            try:
                engine.step()
            except InjectedError:
                self.counts["steps failed"] += 1
            idle = 0 if len(engine.history) > steps or not engine.num_unfinished else idle + 1
            assert idle < 10, "requests wait, and nothing happens"
            if choose.random() < 0.2:
                engine.cache.check()
        self.end()
        return self.counts

    def submit(self) -> None:
        choose = self.random
        prompt, max_tokens = choose.choice(prompts()), choose.choice([1, 5, 8, LONGEST])
        kind = choose.random()
        params: Params = SamplingParams(temperature=0, max_tokens=max_tokens)
        if kind < 0.15:
            seed, n, top_k = choose.choice([(0, 1, 0), (1, 2, 0), (2, 3, 8)])
            params = SamplingParams(n=n, seed=seed, top_k=top_k, max_tokens=LONGEST)
        elif kind < 0.25:
            params = BeamSearchParams(beam_width=choose.choice([2, 4]), max_tokens=5)
        self.asked.append((self.engine.submit(prompt, params, choose.choice(self.salts)), prompt, params))

    def cancel(self, request: Request) -> None:
        if self.engine.cancel(request):
            self.cancelled.add(request.id)
            self.engine.cache.check()

    def end(self) -> None:
        """Everybody has their answer, and every page must come back."""
        engine, pool = self.engine, self.engine.cache.pool
        for request, prompt, params in self.asked:
            got, expected = [each.tokens for each in engine.output(request).outputs], alone(prompt, params)
            if request.id not in self.cancelled:
                assert got == expected, f"request {request.id} got {got}, and alone it gets {expected}"
        engine.cache.check()
        assert pool.num_used == len(engine.cache.prefix), "somebody still owns pages"
        engine.cache.prefix.clear()
        assert pool.num_used == 0, f"{pool.num_used} pages never came back"
        metrics = engine.metrics()
        self.counts += Counter(
            {
                "requests": len(self.asked),
                "cancelled": len(self.cancelled),
                "steps": metrics.steps,
                "tokens of prompts": metrics.prompt_tokens,
                "tokens found in the cache": metrics.cached_tokens,
                "tokens computed": metrics.computed_tokens,
                "tokens generated": metrics.generated_tokens,
                "guesses": metrics.draft_tokens,
                "preempted": metrics.preemptions,
                "copies": metrics.copies,
                "failures injected": sum(fault.num_fired for fault in self.faults),
            }
        )


def simulate_engine(seed: int, num_requests: int = 20) -> Counter[str]:
    """Run one episode. Raises SimulationFailed."""
    try:
        return EngineEpisode(seed).run(num_requests)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py engine --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error
