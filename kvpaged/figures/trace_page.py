"""Why a prefix cache finds what it finds in a trace, as a page of its own: one file that loads nothing else."""

from collections.abc import Iterable, Sequence
from html import escape

from kvpaged.figures.bar_chart import bar_chart
from kvpaged.figures.line_chart import line_chart
from kvpaged.figures.whole_page import whole_page
from kvpaged.lab.explain import Explanation, Parting, Verdict
from kvpaged.lab.explain.words import headline, lines, notes, parts, words_at

_MOST_PARTINGS, _MOST_REQUESTS = 20, 50
_LONG = 30  # characters, beyond which a cell breaks into lines


def trace_page(found: Explanation) -> str:
    """Return the page as HTML."""
    total = found.tokens.total
    shares = {title: round(100 * tokens / total, 1) for title, tokens in parts(found)}
    curves = {
        rule: [(pages, 100 * tokens / total) for pages, tokens in curve.items()] for rule, curve in found.kept.items()
    }
    page = [
        f"<h1>{escape(found.trace)}</h1>",
        f"<p>{escape(headline(found))}</p>",
        "<h2>What became of the prompt tokens</h2>",
        bar_chart({title: share for title, share in shares.items() if share}, unit="%").inline(),
        _table(("", "tokens", "of all"), ((title, tokens, tokens / total) for title, tokens in lines(found))),
        f"<p>{escape(' '.join(notes(found)))}</p>",
        "<h2>What a cache of so many pages finds</h2>",
        line_chart(curves, "pages", "prompt tokens found", log_x=True, unit="%").inline(),
        _table(
            ("pages", *found.kept),
            ((f"{pages:,}", *(curve[pages] / total for curve in found.kept.values())) for pages in found.kept["LRU"]),
        ),
        "<h2>Where requests part, and what they lose by it</h2>",
        _partings(found.partings[:_MOST_PARTINGS]) or "<p>Nothing was seen before behind another beginning.</p>",
        "<h2>The requests that lose most</h2>",
        _requests(sorted(found.verdicts, key=_lost, reverse=True)[:_MOST_REQUESTS]),
    ]
    return whole_page(f"{found.trace}: prefix cache hits explained", *page)


def _lost(verdict: Verdict) -> int:
    tokens = verdict.tokens
    return tokens.total - tokens.new - tokens.kept


def _partings(partings: Iterable[Parting]) -> str:
    columns = ("tokens lost", "requests", "behind token", "for example", "parts from", "where it says")
    rows = [
        (each.lost, each.requests, each.tokens, each.request, each.relative or "no other", words_at(each))
        for each in partings
    ]
    if not any(row[-1] for row in rows):
        return _table(columns[:-1], (row[:-1] for row in rows)) if rows else ""
    return _table(columns, rows)


def _requests(verdicts: Iterable[Verdict]) -> str:
    columns = (
        "request",
        "tokens",
        "found",
        "evicted",
        "rounding",
        "salt",
        "elsewhere",
        "new",
        "parts from",
        "at token",
    )
    rows = []
    for each in verdicts:
        tokens = each.tokens
        amounts = (tokens.kept, tokens.evicted, tokens.rounding, tokens.other_salt, tokens.elsewhere, tokens.new)
        rows.append((each.name, tokens.total, *amounts, each.relative or "no other", each.parts_at))
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Whole numbers are written as they are, other numbers as shares."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table, may scroll sideways">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if not isinstance(value, str):
        return f'<td class="n">{f"{value:,}" if isinstance(value, int) else f"{value:.1%}"}</td>'
    text = value.lstrip()
    indent = f' style="padding-left:{(len(value) - len(text)) / 2}em"' if text != value else ""
    wide = ' class="w"' if len(text) > _LONG else ""
    return f"<td{indent}{wide}>{escape(text)}</td>"
