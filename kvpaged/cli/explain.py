"""`explain`: why a prefix cache finds what it finds in a trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated

import typer

from kvpaged.cli.options import Json
from kvpaged.lab.explain import Explanation
from kvpaged.lab.explain.words import headline, in_words, lines, notes

_PARTINGS_SHOWN = 3


def explain(
    trace: Annotated[str, typer.Argument(help="A file of JSON lines, a request in each; - reads them from a pipe.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="For chats and texts: a tokenizer.json, or a checkpoint's folder.")
    ] = None,
    page_size: Annotated[int, typer.Option(help="Tokens in a page. (In a trace of blocks, a page is a block.)")] = 16,
    num_pages: Annotated[
        int | None, typer.Option(help="Pages of the cache; an eighth of what keeps everything if not given.")
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Tokens in a block, where the lengths in a trace of blocks leave it open.")
    ] = None,
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Leave out lines that are no requests, rather than stop.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Say why a prefix cache finds what it finds: each prompt token of a trace is accounted for.

    A trace has a request in each line: blocks (input_length and hash_ids, as Mooncake's), a chat (messages, as the
    OpenAI API takes them; needs --tokenizer), or tokens (a list, or prompt_token_ids).

    Tokens are new; or were seen before, but behind another beginning or cache_salt; or could be reused. Of these, some
    are lost by rounding to whole pages and some by eviction; the rest is found. --json names for each request the
    earlier one that it resembles most, and where the two part.
    """
    from kvpaged.lab.explain import explain as find_out
    from kvpaged.lab.read_trace import TraceReader
    from kvpaged.lab.vocabulary import load_vocabulary

    name = "standard input" if trace == "-" else Path(trace).name
    vocabulary = None if tokenizer is None else load_vocabulary(tokenizer)
    reader = TraceReader(name, vocabulary, skip_malformed)
    with lines_of(trace) as written:
        read = reader.read(written, block_size)
    for message in reader.malformed:
        print(f"left out: {message}", file=sys.stderr)
    found = find_out(read, page_size, num_pages, show_progress=sys.stderr.isatty())
    if html is not None:
        from kvpaged.figures.trace_page import trace_page

        html.write_text(trace_page(found), encoding="utf-8")
    if as_json:
        print(json.dumps(_as_dict(found), ensure_ascii=False))
    else:
        _show(found)


@contextmanager
def lines_of(trace: str) -> Iterator[Iterator[bytes]]:
    """Open a file or the pipe, with a progress bar where there is somebody to see it."""
    from tqdm import tqdm

    file: IO[bytes]
    with sys.stdin.buffer if trace == "-" else open(trace, "rb") as file:
        size = None if trace == "-" else Path(trace).stat().st_size
        shown = sys.stderr.isatty()
        with tqdm(total=size, desc="reading", unit="B", unit_scale=True, leave=False, disable=not shown) as bar:
            yield _counted(file, bar)


def _counted(file: IO[bytes], bar: object) -> Iterator[bytes]:
    for line in file:
        bar.update(len(line))  # type: ignore[attr-defined]
        yield line


def _as_dict(found: Explanation) -> dict[str, object]:
    derived = {name: getattr(found.tokens, name) for name in ("total", "seen", "reusable")}
    return {
        "requests": len(found.verdicts),
        **asdict(found),
        "tokens": derived | asdict(found.tokens),
        "hidden": found.hidden,
        "notes": notes(found),
    }


def _show(found: Explanation) -> None:
    from rich.console import Console
    from rich.table import Table

    console, total = Console(highlight=False), found.tokens.total
    console.print(f"{found.trace}: {headline(found)}", markup=False)
    ledger = Table("prompt tokens", "tokens", "of all")
    for title, tokens in lines(found):
        ledger.add_row(title, f"{tokens:,}", f"{tokens / total:.1%}")
    curve = Table("a cache of pages", *found.kept, caption="prompt tokens found, by rule of eviction")
    for pages in found.kept["LRU"]:
        curve.add_row(f"{pages:,}", *(f"{kept[pages] / total:.1%}" for kept in found.kept.values()))
    for table in (ledger, curve):
        for column in table.columns[table is ledger :]:
            column.justify = "right"
        console.print(table)
    for parting in found.partings[:_PARTINGS_SHOWN]:
        console.print(in_words(parting), markup=False)
    console.print(*notes(found), style="dim", markup=False)
