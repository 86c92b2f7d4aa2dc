"""Decode attention on pages against decode attention on contiguous tensors, side by side in one process.

    python benchmarks/attention.py [--full] [--threads 1 2] [--dtype float32] [--roofline roofline.png]

Every contestant runs once per round, in turn, so that what else the machine does falls on all of them. A number is the
median over rounds of a ratio within the round: times the speed of the best contiguous form, and the share of the read
limit, which is a sum over as much K and V in the same round. Trust the ratios, not the gigabytes per second. One thread
is timed by the processor time it takes, which does not count waiting for other programs; more threads by the clock.

The contiguous baseline is the best of three forms on memory of the same kind: scaled_dot_product_attention with
enable_gqa, the same with the heads of a group as rows of one query, and two matmuls around a softmax. Small shapes get
many layers, of which every run takes another, as decoding does: K and V come from memory, not from a cache.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kvpaged.attention import paged_attention_decode, streaming_attention
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for

CONTIGUOUS = ("enable_gqa", "grouped", "matmul")
PAGED = ("gather", "streaming", "kernel")
MAX_STREAMED_PAGES = 2048  # a step per page in Python: beyond this it would take the benchmark's whole time
LARGE = 32e6  # bytes of K and V: what the summary is about
COLD = 160e6  # bytes of all layers together, which no cache holds


class Shape(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    batch: int
    page_size: int = 16

    @property
    def kind(self) -> str:
        name = "MHA" if self.heads == self.kv_heads else "GQA"
        return f"{name} {self.heads}/{self.kv_heads} d{self.head_dim}"

    def num_bytes(self, dtype: torch.dtype) -> int:
        return 2 * self.batch * self.context * self.kv_heads * self.head_dim * dtype.itemsize


MODELS = [(8, 8, 64), (8, 8, 128), (32, 8, 64), (32, 8, 128)]
LOADS = [(1024, 1), (16384, 1), (4096, 8), (1024, 32)]  # (context, batch)
QUICK = [Shape(*model, *load) for model in MODELS for load in LOADS]
QUICK += [Shape(*model, 4096, 4, page_size) for model in MODELS[:3:2] for page_size in (1, 4, 64, 256)]
FULL = [
    Shape(*model, context, batch, page_size)
    for model in MODELS
    for batch in (1, 8, 32)
    for context in (128, 512, 2048, 4096, 16384)
    for page_size in ((1, 4, 16, 64, 256) if batch == 8 else (16,))
]


@dataclass
class Result:
    shape: Shape
    threads: int
    num_bytes: int
    seconds: dict[str, list[float]]

    def ratio(self, name: str, to: str) -> float:
        """How many times as fast as `to`: the median over rounds."""
        return median(b / a for a, b in zip(self.seconds[name], self.seconds[to], strict=True))

    @property
    def best(self) -> str:
        return min(CONTIGUOUS, key=lambda name: median(self.seconds[name]))

    @property
    def gigabytes_per_second(self) -> float:
        """The read limit."""
        return self.num_bytes / 1e9 / median(self.seconds["read"])


Contestant = Callable[[int], object]  # decodes one token per sequence in the given layer


def contestants(shape: Shape, dtype: torch.dtype, num_layers: int) -> dict[str, Contestant]:
    heads, kv_heads, head_dim, context, batch, page_size = shape
    per_sequence = pages_for(context, page_size)
    storage = PageStorage(batch * per_sequence, page_size, num_layers, kv_heads, head_dim, dtype)
    # One page per sequence is what contiguous means: the same kind of memory for all.
    pieces = PageStorage(batch, context, num_layers, kv_heads, head_dim, dtype)
    ids = torch.randperm(storage.num_pages).view(batch, per_sequence)
    tables = [PageTable(page_size, row, context) for row in ids.tolist()]
    for layer in range(num_layers):
        for sequence, table in enumerate(tables):
            keys, values = torch.randn(2, context, kv_heads, head_dim).to(dtype)
            pieces.write(layer, range(sequence * context, (sequence + 1) * context), keys, values)
            storage.write(layer, table.slot_mapping(0, context), keys, values)
    query = torch.randn(batch, heads, head_dim).to(dtype)
    lone, grouped = query[:, :, None], query.view(batch, kv_heads, heads // kv_heads, head_dim)
    page_tables, seq_lens = ids.int(), torch.full((batch,), context, dtype=torch.int32)
    # One row per (page, head), so that one index_select into a standing buffer makes K contiguous per head.
    rows = (ids[:, None] * kv_heads + torch.arange(kv_heads)[:, None]).flatten()
    copies = torch.empty(2, len(rows), page_size * head_dim, dtype=dtype)

    def enable_gqa(layer: int) -> Tensor:
        keys, values = pieces.keys(layer), pieces.values(layer)
        return F.scaled_dot_product_attention(lone, keys, values, enable_gqa=True)[:, :, 0]

    def in_groups(layer: int) -> Tensor:
        return F.scaled_dot_product_attention(grouped, pieces.keys(layer), pieces.values(layer)).view(query.shape)

    def matmul(layer: int) -> Tensor:
        scores = (grouped * head_dim**-0.5) @ pieces.keys(layer).transpose(2, 3)
        return (scores.softmax(dim=-1) @ pieces.values(layer)).view(query.shape)

    def gather(layer: int) -> Tensor:
        for copy, pages in zip(copies, (storage.keys(layer), storage.values(layer)), strict=True):
            torch.index_select(pages.view(-1, page_size * head_dim), 0, rows, out=copy)
        shaped = copies.view(2, batch, kv_heads, -1, head_dim)[:, :, :, :context]
        return F.scaled_dot_product_attention(grouped, shaped[0], shaped[1]).view(query.shape)

    def streaming(layer: int) -> Tensor:
        lone_queries = query.split(1)
        return torch.cat([streaming_attention(q, storage, t, layer) for q, t in zip(lone_queries, tables, strict=True)])

    def kernel(layer: int) -> Tensor:
        return paged_attention_decode(query, storage, page_tables, seq_lens, layer, "kernel")

    entrants = {
        "enable_gqa": enable_gqa,
        "grouped": in_groups,
        "matmul": matmul,
        "gather": gather,
        "streaming": streaming,
        "kernel": kernel,
    }
    if batch * per_sequence > MAX_STREAMED_PAGES:
        del entrants["streaming"]
    expected = in_groups(0)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for name, decode in entrants.items():
        torch.testing.assert_close(
            decode(0), expected, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
    return {"read": lambda layer: (pieces.keys(layer).sum(), pieces.values(layer).sum()), **entrants}


def measure(shape: Shape, threads: Iterable[int], dtype: torch.dtype, rounds: int) -> list[Result]:
    torch.set_num_threads(1)
    num_layers = max(1, round(COLD / shape.num_bytes(dtype)))
    runs = contestants(shape, dtype, num_layers)
    results = []
    layer = 0
    for count in threads:
        torch.set_num_threads(count)
        clock = time.thread_time if count == 1 else time.perf_counter
        names = [name for name in runs if count == 1 or name != "streaming"]  # its steps are too small to share
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                layer = (layer + 1) % num_layers
                start = clock()
                runs[name](layer)
                if turn:  # the first round warms up
                    seconds[name].append(clock() - start)
        results.append(Result(shape, count, shape.num_bytes(dtype), seconds))
    return results


HEADER = (
    f"{'shape':<14}{'context':>8}{'batch':>6}{'page':>5}{'thr':>4}{'MB':>7}{'GB/s':>6}"
    + f"  {'best form':<11}{'of limit':>8} |"
    + "".join(f"{name:>10}" for name in PAGED)
    + f"{'of limit':>9}"
)


def line(result: Result) -> str:
    shape, best = result.shape, result.best
    cells = "".join(f"{result.ratio(name, best):>9.2f}x" if name in result.seconds else f"{'-':>10}" for name in PAGED)
    return (
        f"{shape.kind:<14}{shape.context:>8}{shape.batch:>6}{shape.page_size:>5}{result.threads:>4}"
        f"{result.num_bytes / 1e6:>7.0f}{result.gigabytes_per_second:>6.1f}"
        f"  {best:<11}{result.ratio(best, 'read'):>8.0%} |{cells}{result.ratio('kernel', 'read'):>9.0%}"
    )


def summary(results: list[Result]) -> None:
    print(
        f"\nMedians over shapes of at least {LARGE / 1e6:.0f} MB, page size 16: kernel against the best contiguous form"
    )
    for threads in sorted({result.threads for result in results}):
        for kind in dict.fromkeys(result.shape.kind for result in results):
            large = [
                result
                for result in results
                if result.shape.kind == kind
                and result.threads == threads
                and result.shape.page_size == 16
                and result.num_bytes >= LARGE
            ]
            if large:
                times = median(result.ratio("kernel", result.best) for result in large)
                share = median(result.ratio("kernel", "read") for result in large)
                theirs = median(result.ratio(result.best, "read") for result in large)
                print(
                    f"  {kind:<15}{threads} thread{'s' if threads > 1 else ' '}{times:>6.2f}x   "
                    f"{share:.0%} of the read limit (contiguous {theirs:.0%}), {len(large)} shapes"
                )


def draw_roofline(results: list[Result], dtype: torch.dtype, path: str) -> None:
    """Operations per byte read against operations per second, one thread, large shapes of page size 16."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    square = torch.randn(1024, 1024)
    fastest = float("inf")
    for _ in range(10):
        start = time.thread_time()
        square @ square
        fastest = min(fastest, time.thread_time() - start)
    peak = 2 * 1024**3 / fastest / 1e9
    chosen = [r for r in results if r.threads == 1 and r.shape.page_size == 16 and r.num_bytes >= LARGE]
    limit = median(r.gigabytes_per_second for r in chosen)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    intensities = sorted([2.0**-3, peak / limit, 2.0**6])
    axes.plot(intensities, [min(peak, limit * x) for x in intensities], color="black", label="roofline")
    for name, marker in (("contiguous", "s"), ("gather", "v"), ("kernel", "o")):
        points = []
        for r in chosen:
            seconds = median(r.seconds[r.best if name == "contiguous" else name])
            # per number of K or V read: a multiplication and an addition for each head of the group
            operations = 2 * (r.shape.heads // r.shape.kv_heads) * r.num_bytes / dtype.itemsize
            points.append((operations / r.num_bytes, operations / seconds / 1e9))
        axes.plot(*zip(*points, strict=True), marker, fillstyle="none", label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="operations per byte of K and V", ylabel="billion operations per second"
    )
    axes.set_title(f"Decode attention, one thread: reads {limit:.0f} GB/s, matmul {peak:.0f} GFLOP/s")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode attention: pages against contiguous tensors.")
    parser.add_argument(
        "--full", action="store_true", help="all shapes, up to 16k tokens and batch 32; takes half an hour"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="1 2: both; 2 wants a quiet machine")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--max-mb", type=int, default=600, help="skip shapes with more megabytes of K and V")
    parser.add_argument("--roofline", metavar="PNG", help="draw the roofline (needs matplotlib)")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    results: list[Result] = []
    print(f"{arguments.dtype}. Against the best contiguous form, and the share of the read limit.\n\n{HEADER}")
    with torch.no_grad():
        for shape in FULL if arguments.full else QUICK:
            if shape.num_bytes(dtype) > arguments.max_mb * 1e6:
                continue
            for result in measure(shape, arguments.threads, dtype, arguments.rounds):
                results.append(result)
                print(line(result), flush=True)
    summary(results)
    if arguments.roofline:
        draw_roofline(results, dtype, arguments.roofline)


if __name__ == "__main__":
    main()
