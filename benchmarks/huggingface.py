"""What `generate()` of transformers costs with its default cache and with ours: tokens/s, and peak bytes of K and V.

One model, unmodified, in both cases; ours reads pages in place (attention "kvpaged"). Batch 1: a prompt of 128 tokens.
Uniform: 16 such prompts. Ragged: 16 prompts of 16 to 512 tokens, padded on the left. Shared: 8 prompts that begin with
the same 256 tokens and go on with 16 of their own; the first call, so nothing is cached yet. Beams: 4 prompts of 128
tokens, searched with 4 and with 8 beams. Each generates 64 tokens.

Bytes are those of the tensors that the default cache holds, and of the pages that our rows own, after each step; the
largest counts. `torch.cat`, with which the default cache grows, needs the double of a layer for a moment: not counted.
What the prefix cache keeps beyond that gives way when pages are needed, and is not counted either.
The engine is there for comparison: the ragged prompts as requests of their own, in packed batches, without padding.

All run greedily to the full length, on one thread, in turns; ratios are medians over rounds of what one round measured
side by side. Prompts are random and new in each round, so no round profits from an earlier one.

    OMP_NUM_THREADS=1 python benchmarks/huggingface.py
"""

import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils import logging

from kvpaged import PagedKVCache
from kvpaged.adapters.huggingface import HuggingFaceModel, PagedCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model.compute import open_storage

NUM_PAGES, PAGE_SIZE = 4096, 16
NEW_TOKENS = 64
Texts = list[list[int]]
Inputs = dict[str, Tensor]
console = Console(width=110)

SHAPES: dict[str, PreTrainedConfig] = {
    "Llama, 4 layers of 256, 8 heads over 4 kv heads": LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        eos_token_id=None,
    ),
    "the shape of distilgpt2: 6 layers of 768, 12 heads": GPT2Config(
        vocab_size=2048, n_embd=768, n_layer=6, n_head=12, n_positions=1024, bos_token_id=0, eos_token_id=None
    ),
}


@dataclass
class Workload:
    """How prompts are made, and with how many beams they are continued."""

    texts: Callable[[random.Random], Texts]
    num_beams: int = 1


def random_text(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(1, 2048) for _ in range(length)]


def shared(rng: random.Random) -> Texts:
    prefix = random_text(rng, 256)
    return [prefix + random_text(rng, 16) for _ in range(8)]


WORKLOADS = {
    "batch 1": Workload(lambda rng: [random_text(rng, 128)]),
    "uniform, 16 prompts": Workload(lambda rng: [random_text(rng, 128) for _ in range(16)]),
    "ragged, 16 prompts": Workload(lambda rng: [random_text(rng, rng.randint(16, 512)) for _ in range(16)]),
    "shared prefix, 8 prompts": Workload(shared),
    "4 beams, 4 prompts": Workload(lambda rng: [random_text(rng, 128) for _ in range(4)], num_beams=4),
    "8 beams, 4 prompts": Workload(lambda rng: [random_text(rng, 128) for _ in range(4)], num_beams=8),
}


class Peak(StoppingCriteria):
    """Looks at a cache after each step, and stops nothing."""

    def __init__(self, num_bytes: Callable[[], int]) -> None:
        self.num_bytes, self.peak = num_bytes, 0

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self.peak = max(self.peak, self.num_bytes())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def default_bytes(cache: DynamicCache) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized)


def padded(texts: Texts) -> Inputs:
    width = max(map(len, texts))
    return {
        "input_ids": torch.tensor([[0] * (width - len(text)) + text for text in texts]),
        "attention_mask": torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts]),
    }


class Sides:
    """One model, run with either cache."""

    def __init__(self, config: PreTrainedConfig) -> None:
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(config).eval()
        self.served = HuggingFaceModel(self.model)
        self.memory = PagedKVCache(NUM_PAGES, PAGE_SIZE, storage=open_storage(self.served, NUM_PAGES, PAGE_SIZE))

    def default(self, inputs: Inputs, num_beams: int, measured: bool = False) -> tuple[list[list[int]], int]:
        self.model.set_attn_implementation("sdpa")
        cache = DynamicCache(config=self.model.config)
        return self._generate(inputs, num_beams, cache, Peak(lambda: default_bytes(cache)) if measured else None)

    def paged(self, inputs: Inputs, num_beams: int, measured: bool = False) -> tuple[list[list[int]], int]:
        self.model.set_attn_implementation("kvpaged")
        with PagedCache(self.served, self.memory, **inputs) as cache:
            return self._generate(inputs, num_beams, cache, Peak(lambda: cache.num_bytes) if measured else None)

    def engine(self, texts: Texts) -> list[list[int]]:
        self.model.set_attn_implementation("kvpaged")
        params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
        outputs = Engine(self.served, NUM_PAGES, PAGE_SIZE).generate(texts, params)
        return [output.outputs[0].tokens for output in outputs]

    @torch.inference_mode()
    def _generate(self, inputs: Inputs, num_beams: int, cache: Any, peak: Peak | None) -> tuple[list[list[int]], int]:
        found = self.model.generate(
            **inputs,
            past_key_values=cache,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=num_beams,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([peak] if peak else []),
        )
        return found[:, inputs["input_ids"].shape[1] :].tolist(), peak.peak if peak else 0


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def compare(sides: Sides, workload: Workload, rounds: int) -> dict[str, float]:
    """Tokens/s and bytes of both sides; ratios; the share of outputs that are the same."""
    beams = workload.num_beams
    inputs = padded(workload.texts(random.Random(0)))
    default_peak = sides.default(inputs, beams, measured=True)[1]
    paged_peak = sides.paged(inputs, beams, measured=True)[1]
    seconds: list[tuple[float, float]] = []
    same: list[float] = []
    for seed in range(1, rounds + 1):
        inputs = padded(workload.texts(random.Random(seed)))
        default_seconds, (expected, _) = timed(lambda inputs=inputs: sides.default(inputs, beams))
        paged_seconds, (found, _) = timed(lambda inputs=inputs: sides.paged(inputs, beams))
        seconds.append((default_seconds, paged_seconds))
        same.append(mean(a == b for a, b in zip(expected, found, strict=True)))
    num_tokens = len(inputs["input_ids"]) * NEW_TOKENS
    return {
        "default": num_tokens / median(default for default, _ in seconds),
        "paged": num_tokens / median(paged for _, paged in seconds),
        "speed": median(default / paged for default, paged in seconds),
        "default_bytes": default_peak,
        "paged_bytes": paged_peak,
        "memory": default_peak / paged_peak,
        "same": mean(same),
    }


def compare_engine(sides: Sides, rounds: int) -> float:
    """How many times as fast as the default cache the engine is on the ragged prompts."""
    ratios = []
    for seed in range(rounds + 1):
        texts = WORKLOADS["ragged, 16 prompts"].texts(random.Random(seed))
        default_seconds, _ = timed(lambda texts=texts: sides.default(padded(texts), 1))
        ratios.append(default_seconds / timed(lambda texts=texts: sides.engine(texts))[0])
    return median(ratios[1:])


def main(rounds: Annotated[int, typer.Option(help="Rounds after the first, which warms up.")] = 5) -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    for name, config in SHAPES.items():
        sides = Sides(config)
        table = Table(
            "workload", "tokens/s, default", "ours", "ratio", "MB, default", "ours", "ratio", "same", title=name
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for label, workload in WORKLOADS.items():
            found = compare(sides, workload, rounds)
            table.add_row(
                label,
                f"{found['default']:,.0f}",
                f"{found['paged']:,.0f}",
                f"{found['speed']:.2f}",
                f"{found['default_bytes'] / 1e6:.2f}",
                f"{found['paged_bytes'] / 1e6:.2f}",
                f"{found['memory']:.2f}",
                f"{found['same']:.0%}",
            )
        console.print(table)
        console.print(f"The engine on the ragged prompts: {compare_engine(sides, rounds):.2f} times as fast.\n")


if __name__ == "__main__":
    typer.run(main)
