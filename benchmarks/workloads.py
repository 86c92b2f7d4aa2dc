"""Five workloads, with the fast decoder, with the textbook's, and by `generate()` of transformers, on the same weights.

Random weights and prompts, float32, greedy, to the full length; each round takes every contestant in turn. One thread
is timed by the processor time it takes, which does not count waiting for other programs; more threads by the clock.
Printed are medians over rounds: seconds, tokens generated per second, and the time over that of the first contestant.

    OMP_NUM_THREADS=1 python benchmarks/workloads.py [--model small] [--threads 1] [--rounds 3] [single uniform ...]

For two threads set OMP_NUM_THREADS=2, on a quiet machine. A checkout of another commit is compared by running the same
file there: `--only kvpaged` measures the engine alone.
"""

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import torch
import typer

from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig

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
BATCH = 16  # of transformers


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


def serve(model: Any, requests: list[Request]) -> None:
    """A new engine, with room for all."""
    params = [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for _, length in requests]
    Engine(model, num_pages=4096, page_size=16).generate([prompt for prompt, _ in requests], params)


def by_transformers(decoder: Decoder) -> Callable[[list[Request]], None]:
    """Padded batches, in the order of the requests."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = decoder.config
    shape = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=False,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(shape).eval()
    weights = {name if name.startswith("lm_head") else f"model.{name}": w for name, w in decoder.state_dict().items()}
    model.load_state_dict(weights)

    def run(requests: list[Request]) -> None:
        for batch in (requests[begin : begin + BATCH] for begin in range(0, len(requests), BATCH)):
            width, longest = max(len(prompt) for prompt, _ in batch), max(length for _, length in batch)
            padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in batch])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])
            with torch.inference_mode():
                model.generate(padded, attention_mask=mask, do_sample=False, max_new_tokens=longest, pad_token_id=0)

    return run


def main(
    workloads: Annotated[list[str] | None, typer.Argument(help="Which; all, if none is named.")] = None,
    model: Annotated[str, typer.Option(help="small (4 million parameters) or big (108 million).")] = "small",
    threads: int = 1,
    rounds: int = 3,
    only: Annotated[str | None, typer.Option(help="One contestant.")] = None,
) -> None:
    """Measure, and print a line for each workload and contestant."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    decoder = Decoder(MODELS[model]).requires_grad_(False)
    contestants: dict[str, Callable[[list[Request]], None]] = {
        "kvpaged": lambda requests: serve(decoder, requests),
        "textbook": lambda requests: serve(Textbook(decoder), requests),
    }
    if only in (None, "transformers"):
        contestants["transformers"] = by_transformers(decoder)
    names = [only] if only else list(contestants)
    clock = time.process_time if threads == 1 else time.perf_counter
    for workload in workloads or WORKLOADS:
        requests = requests_of(workload, decoder.config.vocab_size)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for name in names:  # compiles, and warms up
            contestants[name]([(requests[0][0][:64], 4)])
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                started = clock()
                contestants[name](requests)
                seconds[name].append(clock() - started)
        wanted = sum(length for _, length in requests)
        for name in names:
            spent = median(seconds[name])
            ratio = median(a / b for a, b in zip(seconds[name], seconds[names[0]], strict=True))
            print(f"{model} {workload:<8} {name:<13}{spent:8.2f} s {wanted / spent:8,.0f} tokens/s {ratio:6.2f}")


if __name__ == "__main__":
    typer.run(main)
