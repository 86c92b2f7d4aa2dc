"""The checks that take too long for every day: `python tools/long_checks.py`.

    cache     a million requests through the bookkeeping, in random histories
    engine    ten thousand requests through the recall model, in random histories
    bits      twenty thousand requests in engines of random shape: every bit of logits, K and V against the text alone
    traffic   an hour of simulated traffic, with the memory of the process looked at
    numbers   attention over ten thousand random configurations, against float64 and bit for bit
    books     a hundred thousand requests through the small engine of the chapters, beside the package
    small     twelve thousand greedy requests, in two thousand workloads, through both engines
    drivers   ten thousand requests at the extremes of their parameters, through engines that several drive at once
    interrupts    every line of a step, of every kind of request, and of a `generate` of transformers, interrupted once;
              and twenty thousand signals
    hits      a hundred thousand random caches of several groups, against a brute-force oracle

Each prints what it did. A failure prints the one line that does it again. Name one of them to run only that.
"""

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # what is checked, and against what, is test support

from support.simulation import SimulationFailed, simulate

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests: sums come out the same to the last digit

app = typer.Typer(add_completion=False, help="The long checks: all of them, if none is named.")
Requests = Annotated[int, typer.Option(help="How many requests, in all.")]
Seed = Annotated[int | None, typer.Option(help="Run the one episode of this seed.")]
First = Annotated[int, typer.Option(help="The seed of the first episode.")]
CACHE_EPISODE, ENGINE_EPISODE = 100, 20  # requests in one episode
ROOM_TO_GROW = 8 * 1024  # KiB: what the allocators of Python and PyTorch may keep for themselves


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, first: First = 0) -> None:
    """Run all of them, one after another."""
    if context.invoked_subcommand is None:
        print(f"{date.today()}, Python {platform.python_version()}, PyTorch {version('torch')}", flush=True)
        cache(first=first)
        engine(first=first)
        bits(first=first)
        traffic()
        numbers()
        books(first=first)
        small(first=first)
        drivers(first=first)
        interrupts(first=first)
        hits()


@app.command()
def cache(requests: Requests = 1_000_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through the bookkeeping, against a model that keeps every sequence apart."""
    _episodes("cache", simulate, requests, CACHE_EPISODE, seed, first)


@app.command()
def engine(requests: Requests = 10_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through the recall model, against what each gets alone."""
    from support.engine_simulation import simulate_engine

    _episodes("engine", simulate_engine, requests, ENGINE_EPISODE, seed, first)


@app.command()
def bits(requests: Requests = 20_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through engines of random shape, on one to three threads, and each of their texts in one pass, alone."""
    from support.same_bits import compare_bits

    _episodes("bits", compare_bits, requests, ENGINE_EPISODE, seed, first)


@app.command()
def drivers(requests: Requests = 10_000, seed: Seed = None, first: First = 0) -> None:
    """Streams in turns, generate within them, steps by hand, against what each request gets alone."""
    from support.hostile_drivers import simulate_drivers

    _episodes("drivers", simulate_drivers, requests, ENGINE_EPISODE, seed, first)


@app.command()
def interrupts(
    every: Annotated[int, typer.Option(min=1, help="Every how many lines.")] = 1,
    signals: Annotated[int, typer.Option(min=0, help="How many signals.")] = 20_000,
    first: First = 0,
) -> None:
    """Every line of a step interrupted in turn; then alarms at any moment of generate."""
    import random

    from support.interrupts import SCENES, run_interrupted, run_signalled, run_transformers

    scenes = {name: partial(run_interrupted, name) for name in SCENES} | {"transformers": run_transformers}
    for name, run in scenes.items():
        run()  # loads and compiles what is loaded and compiled once: those lines are no step's
        started, numbers = time.perf_counter(), range(1, run(), every)
        for number in numbers:
            run(number)
        print(
            f"interrupts: {name}, {len(numbers):,} lines, {time.perf_counter() - started:.0f} s, nothing lost",
            flush=True,
        )
    counts: Counter[str] = Counter()
    for seed in range(first, first + signals):
        choose = random.Random(seed)
        counts += run_signalled(choose.choice(list(SCENES)), choose)
    print(
        f"interrupts: {counts['signals']:,} signals, {counts['interrupted']:,} of them in time, nothing lost",
        flush=True,
    )


@app.command()
def traffic(minutes: Annotated[int, typer.Option(min=6, help="Of simulated time.")] = 60) -> None:
    """An hour of traffic, during which the process must not grow."""
    from support.traffic import cache_traffic, engine_traffic

    for name, flow, requests_a_minute in (("cache", cache_traffic, 1_000), ("engine", engine_traffic, 60)):
        print(f"traffic: {minutes} minutes through the {name}, {requests_a_minute:,} requests a minute", flush=True)
        measured = flow(minutes, requests_a_minute, minutes // 6)
        for each in measured:
            print(
                f"  after {each.requests:6,} requests: {each.own_objects} objects of kvpaged's, "
                f"{each.objects:,} in all, {each.kilobytes / 1024:.1f} MiB resident",
                flush=True,
            )
        first, last = measured[0], measured[-1]
        assert last.own_objects == first.own_objects, "objects of kvpaged's own are left behind"
        assert last.objects - first.objects < (last.requests - first.requests) // 10, "objects are left behind"
        assert last.kilobytes - first.kilobytes < ROOM_TO_GROW, "the process grows"


@app.command()
def numbers(
    configurations: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="The number of the first.")] = 0,
) -> None:
    """Attention on pages in all its forms, over random configurations."""
    import torch
    from tqdm import tqdm

    from support.numerics import check

    torch.set_num_threads(1)
    *_, findings = tqdm(check(range(first, first + configurations)), total=configurations, unit="configuration")
    for name, count in findings.counts.items():
        print(f"{count:8,} {name}")
    for form, difference in findings.worst.items():
        print(f"{difference:8.1e} largest difference from float64, as a share of the largest value: {form}")


@app.command()
def books(requests: Requests = 100_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through the books of the small engine and of the package: the same hits, the same pages."""
    from support.small_engine import compare_books

    _episodes("books", compare_books, requests, 20, seed, first)


@app.command()
def small(requests: Requests = 12_000, seed: Seed = None, first: First = 0) -> None:
    """Greedy requests through the small engine and through the package's: the same tokens."""
    from support.small_engine import compare_engines

    _episodes("small", compare_engines, requests, 6, seed, first)


@app.command()
def hits(cases: Annotated[int, typer.Option(min=1, help="How many.")] = 100_000) -> None:
    """What the grouped prefix cache finds, against an oracle that asks of each token what it reads."""
    from support.grouped_hits import compare

    found = compare(cases)
    print(f"hits: {cases:,} cases, none differs: {found[0]:,} misses, hits of up to {max(found)} tokens", flush=True)


def _episodes(
    name: str, run: Callable[[int, int], "Counter[str]"], requests: int, length: int, seed: int | None, first: int
) -> None:
    started = time.perf_counter()
    seeds = range(first, first + -(-requests // length)) if seed is None else [seed]
    counts: Counter[str] = Counter()
    for number in seeds:
        try:
            counts += run(number, length if seed is None else requests)
        except SimulationFailed as failure:
            print(failure, file=sys.stderr)  # in one line, to be run again
            if seed is not None:
                raise  # and once it is, with all that led there
            raise typer.Exit(code=1) from None
    print(f"{name}: seeds {seeds[0]} to {seeds[-1]}, {time.perf_counter() - started:.0f} s, nothing wrong", flush=True)
    for what, count in sorted(counts.items()):
        print(f"  {count:15,} {what}", flush=True)


if __name__ == "__main__":
    app()
