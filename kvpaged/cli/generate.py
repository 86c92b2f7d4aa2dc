"""`generate`: prompts in, text out, while you watch the pages."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kvpaged.cli.options import Hub, Json, Model, NumPages, PageSize, PrefixCaching, Speculate, Transformers, open_model
from kvpaged.cli.page_map import page_map

if TYPE_CHECKING:
    from kvpaged.engine import Engine, Params, RequestOutput


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts, each in quotes.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with a prompt on each line, in UTF-8.")] = None,
    model: Model = "recall",
    hub: Hub = False,
    transformers: Transformers = False,
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 32,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; above, tokens are drawn.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Draw among the likeliest tokens that hold this much probability.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw among this many likeliest tokens; 0: all.")] = 0,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same tokens.")] = None,
    n: Annotated[int, typer.Option(help="Continuations of each prompt, which share its pages.")] = 1,
    beam_width: Annotated[int, typer.Option(help="Search with this many beams instead; 0: no search.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends the output; may be given several times.")
    ] = None,
    num_pages: NumPages = 256,
    page_size: PageSize = 16,
    prefix_caching: PrefixCaching = True,
    speculate: Speculate = 0,
    as_json: Json = False,
) -> None:
    """Continue prompts, all at once, from one pool of pages.

    In a terminal, the texts grow while you watch a map of the pool.

    Example: python -m kvpaged generate "Ada hid the coin in the attic. Bo looks for the coin"
    """
    from kvpaged.engine import BeamSearchParams, Engine, SamplingParams

    texts = list(prompts or [])
    if file is not None:
        texts += [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not texts:
        raise ValueError("no prompt: give one in quotes, or a --file with one on each line")
    params: Params
    if beam_width:
        params = BeamSearchParams(beam_width=beam_width, max_tokens=max_tokens)
    else:
        params = SamplingParams(
            n=n, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, max_tokens=max_tokens, stop=stop or ()
        )
    loaded = open_model(model, hub, transformers)
    engine = Engine(loaded, num_pages, page_size, prefix_caching=prefix_caching, num_speculative_tokens=speculate)
    if as_json:
        print(json.dumps([_as_dict(output) for output in engine.generate(texts, params)], ensure_ascii=False))
    elif sys.stdout.isatty():
        _watch(engine, texts, params)
    else:
        for output in engine.generate(texts, params):
            for completion in output.outputs:
                print(f"{output.prompt}{completion.text}")


def _as_dict(output: RequestOutput) -> dict[str, object]:
    return {**asdict(output), "time_to_first_token": output.metrics.time_to_first_token}


def _watch(engine: Engine, texts: list[str], params: Params) -> None:
    """Stream into a live display; leave the finished texts in the terminal."""
    console = Console()
    outputs: dict[int, RequestOutput] = {}
    with Live(console=console, refresh_per_second=15, transient=True) as live:
        for output in engine.stream(texts, params):
            outputs[output.index] = output
            lines = [line for index in sorted(outputs) for line in _lines(outputs[index])]
            width = max(16, min(console.width, 64))
            live.update(Group(*lines[-max(1, console.height - 22) :], Text(), page_map(engine.cache, width)))
    for index in sorted(outputs):
        for line in _lines(outputs[index]):
            console.print(line)
    metrics = engine.metrics()
    console.print(
        f"{metrics.generated_tokens} tokens in {metrics.steps} steps; {metrics.computed_tokens} computed, "
        f"{metrics.cached_tokens} of {metrics.prompt_tokens} prompt tokens cached, {metrics.copies} pages copied, "
        f"{metrics.peak_pages} of {metrics.num_pages} pages at the peak, {metrics.preemptions} preemptions.",
        style="dim",
        highlight=False,
    )


def _lines(output: RequestOutput) -> list[Text]:
    return [Text.assemble((output.prompt or "", "dim"), (each.text, "bold")) for each in output.outputs]
