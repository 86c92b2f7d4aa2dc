"""Random drivers of one engine: streams in turns, generate within them, steps by hand, cancels, passes that fail.

One seed makes one episode, on a random model whose tokens are bytes, with parameters at their extremes. Whoever drives
the engine, it must come to an end; each request gets what it gets alone, or says why not; and nobody owns a page in the
end.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from tokenizers import Tokenizer

from kvpaged.engine import BeamSearchParams, Engine, Params, Request, RequestOutput, SamplingParams
from kvpaged.model import Decoder, ModelConfig
from kvpaged.model.fast import fast
from support.byte_tokenizers import byte_fallback, byte_level
from support.faults import InjectedError
from support.simulation import SimulationFailed


@functools.cache
def opened(make: Callable[[], Tokenizer]) -> tuple[Decoder, Tokenizer]:
    """A small decoder with random weights for such a tokenizer."""
    tokenizer = make()
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=64,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
    return Decoder(config).eval(), tokenizer


class Unreliable:
    """A model some of whose passes fail, but never three in a row: what `generate` puts up with."""

    def __init__(self, model: Decoder, choose: random.Random) -> None:
        self.model, self.config, self.dtype, self.checkpoint = model, model.config, model.dtype, None
        self.choose, self.in_a_row, self.failed = choose, 0, 0

    def __call__(self, *arguments: object) -> object:
        self.in_a_row = self.in_a_row + 1 if self.in_a_row < 2 and self.choose.random() < 0.03 else 0
        if self.in_a_row:
            self.failed += 1
            raise InjectedError("injected")
        return fast(self.model)(*arguments)


def some_params(choose: random.Random) -> Params:
    """Parameters at their extremes more often than not."""
    if choose.random() < 0.2:
        penalty = choose.choice([-10, 0.0, 1, 10])
        return BeamSearchParams(
            beam_width=choose.choice([1, 2, 8]), max_tokens=choose.randint(1, 6), length_penalty=penalty
        )
    temperature = choose.choice([0, 1e-320, 0.5, 1.0, 1e308])
    return SamplingParams(
        n=1 if temperature == 0 else choose.choice([1, 1, 3]),
        temperature=temperature,
        top_k=choose.choice([-1, 0, 1, 5, 2**63 - 1]),
        top_p=choose.choice([5e-324, 0.5, 1.0]),
        seed=choose.choice([0, -(2**63) + 1, 2**63 - 1]),
        max_tokens=choose.randint(1, 9),
        stop=choose.choice([(), "the", ("\N{REPLACEMENT CHARACTER}", "s")]),
        logprobs=choose.choice([None, 0, 2**62]),
        ignore_eos=True,
    )


def simulate_drivers(seed: int, num_requests: int = 20) -> Counter[str]:
    """Run one episode. Raises SimulationFailed."""
    try:
        return _run(random.Random(seed), num_requests, [byte_fallback, byte_level][seed % 2])
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py drivers --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error


def _run(choose: random.Random, num_requests: int, make: Callable[[], Tokenizer]) -> Counter[str]:
    model, tokenizer = opened(make)
    unreliable = Unreliable(model, choose)
    engine = Engine(
        unreliable,
        num_pages=choose.choice([20, 60]),
        page_size=choose.choice([4, 16]),
        max_running=choose.choice([8, 64]),
        num_speculative_tokens=choose.choice([0, 3]),
        tokenizer=tokenizer,
    )
    counts: Counter[str] = Counter()
    streams: list[Iterator[RequestOutput]] = []
    submitted: list[Request] = []
    asked: dict[tuple[int, ...], Params] = {}
    last: dict[tuple[int, ...], RequestOutput] = {}
    while len(asked) < num_requests or streams or engine.num_unfinished:
        action = choose.random()
        if len(asked) < num_requests and action < 0.3:
            prompt, params = tuple(choose.choices(range(260), k=choose.randint(1, 20))), some_params(choose)
            if prompt not in asked:
                asked[prompt] = params
                driver = choose.random()
                if driver < 0.3:
                    [last[prompt]] = engine.generate([prompt], params)
                    counts["generated within a stream"] += bool(streams)
                elif driver < 0.5:
                    submitted.append(engine.submit(prompt, params))
                else:
                    streams.append(engine.stream([prompt], params))
        elif streams and action < 0.8:
            stream = choose.choice(streams)
            output = next(stream, None)
            if output is None:
                streams.remove(stream)
            else:
                last[tuple(output.prompt_tokens)] = output
        elif streams and action < 0.85:
            stream = streams.pop(choose.randrange(len(streams)))
            stream.close()
            counts["left"] += 1
        elif submitted and action < 0.87:
            counts["cancelled"] += engine.cancel(choose.choice(submitted))
        else:
            try:
                engine.step()
            except InjectedError:
                counts["steps that failed"] += 1
        engine.check()
    assert engine.cache.pool.num_used == len(engine.cache.prefix), "somebody still owns pages"
    last |= {tuple(request.prompt_tokens): engine.output(request) for request in submitted}
    for prompt, output in last.items():
        assert output.error is None, output.error
        if output.finished and all(each.finish_reason != "abort" for each in output.outputs):
            [alone] = Engine(model, 64, 16, tokenizer=tokenizer).generate([prompt], asked[prompt])
            assert [(each.tokens, each.text) for each in output.outputs] == [
                (each.tokens, each.text) for each in alone.outputs
            ], prompt
            counts["compared"] += 1
    counts["requests"] += len(asked)
    counts["passes that failed"] += unreliable.failed
    return counts
