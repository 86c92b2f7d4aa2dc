"""Decode attention on pages of 8 and 4 bits against decode attention on float32 pages, side by side in one process.

    python benchmarks/quantised.py [--store]

All read in place, by the same kernel, the same numbers to within half a scale. Every contestant runs once per round, in
turn; a figure is the median over rounds of a ratio within the round: how many times as fast as on float32 pages. One
thread, timed by the processor time it takes, which does not count waiting for other programs; two by the clock. Each
run takes another layer, as decoding does, so that K and V come from memory and not from a cache. `--store` keeps what
is found in `kvpaged/lab/quantised.json`, to be shown in the book.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer

from kvpaged.attention import paged_attention_decode
from kvpaged.page import PageStorage
from kvpaged.quantised import QuantisedStorage, TailStorage, TokenStorage

STORED = Path(__file__).parents[1] / "kvpaged" / "lab" / "quantised.json"
PAGE_SIZE, COLD = 16, 130e6  # bytes of all layers together in float32, which no cache holds
KINDS: dict[str, Callable[..., PageStorage]] = {
    "float32": PageStorage,
    "token, 8 bits": functools.partial(TokenStorage, bits=8),
    "token, 4 bits": functools.partial(TokenStorage, bits=4),
    "tail, 8 bits": functools.partial(TailStorage, bits=8),
    "tail, 4 bits": functools.partial(TailStorage, bits=4),
}


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    batch: int

    @property
    def num_bytes(self) -> int:
        """K and V of one layer in float32."""
        return 2 * self.batch * self.context * self.kv_heads * self.head_dim * 4


SHAPES = [
    Shape(8, 8, 64, 4096, 4),
    Shape(8, 8, 128, 8192, 1),
    Shape(32, 8, 64, 16384, 1),
    Shape(32, 8, 128, 4096, 4),
]


def contestants(shape: Shape, num_layers: int) -> dict[str, Callable[[int], torch.Tensor]]:
    """For each kind of page, a function that decodes one token for each sequence in a layer."""
    heads, kv_heads, head_dim, context, batch = shape
    per_sequence = context // PAGE_SIZE
    ids = torch.randperm(batch * per_sequence).view(batch, -1)
    query, lengths = torch.randn(batch, heads, head_dim), torch.full((batch,), context, dtype=torch.int32)
    storages = {}
    for name, kind in KINDS.items():
        storages[name] = kind(batch * per_sequence, PAGE_SIZE, num_layers, kv_heads, head_dim)
    for layer in range(num_layers):
        for pages in ids.view(-1, min(64, per_sequence)):
            keys, values = torch.randn(2, len(pages) * PAGE_SIZE, kv_heads, head_dim)
            slots = (pages[:, None] * PAGE_SIZE + torch.arange(PAGE_SIZE)).flatten()
            for storage in storages.values():
                storage.write(layer, slots, keys, values)
    for storage in storages.values():
        if isinstance(storage, QuantisedStorage):
            storage.finish(ids[:, :-1].flatten())

    def decode(storage: PageStorage, layer: int) -> torch.Tensor:
        return paged_attention_decode(query, storage, ids.int(), lengths, layer, "kernel")

    exact = decode(storages["float32"], 0)
    for name, storage in storages.items():
        torch.testing.assert_close(decode(storage, 0), exact, atol=0.1, rtol=0, msg=name)
    return {name: functools.partial(decode, storage) for name, storage in storages.items()}


def measure(shape: Shape, threads: Iterable[int], rounds: int) -> Iterable[tuple[int, dict[str, float]]]:
    """For each number of threads, how many times as fast each kind of page is as float32."""
    torch.set_num_threads(1)
    num_layers = max(2, round(COLD / shape.num_bytes))
    runs, layer = contestants(shape, num_layers), 0
    for count in threads:
        torch.set_num_threads(count)
        clock = time.thread_time if count == 1 else time.perf_counter
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                layer = (layer + 1) % num_layers
                start = clock()
                run(layer)
                if turn:  # the first round warms up
                    seconds[name].append(clock() - start)
        exact = seconds["float32"]
        yield count, {name: median(a / b for a, b in zip(exact, own, strict=True)) for name, own in seconds.items()}


def main(
    rounds: Annotated[int, typer.Option(help="Runs of each kind of page.")] = 21,
    store: Annotated[bool, typer.Option("--store", help="Keep what is found, to be shown in the book.")] = False,
) -> None:
    """Decode on pages of five kinds, in four shapes, on one thread and on two."""
    names = [name for name in KINDS if name != "float32"]
    print(
        f"{'shape':<16}{'context':>8}{'batch':>6}{'MB':>5}{'threads':>8} |" + "".join(f"{name:>15}" for name in names)
    )
    found: list[dict[str, Any]] = []
    for shape in SHAPES:
        kind = f"{'MHA' if shape.heads == shape.kv_heads else 'GQA'} {shape.heads}/{shape.kv_heads} d{shape.head_dim}"
        for threads, ratios in measure(shape, (1, 2), rounds):
            cells = "".join(f"{ratios[name]:>14.2f}x" for name in names)
            size = f"{shape.num_bytes / 1e6:.0f}"
            print(f"{kind:<16}{shape.context:>8}{shape.batch:>6}{size:>5}{threads:>8} |{cells}", flush=True)
            rounded = {name: round(ratios[name], 2) for name in names}
            found.append({"shape": kind, "threads": threads, "bytes": shape.num_bytes, "times_as_fast": rounded})
    if store:
        known = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
        speed = {"date": date.today().isoformat(), "page_size": PAGE_SIZE, "found": found}
        STORED.write_text(json.dumps(known | {"speed": speed}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
