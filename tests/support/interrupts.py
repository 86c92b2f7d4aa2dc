"""Interrupts on demand: an engine that is stopped before any line of the package, or at any moment, and goes on.

A scene is a few requests. It runs with a KeyboardInterrupt, or another error, before the first line, then before the
second, and so on; each time every request must get what it gets alone, and nobody may own a page for nothing.
"""

import functools
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import kvpaged
from kvpaged import EventLog
from kvpaged.engine import BeamSearchParams, Engine, Params, Request, SamplingParams
from kvpaged.model import load_model, load_tokenizer
from kvpaged.recall.text import make_story
from kvpaged.replay import Replay

MODEL = load_model("recall")
TOKENS = load_tokenizer("recall").encode(make_story(3, seed=6).text).ids
FIRST, SECOND, THIRD = TOKENS[:9], TOKENS[4:15], TOKENS[:17]


def greedy(max_tokens: int = 6) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)


def tokens_of(engine: Engine, request: Request) -> list[list[int]]:
    return [each.tokens for each in engine.output(request).outputs]


@functools.cache
def _alone(prompt: tuple[int, ...], params: Params) -> list[list[int]]:
    [output] = Engine(MODEL, 128, 4, prefix_caching=False).generate([prompt], params)
    return [each.tokens for each in output.outputs]


def alone(prompt: list[int], params: Params) -> list[list[int]]:
    """What a request gets from an engine that serves nobody else."""
    return _alone(tuple(prompt), params)


PACKAGE = str(Path(kvpaged.__file__).parent)


@contextmanager
def interrupted_at(*numbers: int, error: type[BaseException] = KeyboardInterrupt) -> Iterator[list[int]]:
    """Raise this error before these of the package's lines that run from here on; counts them all."""
    lines = [0]

    def trace(frame: FrameType, event: str, argument: object) -> object:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            lines[0] += 1
            if lines[0] in numbers:
                if lines[0] == max(numbers):
                    sys.settrace(None)
                else:  # an exception ends the tracing
                    sys.settrace(trace)
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


Asked = list[tuple[list[int], Params]]
SCENES: dict[str, tuple[Asked, dict[str, int]]] = {
    "greedy": ([(FIRST, greedy(3)), (THIRD, greedy(2))], {}),
    "samples": (
        [(FIRST, SamplingParams(n=3, seed=1, max_tokens=3, ignore_eos=True, logprobs=1)), (THIRD, greedy(2))],
        {},
    ),
    "beams": ([(FIRST, BeamSearchParams(beam_width=3, max_tokens=3)), (SECOND, greedy(2))], {}),
    "guesses": ([([*FIRST, *FIRST[:3]], greedy(6)), (SECOND, greedy(3))], {"num_speculative_tokens": 3}),
    "in one call": ([(FIRST, greedy(3)), (THIRD, greedy(2))], {"poisoned": False}),
    "few pages": ([(TOKENS[:7], greedy(7)), (TOKENS[4:12], greedy(6))], {"num_pages": 5}),
}


def run_interrupted(name: str, *numbers: int, error: type[BaseException] = KeyboardInterrupt) -> int:
    """Serve a scene by steps, interrupted before these lines; all must be as if that had not happened.

    Returns how many lines of the package ran.
    """
    (asked, options), events = SCENES[name], EventLog()
    engine = Engine(MODEL, page_size=4, events=events, **({"num_pages": 32, "poisoned": True} | options))
    outsider = engine.cache.sequence(range(3)) if "num_pages" not in options else None
    requests = [engine.submit(prompt, params) for prompt, params in asked]
    reported: list[Request] = []
    with interrupted_at(*numbers, error=error) as lines:
        try:
            for _ in range(100):
                if not engine.num_unfinished:
                    break
                reported += engine.step()
        except error:
            pass
    others = [] if outsider is None else [outsider]
    engine.cache.check()
    for _ in range(100):
        if not engine.num_unfinished:
            break
        reported += engine.step()
        engine.check(others)
    reported += engine.step()
    engine.check(others)
    for request, (prompt, params) in zip(requests, asked, strict=True):
        assert tokens_of(engine, request) == alone(prompt, params)
    assert len(reported) == len(set(reported))
    for sequence in others:
        assert sequence.tokens == [0, 1, 2]
        sequence.release()
    assert engine.cache.pool.num_used == len(engine.cache.prefix)
    assert Replay(4).apply_all(events).num_used == engine.cache.pool.num_used
    return lines[0]


def run_signalled(name: str, choose: random.Random) -> Counter[str]:
    """Let `generate` serve a scene until an alarm goes off at any moment; then serve it whole on the same engine."""
    (asked, options), counts = SCENES[name], Counter({"signals": 1})
    engine = Engine(
        MODEL, options.get("num_pages", 32), 4, num_speculative_tokens=options.get("num_speculative_tokens", 0)
    )
    prompts, params = [prompt for prompt, _ in asked], [params for _, params in asked]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-5, choose.choice([0.002, 0.03])))
            engine.generate(prompts, params)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the alarm may come just before, when all is served
    except KeyboardInterrupt:
        counts["interrupted"] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert engine.num_unfinished == 0, "an interrupt of generate did not cancel everything"
    engine.check()
    found = [[each.tokens for each in output.outputs] for output in engine.generate(prompts, params)]
    assert found == [alone(*each) for each in asked]
    engine.check()
    assert engine.cache.pool.num_used == len(engine.cache.prefix), "somebody still owns pages"
    return counts


def run_transformers(number: int = 0, error: type[BaseException] = KeyboardInterrupt) -> int:
    """Let transformers' `generate` write beams on pages, stopped before this line; then again, beside what is left.

    Returns how many lines of the package ran.
    """
    from kvpaged.adapters.huggingface import PagedCache
    from support.small_models import generate, memory_for, padded, prompts, served

    model, inputs = served("llama"), padded(prompts(3, seed=5, shortest=4, longest=9))
    settings = {"max_new_tokens": 3, "num_beams": 2}
    memory = memory_for(model, num_pages=64)
    outsider = memory.sequence([1, 2, 3])
    found = []

    def write() -> None:
        with PagedCache(model, memory, **inputs) as cache:
            found.append(generate(model.model, inputs, past_key_values=cache, **settings))
        assert memory.sequences == {outsider}

    with interrupted_at(number, error=error) as lines, suppress(error):
        write()
    memory.check()
    write()
    memory.check()
    assert outsider.tokens == [1, 2, 3]
    assert not model.model._forward_pre_hooks
    assert not model.model._forward_hooks
    assert all(each == generate(model.model, inputs, **settings) for each in found)
    return lines[0]
