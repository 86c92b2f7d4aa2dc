"""Random drivers of one engine: streams in turns, generate within them, steps by hand, cancels, and strange parameters.

One seed makes one episode, on a random model whose vocabulary is bytes. Whoever drives it, it must come to an end; each
request gets what it gets alone, or says why not; and nobody owns a page in the end.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer, decoders, models

from kvpaged.engine import BeamSearchParams, Engine, Params, RequestOutput, SamplingParams
from kvpaged.model import Decoder, ModelConfig
from support.simulation import SimulationFailed

WORDS = ["▁the", "▁cat", "s", "▁"]


@functools.cache
def opened() -> tuple[Decoder, Tokenizer]:
    """A small decoder with random weights, and a tokenizer that falls back to bytes, as Llama 2's does."""
    vocabulary = {token: at for at, token in enumerate([*(f"<0x{byte:02X}>" for byte in range(256)), *WORDS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
    return Decoder(config).eval(), tokenizer


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
        return _run(random.Random(seed), num_requests)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py drivers --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error


def _run(choose: random.Random, num_requests: int) -> Counter[str]:
    model, tokenizer = opened()
    engine = Engine(
        model,
        num_pages=choose.choice([20, 60]),
        page_size=choose.choice([4, 16]),
        max_running=choose.choice([8, 64]),
        num_speculative_tokens=choose.choice([0, 3]),
        tokenizer=tokenizer,
    )
    counts: Counter[str] = Counter()
    streams: list[Iterator[RequestOutput]] = []
    asked: dict[tuple[int, ...], Params] = {}
    last: dict[tuple[int, ...], RequestOutput] = {}
    while len(asked) < num_requests or streams:
        action = choose.random()
        if len(asked) < num_requests and action < 0.3:
            prompt, params = tuple(choose.choices(range(260), k=choose.randint(1, 20))), some_params(choose)
            if prompt not in asked:
                asked[prompt] = params
                if choose.random() < 0.3:
                    [last[prompt]] = engine.generate([prompt], params)
                    counts["generated within a stream"] += bool(streams)
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
        else:
            engine.step()
        engine.check()
    assert engine.num_unfinished == 0, "a stream ended, and its request did not"
    assert engine.cache.pool.num_used == len(engine.cache.prefix), "somebody still owns pages"
    for prompt, output in last.items():
        assert output.error is None, output.error
        if output.finished:
            [alone] = Engine(model, 64, 16, tokenizer=tokenizer).generate([prompt], asked[prompt])
            assert [(each.tokens, each.text) for each in output.outputs] == [
                (each.tokens, each.text) for each in alone.outputs
            ], prompt
            counts["compared"] += 1
    counts["requests"] += len(asked)
    return counts
