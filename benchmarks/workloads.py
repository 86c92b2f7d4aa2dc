"""Five workloads: the engine with the fast decoder and with the textbook's, and other engines, on the same weights.

Random weights and prompts, float32, greedy, to the full length; each round takes every contestant in turn. One thread
is timed by the processor time it takes, which does not count waiting for other programs; more threads by the clock.
Printed are medians over rounds: seconds, tokens generated per second, and the time over that of the first contestant;
then the requests answered with the first's tokens.

    OMP_NUM_THREADS=1 python benchmarks/workloads.py [--model small] [--rounds 3] [single uniform ...]
        [--peer transformers=python --peer openvino=ENVIRONMENT/bin/python ...]

Which peers there are, and what each needs, stands in `peers.py`; without `--peer`, transformers runs in this Python.
For two threads set OMP_NUM_THREADS=2, on a quiet machine. A checkout of another commit is compared by running the same
file there: `--only kvpaged` measures the engine alone.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from subprocess import PIPE
from typing import Annotated, Any

import torch
import typer

from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig, load_tokenizer
from kvpaged.recall.checkpoint import save_recall

MODELS = {
    "small": ModelConfig(
        vocab_size=2048, hidden_size=256, intermediate_size=704, num_layers=4, num_heads=8, num_kv_heads=4, head_dim=32,
        max_position_embeddings=8192,
    ),
    "big": ModelConfig(
        vocab_size=8192, hidden_size=768, intermediate_size=2304, num_layers=12, num_heads=12, num_kv_heads=12,
        head_dim=64, max_position_embeddings=8192,
    ),
}  # fmt: skip
Request = tuple[list[int], int]  # a prompt, and how many tokens to generate
Answer = tuple[float, list[list[int]]]  # seconds, and what each request was answered with
Run = Callable[[list[Request]], Answer]
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
clock = time.process_time if THREADS == 1 else time.perf_counter


def requests_of(workload: str, vocab_size: int) -> list[Request]:
    """The requests of a workload; the same each time."""
    rng = random.Random(0)

    def text(length: int) -> list[int]:
        return [rng.randrange(1, vocab_size) for _ in range(length)]

    if workload == "single":
        return [(text(128), 256)]
    if workload == "uniform":
        return [(text(128), 128) for _ in range(32)]
    if workload == "ragged":
        return [(text(rng.randint(16, 512)), rng.randint(16, 256)) for _ in range(64)]
    if workload == "long":
        return [(text(4096), 64) for _ in range(8)]
    if workload == "shared":
        beginning = text(384)
        return [(beginning + text(32), 32) for _ in range(64)]
    raise typer.BadParameter(f"no workload {workload}: give {', '.join(WORKLOADS)}")


WORKLOADS = ("single", "uniform", "ragged", "long", "shared")


class Textbook:
    """A decoder that the engine takes as it is."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.config, self.dtype, self.checkpoint = decoder, decoder.config, decoder.dtype, None

    def __call__(self, *arguments: Any) -> Any:
        return self.decoder(*arguments)


def serve(model: Any, requests: list[Request]) -> Answer:
    """A new engine, with room for all."""
    params = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for _, length in requests]
    started = clock()
    engine = Engine(model, num_pages=4096, page_size=16)
    outputs = engine.generate([prompt for prompt, _ in requests], params)
    return clock() - started, [each.outputs[0].tokens for each in outputs]


@contextmanager
def stored(decoder: Decoder) -> Iterator[Path]:
    """A folder with the decoder in Hugging Face's layout, and some tokenizer, which nobody asks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_recall(decoder, load_tokenizer("recall"), folder)
        yield folder


def ready(name: str, python: str, folder: Path, leaving: ExitStack) -> Run | None:
    """A peer that has loaded the model, to be stopped on leaving; None, and a line that says why, if it cannot."""
    command = [python, "-I", str(Path(__file__).with_name("peers.py")), name, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    errors = leaving.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
    try:
        peer = leaving.enter_context(
            subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors, text=True, env=environment)
        )
    except OSError as error:
        print(f"without {name}: {error}")
        return None
    leaving.callback(peer.kill)
    assert peer.stdin
    assert peer.stdout
    asked, said = peer.stdin, peer.stdout
    if not said.readline():
        errors.seek(0)
        print(f"without {name}: {(errors.read().splitlines() or ['it said nothing'])[-1]}")
        return None

    def run(requests: list[Request]) -> Answer:
        print(json.dumps(requests), file=asked, flush=True)
        answer = said.readline()
        if not answer:
            errors.seek(0)
            raise RuntimeError(f"{name} stopped: {errors.read()[-3000:]}")
        seconds, tokens = json.loads(answer)
        return seconds, tokens

    return run


def main(
    workloads: Annotated[list[str] | None, typer.Argument(help="Which; all, if none is named.")] = None,
    model: Annotated[str, typer.Option(help="small (4 million parameters) or big (108 million).")] = "small",
    rounds: int = 3,
    peer: Annotated[
        list[str] | None, typer.Option(help="NAME=PYTHON: another engine, and the Python it is in.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="One contestant.")] = None,
) -> None:
    """Measure, and print a line for each workload and contestant."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    decoder = Decoder(MODELS[model]).requires_grad_(False)
    contestants: dict[str, Run] = {
        "kvpaged": lambda requests: serve(decoder, requests),
        "textbook": lambda requests: serve(Textbook(decoder), requests),
    }
    with ExitStack() as leaving:
        folder = leaving.enter_context(stored(decoder))
        for name, python in (each.split("=", 1) for each in peer or [f"transformers={sys.executable}"]):
            if only in (None, name) and (run := ready(name, python, folder, leaving)):
                contestants[name] = run
        if only:
            contestants = {only: contestants[only]}
        compete(contestants, workloads or WORKLOADS, rounds, model)


def compete(contestants: dict[str, Run], workloads: Iterable[str], rounds: int, model: str) -> None:
    """Each workload, a number of rounds."""
    names = list(contestants)
    for workload in workloads:
        requests = requests_of(workload, MODELS[model].vocab_size)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        tokens = {}
        for name in names:  # compiles, and warms up
            contestants[name]([(requests[0][0][:64], 4)])
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                spent, tokens[name] = contestants[name](requests)
                seconds[name].append(spent)
        wanted = sum(length for _, length in requests)
        for name in names:
            spent = median(seconds[name])
            ratio = median(a / b for a, b in zip(seconds[name], seconds[names[0]], strict=True))
            same = sum(one == two for one, two in zip(tokens[name], tokens[names[0]], strict=True))
            print(
                f"{model} {workload:<8} {name:<13}{spent:8.2f} s {wanted / spent:8,.0f} tokens/s {ratio:6.2f} "
                f"{same:3} of {len(requests)}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
