"""The small engine of the chapters beside the package: one history, two systems that must agree.

`compare_books` leads both through the same beginnings, appends, forks and ends, without a model. `compare_engines`
gives both the same prompts, and pools that are too small for them.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from kvpaged import PagedKVCache, mini
from kvpaged.sequence import Sequence
from support.simulation import SimulationFailed

AMPLE = 2_000  # pages: nothing is ever evicted


def compare_books(seed: int, num_requests: int = 20) -> Counter[str]:
    """The same history in an ample pool: both find the same tokens and hold the same pages, after every step."""
    return _named("books", seed, num_requests, _compare_books)


def compare_engines(seed: int, num_requests: int = 6) -> Counter[str]:
    """The same prompts in a pool as small as they allow: both say the same tokens."""
    return _named("small", seed, num_requests, _compare_engines)


def _named(command: str, seed: int, num_requests: int, compare: Callable[[int, int], Counter[str]]) -> Counter[str]:
    try:
        return compare(seed, num_requests)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py {command} --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error


def _compare_books(seed: int, num_requests: int) -> Counter[str]:
    choose, counts = random.Random(seed), Counter[str]()
    page_size = choose.choice([1, 2, 3, 4, 8])
    small, large = mini.Cache(AMPLE, page_size), PagedKVCache(AMPLE, page_size)
    live: list[tuple[Any, Sequence]] = []
    while counts["requests"] < num_requests or live:
        coming = counts["requests"] < num_requests
        what = choose.choices(("begin", "append", "fork", "end"), (2 * coming, 5, coming, 2))[0]
        if what == "begin":
            tokens = [choose.randrange(2) for _ in range(choose.randint(1, 4 * page_size + 2))]
            salt = choose.choice([None, "Ada's"])
            pair = mini.begin(small, tokens, salt), large.sequence(tokens, salt)
            assert pair[0].num_cached_tokens == pair[1].num_cached_tokens
            counts["requests"] += 1
            counts["tokens found"] += pair[1].num_cached_tokens
            live.append(pair)
            _compute(*pair)
        elif live:
            pair = choose.choice(live)
            if what == "append":
                token = choose.randrange(2)
                mini.append(pair[0], token)
                pair[1].append(token)
                _compute(*pair)
            elif what == "fork":
                live.append((mini.fork(pair[0]), pair[1].fork()))
            else:
                live.remove(pair)
                mini.end(pair[0])
                pair[1].release()
            counts[what] += 1
        assert len(small.pool.free) == large.pool.num_free
        assert len(small.by_use) == len(large.prefix)
    large.check()
    return counts


def _compute(small: Any, large: Sequence) -> None:
    mini.mark_computed(small, len(small.tokens))
    large.mark_computed()


def _compare_engines(seed: int, num_requests: int) -> Counter[str]:
    from kvpaged.engine import Engine, SamplingParams

    model, tokenizer, texts = _recall()
    choose = random.Random(seed)
    prompts = [tokenizer.encode(choose.choice(texts)).ids for _ in range(num_requests)]
    lengths = [choose.randint(1, 10) for _ in prompts]
    page_size, budget = choose.choice([1, 3, 4, 8, 16]), choose.choice([1, 5, 16, 64])
    least = max(mini.pages_for(len(p) + n - 1, page_size) for p, n in zip(prompts, lengths, strict=True))
    num_pages = choose.randint(least, 2 * least)

    small = mini.SmallEngine(model, num_pages, page_size, budget, eos=tokenizer.token_to_id("<eos>"))
    requests = [mini.Request(prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]
    small.waiting += requests
    counts = Counter[str](requests=num_requests)
    while small.running or small.waiting:
        running = len(small.running)
        mini.step(small)
        counts["steps"] += 1
        counts["steps in which nobody new could begin"] += bool(small.waiting) and len(small.running) <= running
    large = Engine(model, num_pages, page_size, max_batched_tokens=budget)
    greedy = [SamplingParams(temperature=0, max_tokens=n) for n in lengths]
    for request, output in zip(requests, large.generate(prompts, greedy), strict=True):
        assert request.output == output.outputs[0].tokens
    assert len(small.cache.pool.free) + len(small.cache.by_use) == num_pages, "a page is owned by nobody who lives"
    counts["tokens"] = sum(len(request.output) for request in requests)
    counts["preempted by the package"] = large.metrics().preemptions
    return counts


@functools.cache
def _recall() -> tuple[Any, Any, list[str]]:
    """The recall model, its tokenizer, and stories with what is asked about them: some begin alike."""
    from kvpaged.model import load_model, load_tokenizer
    from kvpaged.recall.text import make_stories

    texts = []
    for story in make_stories(4, num_facts=3, seed=3):
        beginnings = [" ".join(fact.text for fact in story.facts[:n]) for n in (1, 2, 3)]
        texts += [f"{begin} {end}" for begin in beginnings for end in ("Where is the", "Cy looks for the", "Bo hid")]
    return load_model("recall"), load_tokenizer("recall"), texts
