"""What serving costs: the engine's overhead, and its tokens/s beside `generate()` of transformers on the same weights.

Overhead: the share of a decode step that is not the model's forward pass, with 32 requests of the recall model running.
Attention, and the writing of K and V, are part of the forward pass.
Kernel: decode steps of 32 requests of 512 tokens that read pages in place, against steps that gather them first.
Uniform: 32 prompts of 128 tokens, 64 tokens each; transformers gets them as one batch.
Ragged: 64 requests, prompts of 16 to 512 tokens, 16 to 256 to generate; transformers gets them in arrival order, in
padded batches, each of which runs until its longest output is there. The first round, which warms up, finds the batch
size that suits it best. Only tokens that were asked for count.
Both sides run greedily, to the full length, on one thread, in turns; ratios are medians over rounds of what one round
measured side by side. The tokens of both are compared.

    OMP_NUM_THREADS=1 python benchmarks/engine.py
"""

import logging
import random
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from kvpaged.engine import Engine, Request, SamplingParams
from kvpaged.model import Decoder, load_model

RUNNING = 32
UNIFORM = [(128, 64)] * 32
BATCH_SIZES = (8, 16, 32, 64)
console = Console(width=110)


def ragged(seed: int) -> list[tuple[int, int]]:
    """Prompt and output lengths of 64 requests."""
    rng = random.Random(seed)
    return [(rng.randint(16, 512), rng.randint(16, 256)) for _ in range(64)]


def prompts_of(lengths: Sequence[tuple[int, int]], vocab_size: int, seed: int) -> list[list[int]]:
    """Random tokens: nothing is shared, so prefix caching brings no advantage."""
    rng = random.Random(seed)
    return [[rng.randrange(1, vocab_size) for _ in range(length)] for length, _ in lengths]


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)


def run_engine(model: Decoder, prompts: list[list[int]], lengths: Sequence[tuple[int, int]]) -> list[list[int]]:
    """A new engine, with room for all, so that each round computes everything."""
    outputs = Engine(model, num_pages=4096, page_size=16).generate(prompts, [greedy(length) for _, length in lengths])
    return [output.outputs[0].tokens for output in outputs]


def run_transformers(
    model: LlamaForCausalLM, prompts: list[list[int]], lengths: Sequence[tuple[int, int]], batch_size: int
) -> list[list[int]]:
    """Padded batches, one after another."""
    outputs = []
    for start in range(0, len(prompts), batch_size):
        batch, wanted = prompts[start : start + batch_size], lengths[start : start + batch_size]
        width, longest = max(map(len, batch)), max(length for _, length in wanted)
        padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        with torch.inference_mode():
            found = model.generate(padded, attention_mask=mask, do_sample=False, max_new_tokens=longest, pad_token_id=0)
        outputs += [row[width : width + length].tolist() for row, (_, length) in zip(found, wanted, strict=True)]
    return outputs


def timed(action: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    start = time.perf_counter()
    tokens = action()
    return time.perf_counter() - start, tokens


def compare(
    ours: Decoder, theirs: LlamaForCausalLM, lengths: Sequence[tuple[int, int]], batch_sizes: Sequence[int], rounds: int
) -> dict[str, float]:
    """Tokens/s of both sides, and the ratio, medians over rounds; and the share of requests with the same tokens."""

    def run_ours(prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
        return timed(lambda: run_engine(ours, prompts, lengths))

    def run_theirs(prompts: list[list[int]], batch_size: int) -> tuple[float, list[list[int]]]:
        return timed(lambda: run_transformers(theirs, prompts, lengths, batch_size))

    prompts = prompts_of(lengths, ours.config.vocab_size, 0)
    run_ours(prompts)
    batch_size = min(batch_sizes, key=lambda size: run_theirs(prompts, size)[0])
    wanted = sum(length for _, length in lengths)
    my_seconds, their_seconds, same = [], [], []
    for seed in range(1, rounds + 1):
        prompts = prompts_of(lengths, ours.config.vocab_size, seed)
        seconds, mine = run_ours(prompts)
        my_seconds.append(seconds)
        seconds, expected = run_theirs(prompts, batch_size)
        their_seconds.append(seconds)
        same.append(mean(a == b for a, b in zip(mine, expected, strict=True)))
    return {
        "ours": wanted / median(my_seconds),
        "theirs": wanted / median(their_seconds),
        "ratio": median(theirs / ours for ours, theirs in zip(my_seconds, their_seconds, strict=True)),
        "same": mean(same),
        "batch_size": batch_size,
    }


def overhead(model: Decoder, steps: int) -> dict[str, float]:
    """Medians over decode steps: milliseconds of a step, and the share of it that is not the forward pass."""
    engine = Engine(model, num_pages=4096, page_size=16)
    prompts = prompts_of([(128, 0)] * RUNNING, model.config.vocab_size, 0)
    for prompt in prompts:
        engine.submit(prompt, greedy(steps + 40))
    for _ in range(20):  # prompts, and the first decode steps
        engine.step()
    seconds, shares = [], []
    before = engine.metrics()
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        spent = time.perf_counter() - start
        after = engine.metrics()
        assert engine.history[-1].tokens == RUNNING
        seconds.append(spent)
        shares.append(1 - (after.forward_seconds - before.forward_seconds) / spent)
        before = after
    return {"step_ms": 1e3 * median(seconds), "overhead": median(shares)}


def kernel_against_gather(model: Decoder, steps: int) -> dict[str, float]:
    """Milliseconds of a decode step of each, and the ratio, medians over steps taken in turns."""
    prompts = prompts_of([(512, 0)] * RUNNING, model.config.vocab_size, 0)
    engines: dict[str, Engine] = {}
    requests: dict[str, list[Request]] = {}
    for backend in ("kernel", "gather"):
        engines[backend] = Engine(model, num_pages=4096, page_size=16)
        requests[backend] = [engines[backend].submit(prompt, greedy(steps + 60)) for prompt in prompts]
    seconds: dict[str, list[float]] = {backend: [] for backend in engines}
    for step in range(-50, steps):  # first the prompts, and the first decode steps
        for backend, engine in engines.items():
            with patch("kvpaged.attention.default_backend", lambda head_dim, backend=backend: backend):
                start = time.perf_counter()
                engine.step()
                if step >= 0:
                    assert engine.history[-1].tokens == RUNNING
                    seconds[backend].append(time.perf_counter() - start)
    for one, other in zip(requests["kernel"], requests["gather"], strict=True):
        assert engines["kernel"].output(one).outputs[0].tokens == engines["gather"].output(other).outputs[0].tokens
    return {
        "kernel_ms": 1e3 * median(seconds["kernel"]),
        "gather_ms": 1e3 * median(seconds["gather"]),
        "ratio": median(theirs / ours for ours, theirs in zip(seconds["kernel"], seconds["gather"], strict=True)),
    }


def pair(config: LlamaConfig | None) -> tuple[Decoder, LlamaForCausalLM]:
    """The same weights in both: the recall model's, or random ones of a shape."""
    if config is None:
        ours = load_model("recall")
        assert ours.checkpoint is not None
        theirs = LlamaForCausalLM.from_pretrained(ours.checkpoint, dtype=torch.float32).eval()
        theirs.generation_config.eos_token_id = None  # as the engine ignores it
        return ours, theirs
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(config).eval()
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return load_model(Path(folder)), theirs


def main(
    rounds: Annotated[int, typer.Option(help="Rounds after the first, which warms up.")] = 5,
    steps: Annotated[int, typer.Option(help="Decode steps over which the overhead is measured.")] = 200,
) -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    shapes = {
        "recall (2 layers, hidden 128)": None,
        "random (4 layers, hidden 256)": LlamaConfig(
            vocab_size=2048,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            eos_token_id=None,
        ),
    }
    found = overhead(load_model("recall"), steps)
    console.print(
        f"A decode step of {RUNNING} requests of the recall model takes {found['step_ms']:.2f} ms; "
        f"{found['overhead']:.1%} of it is not the model."
    )
    found = kernel_against_gather(load_model("recall"), steps)
    console.print(
        f"With 512 tokens of context each it takes {found['kernel_ms']:.2f} ms by the kernel, "
        f"{found['gather_ms']:.2f} ms by gathering: {found['ratio']:.2f} times as fast, with the same tokens."
    )
    for name, config in shapes.items():
        ours, theirs = pair(config)
        for workload, lengths, batch_sizes in (
            ("uniform", UNIFORM, (len(UNIFORM),)),
            ("ragged", ragged(0), BATCH_SIZES),
        ):
            found = compare(ours, theirs, lengths, batch_sizes, rounds)
            console.print(
                f"{name}, {workload}: {found['ratio']:.2f} times as fast; {found['ours']:,.0f} tokens/s against "
                f"{found['theirs']:,.0f} in batches of {found['batch_size']}; {found['same']:.1%} of outputs the same."
            )


if __name__ == "__main__":
    typer.run(main)
