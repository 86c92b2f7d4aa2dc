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

from kvpaged.cli.options import (
    Events,
    Hub,
    Json,
    Model,
    NumPages,
    PageSize,
    PrefixCaching,
    Speculate,
    Transformers,
    between,
    note,
    note_unknown_words,
    open_log,
    open_model,
    save_log,
    say_loading,
)
from kvpaged.cli.pool_map import pool_map

if TYPE_CHECKING:
    from kvpaged.cache import PagedKVCache
    from kvpaged.engine import Engine, Params, RequestOutput


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts, each in quotes.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file with a prompt on each line, in UTF-8; - reads what is piped in.")
    ] = None,
    model: Model = "recall",
    hub: Hub = False,
    transformers: Transformers = False,
    max_tokens: Annotated[int, typer.Option(callback=between(1), help="Tokens to generate at most.")] = 32,
    temperature: Annotated[
        float, typer.Option(callback=between(0), help="0 takes the likeliest token; above, tokens are drawn.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Draw among the likeliest tokens that hold this much probability.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw among this many likeliest tokens; 0: all.")] = 0,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same tokens.")] = None,
    n: Annotated[
        int, typer.Option(callback=between(1), help="Continuations of each prompt, which share its pages.")
    ] = 1,
    beam_width: Annotated[
        int, typer.Option(callback=between(0), help="Search with this many beams instead; 0: no search.")
    ] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends the output; may be given several times.")
    ] = None,
    num_pages: NumPages = 256,
    page_size: PageSize = 16,
    prefix_caching: PrefixCaching = True,
    speculate: Speculate = 0,
    events: Events = None,
    as_json: Json = False,
) -> None:
    """Continue prompts, all at once, from one pool of pages.

    In a terminal, the texts grow while you watch a map of the pool.

    Example: kvpaged generate "Ada hid the coin in the attic. Bo looks for the coin"
    """
    texts = list(prompts or [])
    if file is not None:
        lines = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
        try:
            whole = lines.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            at, byte = error.start, lines[error.start]
            raise ValueError(f"{file}: byte {byte:#04x} at offset {at} is not UTF-8: save the file as UTF-8") from None
        # At line feeds alone: a prompt may hold what else Python takes for the end of a line.
        texts += [line.removesuffix("\r") for line in whole.split("\n") if line.strip()]
    if not texts:
        raise ValueError("no prompt: give one in quotes, or a --file with one on each line")
    say_loading()
    from kvpaged.engine import BeamSearchParams, Engine, SamplingParams

    params: Params
    if beam_width:
        drawing = {"n": n != 1, "temperature": temperature != 0, "top-p": top_p != 1, "top-k": top_k != 0}
        drawing |= {"seed": seed is not None, "stop": bool(stop), "speculate": speculate != 0}
        for name in (name for name, given in drawing.items() if given):
            raise ValueError(f"--{name} is of no use to a search with --beam-width {beam_width}: leave one of them out")
        params = BeamSearchParams(beam_width=beam_width, max_tokens=max_tokens)
    else:
        params = SamplingParams(
            n=n, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed, max_tokens=max_tokens, stop=stop or ()
        )
    loaded = open_model(model, hub, transformers)
    watched = sys.stdout.isatty() and not as_json
    log = open_log(events)
    engine = Engine(
        loaded, num_pages, page_size, prefix_caching=prefix_caching, num_speculative_tokens=speculate, events=log
    )
    try:
        outputs = _watch(engine, texts, params) if watched else engine.generate(texts, params)
    finally:
        save_log(log, events, engine.tokenizer)
    if as_json:
        print(json.dumps([_as_dict(output) for output in outputs], ensure_ascii=False))
    elif not watched:
        for output in outputs:
            for completion in output.outputs:
                print(f"{output.prompt}{completion.text}")
    note_unknown_words(engine.tokenizer, texts)
    cut = [each for output in outputs for each in output.outputs if each.finish_reason == "length"]
    if any(len(each.tokens) < max_tokens for each in cut):
        note(f"the model's context of {loaded.config.max_position_embeddings} tokens was full before --max-tokens")


def _as_dict(output: RequestOutput) -> dict[str, object]:
    return {**asdict(output), "time_to_first_token": output.metrics.time_to_first_token}


def _watch(engine: Engine, texts: list[str], params: Params) -> list[RequestOutput]:
    """Stream into a live display; leave the texts in the terminal, finished or interrupted."""
    console = Console()
    found: dict[int, RequestOutput] = {}
    try:
        with Live(console=console, refresh_per_second=15, transient=True) as live:
            for output in engine.stream(texts, params):
                found[output.index] = output
                live.update(_view(console, engine.cache, _lines(found)))
    finally:
        for line in _lines(found):
            console.print(line)
        metrics = engine.metrics()
        console.print(
            f"{metrics.generated_tokens} tokens in {metrics.steps} steps; {metrics.computed_tokens} computed, "
            f"{metrics.cached_tokens} of {metrics.prompt_tokens} prompt tokens cached, {metrics.copies} pages copied, "
            f"{metrics.peak_pages} of {metrics.num_pages} pages at the peak, {metrics.preemptions} preemptions.",
            style="dim",
            highlight=False,
        )
    return [found[index] for index in sorted(found)]


def _view(console: Console, cache: PagedKVCache, texts: list[Text]) -> Group:
    """The map of the pool, whole, below the ends of the texts: each has its share of the lines that are left."""
    pool = pool_map(cache, console.width, console.height - 8)
    room = max(1, console.height - len(console.render_lines(pool)) - 2)
    share = max(1, room // len(texts))
    lines = [line for text in texts for line in text.wrap(console, console.width)[-share:]]
    return Group(*lines[-room:], Text(), pool)


def _lines(found: dict[int, RequestOutput]) -> list[Text]:
    outputs = [(found[index].prompt or "", each.text) for index in sorted(found) for each in found[index].outputs]
    return [Text.assemble((prompt, "dim"), (text, "bold")) for prompt, text in outputs]
