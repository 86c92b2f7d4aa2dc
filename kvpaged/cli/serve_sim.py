"""`serve-sim`: many requests that arrive by chance, served from one pool while you watch."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from statistics import quantiles
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kvpaged.cli.options import (
    MOST_REQUESTS,
    Events,
    Json,
    Model,
    NumPages,
    PageSize,
    PrefixCaching,
    Speculate,
    between,
    note,
    open_log,
    open_model,
    save_log,
    say_loading,
)
from kvpaged.cli.pool_map import pool_map
from kvpaged.lab.workload import Arrival
from kvpaged.lab.workload import stories as workload_of_stories

if TYPE_CHECKING:
    from kvpaged.engine import Engine, EngineMetrics, Request

MOST_STORIES = 10_000  # all of them are told before the first is asked about
Report = dict[str, Any]  # as it is printed in JSON


def serve_sim(
    requests: Annotated[int, typer.Option(callback=between(1, MOST_REQUESTS), help="Requests in all.")] = 64,
    rate: Annotated[
        float, typer.Option(help="Requests that arrive in a second, on average (a Poisson process).")
    ] = 20.0,
    stories: Annotated[
        int,
        typer.Option(
            callback=between(1, MOST_STORIES),
            help="Different stories asked about. The fewer, the more prompts begin alike.",
        ),
    ] = 16,
    max_tokens: Annotated[int, typer.Option(callback=between(1), help="Tokens to generate for each request.")] = 32,
    num_pages: NumPages = 128,
    page_size: PageSize = 16,
    max_batched_tokens: Annotated[
        int, typer.Option(callback=between(1), help="Tokens computed in one step, at most.")
    ] = 512,
    max_running: Annotated[
        int, typer.Option(callback=between(1), help="Requests that own pages at once, at most.")
    ] = 64,
    prefix_caching: PrefixCaching = True,
    speculate: Speculate = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same requests at the same times.")] = 0,
    model: Model = "recall",
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Serve requests as they arrive, and report how long they waited and what memory they took.

    Each request is a story and a question about it; all run to their full length, and the report says how many
    answers were right. In a terminal, you watch the pool, the queue and the throughput. Try a pool of 40 pages at a
    rate of 200, and see requests preempted, or one story for all and see their pages shared. Ctrl-C ends it early, with
    the report of what was served by then.
    """
    arrivals = workload_of_stories(requests, rate, seed, stories, max_tokens)
    say_loading()
    from kvpaged.engine import Engine

    log = open_log(events)
    engine = Engine(
        open_model(model),
        num_pages,
        page_size,
        max_batched_tokens=max_batched_tokens,
        max_running=max_running,
        prefix_caching=prefix_caching,
        num_speculative_tokens=speculate,
        events=log,
    )
    submitted: list[Request] = []
    interrupted = False
    watched = sys.stdout.isatty() and not as_json
    try:
        with Live(console=Console(), refresh_per_second=10, transient=True) if watched else nullcontext() as live:
            _serve(engine, arrivals, submitted, live)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        save_log(log, events, engine.tokenizer)
    served = [pair for pair in zip(submitted, arrivals, strict=False) if pair[0].finished]
    if served:
        report = _report(engine, served)
        print(json.dumps(report)) if as_json else _show(report)
    if interrupted:
        note(f"interrupted: {len(served)} of {requests} requests were served")
        raise typer.Exit(code=130)


def _serve(engine: Engine, arrivals: list[Arrival], submitted: list[Request], live: Live | None) -> None:
    """Submit each request when its time has come; step until all are finished."""
    from kvpaged.engine import SamplingParams

    start, shown = perf_counter(), 0.0
    while len(submitted) < len(arrivals) or engine.num_unfinished:
        now = perf_counter() - start
        while len(submitted) < len(arrivals) and arrivals[len(submitted)].at <= now:
            arrival = arrivals[len(submitted)]
            params = SamplingParams(temperature=0, max_tokens=arrival.output_tokens, ignore_eos=True)
            submitted.append(engine.submit(arrival.prompt, params))
        if engine.num_unfinished:
            engine.step()
        else:
            sleep(max(0.0, arrivals[len(submitted)].at - now))
        if live is not None and now - shown > 0.1:
            shown = now
            live.update(_view(engine, len(arrivals), now, live.console))


def _view(engine: Engine, expected: int, now: float, console: Console) -> Group:
    metrics = engine.metrics()
    line = (
        f"{now:6.1f} s   {metrics.requests_waiting} waiting   {metrics.requests_running} running   "
        f"{metrics.requests_finished} of {expected} finished   "
        f"{metrics.generated_tokens / max(now, 1e-9):,.0f} tokens/s   "
        f"{metrics.preemptions} preemptions   {metrics.hit_rate:.0%} of prompt tokens cached"
    )
    waiting = "▪" * min(metrics.requests_waiting, console.width - 10)
    pool = pool_map(engine.cache, console.width, console.height - 8)
    return Group(Text(line), Text(f"queue {waiting}"), Text(), pool)


def _report(engine: Engine, served: list[tuple[Request, Arrival]]) -> Report:
    metrics: EngineMetrics = engine.metrics()
    outputs = [engine.output(request) for request, _ in served]
    seconds = max(each.metrics.finished or 0.0 for each in outputs) - outputs[0].metrics.arrival
    answered = zip(outputs, (arrival for _, arrival in served), strict=True)
    return {
        "requests": len(served),
        "right_answers": sum(output.outputs[0].text.startswith(arrival.answer) for output, arrival in answered),
        "seconds": seconds,
        "generated_tokens_per_second": metrics.generated_tokens / seconds,
        "queue_time": _spread([each.metrics.queue_time for each in outputs]),
        "time_to_first_token": _spread([each.metrics.time_to_first_token for each in outputs]),
        "total_time": _spread([each.metrics.total_time for each in outputs]),
        "hit_rate": metrics.hit_rate,
        "acceptance_rate": metrics.acceptance_rate,
        "overhead": metrics.overhead,
        "engine": asdict(metrics) | {"waste": metrics.waste},
    }


def _spread(values: list[float | None]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    found = [value for value in values if value is not None]
    cuts = quantiles(found, n=20, method="inclusive") if len(found) > 1 else found * 19
    return {"p50": cuts[9], "p95": cuts[18]}


def _show(report: Report) -> None:
    table = Table("what", "", title="Served", title_justify="left")
    table.columns[1].justify = "right"
    engine = report["engine"]
    rows = {
        "requests": f"{report['requests']:,}",
        "right answers": f"{report['right_answers']:,}",
        "seconds": f"{report['seconds']:.2f}",
        "tokens generated per second": f"{report['generated_tokens_per_second']:,.0f}",
    }
    for name in ("queue_time", "time_to_first_token", "total_time"):
        rows[f"{name.replace('_', ' ')}, median / 95 %"] = f"{report[name]['p50']:.3f} / {report[name]['p95']:.3f} s"
    rows |= {
        "tokens computed": f"{engine['computed_tokens']:,}",
        "prompt tokens found in the cache": f"{report['hit_rate']:.1%}",
        "tokens found there after a preemption": f"{engine['recovered_tokens']:,}",
        "preemptions": f"{engine['preemptions']:,}",
        "pages copied on write": f"{engine['copies']:,}",
        "pages used at the peak": f"{engine['peak_pages']:,} of {engine['num_pages']:,}",
        "slots of mapped pages without a token": f"{engine['waste']:.1%}",
        "guesses that were right": f"{engine['accepted_tokens']:,} of {engine['draft_tokens']:,}",
        "share of a step that is not the model": f"{report['overhead']:.1%}",
    }
    for row in rows.items():
        table.add_row(*row)
    Console().print(table)
