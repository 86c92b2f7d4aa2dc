"""What it costs to write the K and V of a decode step: four layers of 8 heads of 64, page size 16, float32.

Each step writes one token of each sequence, in every layer, to the next slot of the sequence's page. All ways to do it
run once per step, in turn, on storages of their own. A number is the median over steps of the microseconds per token,
all layers together, by the processor time of one thread; a ratio is the median over steps of a ratio within the step.

    python benchmarks/writes.py
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Annotated
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kvpaged import page
from kvpaged.page import PageStorage

LAYERS, HEADS, HEAD_DIM, PAGE_SIZE, NUM_PAGES = 4, 8, 64, 16, 1024
Write = Callable[[PageStorage, int, Tensor, Tensor, Tensor], None]


def at_once(storage: PageStorage, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    storage.write(layer, slots, keys, values)


def token_by_token(storage: PageStorage, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    for slot, key, value in zip(slots.tolist(), keys, values, strict=True):
        page_id, offset = divmod(slot, PAGE_SIZE)
        storage.keys(layer)[page_id, :, offset] = key
        storage.values(layer)[page_id, :, offset] = value


WAYS: dict[str, Write] = {
    "token by token, unchecked": token_by_token,
    "PageStorage.write without numba": at_once,
    "PageStorage.write": at_once,
}


def measure(batch: int, steps: int) -> dict[str, list[float]]:
    """Microseconds per token of each way, step by step."""
    storages = {name: PageStorage(NUM_PAGES, PAGE_SIZE, LAYERS, HEADS, HEAD_DIM) for name in WAYS}
    first = torch.randperm(NUM_PAGES)[:batch] * PAGE_SIZE
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for step in range(-PAGE_SIZE, steps):  # the first rounds touch the memory, and compile
        slots, (keys, values) = first + step % PAGE_SIZE, torch.randn(2, batch, HEADS, HEAD_DIM)
        for name, write in WAYS.items():
            with patch.object(page, "compiled_write", lambda: None) if "without" in name else nullcontext():
                start = time.thread_time()
                for layer in range(LAYERS):
                    write(storages[name], layer, slots, keys, values)
                seconds = time.thread_time() - start
            if step >= 0:
                found[name].append(seconds / batch * 1e6)
    for name, storage in storages.items():
        for layer in range(LAYERS):
            assert torch.equal(storage.keys(layer), storages["PageStorage.write"].keys(layer)), name
    return found


def main(steps: Annotated[int, typer.Option(help="Decode steps to measure.")] = 400) -> None:
    """Write as a decode step does, in three ways, for batches of 1 to 32 sequences."""
    torch.set_num_threads(1)
    table = Table("batch", *WAYS, title="Microseconds per token, four layers together")
    for batch in (1, 2, 4, 8, 16, 32):
        found = measure(batch, steps)
        ours = found["PageStorage.write"]
        cells = []
        for name, microseconds in found.items():
            ratio = median(theirs / mine for theirs, mine in zip(microseconds, ours, strict=True))
            cells.append(f"{median(microseconds):.2f}" + ("" if name == "PageStorage.write" else f" ({ratio:.1f} x)"))
        table.add_row(str(batch), *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
