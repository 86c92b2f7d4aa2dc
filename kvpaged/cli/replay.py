"""`replay`: a run that was written down, to be gone through step by step in a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from kvpaged.events import EventLog


def replay(
    log: Annotated[Path, typer.Argument(help="A log that 'generate --events' or 'serve-sim --events' wrote.")],
    output: Annotated[Path | None, typer.Option(help="The page to write; LOG.html if none.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write a page that plays a run again: its pages, page tables and texts after each event, and why it happened.

    The page needs nothing else, neither a network nor this package: send it to whom you like. From Python,
    `cache.events.save(path)` writes such a log, if the cache was given an EventLog() to begin with.

    Example: kvpaged generate "Ada hid the coin in the attic. Bo looks for the coin" --events run.log;
    kvpaged replay run.log --open
    """
    from kvpaged.figures.trace_player import TracePlayer

    events = EventLog.load(log)
    page_size, num_pages = events.about.get("page_size"), events.about.get("num_pages")
    if not (isinstance(page_size, int) and isinstance(num_pages, int)):
        raise ValueError(f"{log} does not say how large its pages and its pool were: record it with a PagedKVCache")
    words = events.about.get("words", {})
    player = TracePlayer(events, page_size, num_pages, lambda token: words.get(str(token), str(token)))
    page = output or log.with_name(f"{log.name}.html")
    page.write_text(player.page(f"What happened in {log.name}"), encoding="utf-8")
    print(f"{len(events):,} events written to {page}" + ("" if open_it else ": open it in a browser, or say --open"))
    if open_it:
        webbrowser.open(page.resolve().as_uri())
