"""The checks that take too long for every day: `python tools/long_checks.py`.

    cache     a million requests through the bookkeeping, in random histories
    engine    ten thousand requests through the recall model, in random histories
    traffic   an hour of simulated traffic, with the memory of the process looked at

Each prints what it did. A failure prints the one line that does it again. Name one of them to run only that.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import typer

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests: sums come out the same to the last digit

app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)
Seed = Annotated[int | None, typer.Option(help="Run the one episode of this seed.")]
First = Annotated[int, typer.Option(help="The seed of the first episode.")]
CACHE_EPISODE, ENGINE_EPISODE = 100, 20  # requests in one episode


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Run all of them, one after another."""
    if context.invoked_subcommand is None:
        cache()
        engine()
        traffic()


@app.command()
def cache(requests: int = 1_000_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through the bookkeeping, against a model that keeps every sequence apart."""
    from simulation import simulate

    _episodes("cache", simulate, requests, CACHE_EPISODE, seed, first)


@app.command()
def engine(requests: int = 10_000, seed: Seed = None, first: First = 0) -> None:
    """Requests through the recall model, against what each gets alone."""
    from engine_simulation import simulate_engine

    _episodes("engine", simulate_engine, requests, ENGINE_EPISODE, seed, first)


@app.command()
def traffic(minutes: int = 60) -> None:
    """An hour of traffic, during which the process must not grow."""
    from traffic import cache_traffic, engine_traffic

    for name, flow, requests_a_minute in (("cache", cache_traffic, 6_000), ("engine", engine_traffic, 120)):
        print(
            f"traffic: {minutes} simulated minutes through the {name}, {requests_a_minute:,} requests a minute",
            flush=True,
        )
        measured = flow(minutes, requests_a_minute, max(1, minutes // 6))
        for each in measured:
            print(
                f"  after {each.requests:8,} requests: {each.own_objects} objects of kvpaged's, "
                f"{each.objects:,} in all, {each.kilobytes / 1024:.1f} MiB resident",
                flush=True,
            )
        first, last = measured[0], measured[-1]
        assert last.own_objects == first.own_objects, "objects of kvpaged's own are left behind"
        assert last.objects - first.objects < (last.requests - first.requests) // 100, "objects are left behind"
        assert last.kilobytes - first.kilobytes < 8 * 1024, "the process grows"


def _episodes(
    name: str, run: Callable[[int, int], "Counter[str]"], requests: int, length: int, seed: int | None, first: int
) -> None:
    started = time.perf_counter()
    seeds = range(first, first + -(-requests // length)) if seed is None else [seed]
    counts: Counter[str] = Counter()
    for number in seeds:
        counts += run(number, length if seed is None else requests)
    print(f"{name}: seeds {seeds[0]} to {seeds[-1]}, {time.perf_counter() - started:.0f} s, nothing wrong", flush=True)
    for what, count in sorted(counts.items()):
        print(f"  {count:15,} {what}", flush=True)


if __name__ == "__main__":
    app()
