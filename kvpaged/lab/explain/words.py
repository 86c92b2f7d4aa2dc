"""An explanation in words: the same on the terminal and on the page."""

from __future__ import annotations

from kvpaged.lab.explain.explanation import Explanation
from kvpaged.lab.explain.parting import Parting
from kvpaged.wording import count_of

UPPER_BOUND = (
    "Requests are taken one after another, each computed before the next begins. A server works on many at once: "
    "requests that arrive together cannot find each other's pages, and pages in use leave less room. So what is found "
    "here is an upper bound."
)


def headline(found: Explanation) -> str:
    """What was looked at, in a sentence."""
    if found.in_tokens:
        pages = f"in pages of {found.page_size} tokens"
    else:
        pages = f"in blocks of {found.page_size} tokens" if found.page_size else "in blocks of unknown sizes"
    requests = count_of(len(found.verdicts), "request")
    return f"{requests} of {found.tokens.total:,} prompt tokens, {pages}."


def lines(found: Explanation) -> list[tuple[str, int]]:
    """The ledger: titles, indented where they are part of a line above, and tokens."""
    new, elsewhere, other_salt, *reusable = parts(found)
    return [
        new,
        ("seen before", found.tokens.seen),
        _indented(elsewhere),
        _indented(other_salt),
        ("  reusable as a prefix: the ceiling", found.tokens.reusable),
        *(_indented(_indented(part)) for part in reusable),
    ]


def parts(found: Explanation) -> list[tuple[str, int]]:
    """The lines of the ledger that add up to all tokens."""
    tokens = found.tokens
    return [
        ("never seen before", tokens.new),
        ("behind another beginning", tokens.elsewhere),
        ("behind another cache salt", tokens.other_salt),
        ("last token of a known prompt: must run", tokens.last_token),
        ("lost by rounding to whole pages", tokens.rounding),
        (f"lost by eviction: LRU, {found.num_pages:,} pages", tokens.evicted),
        ("found", tokens.kept),
    ]


def _indented(line: tuple[str, int]) -> tuple[str, int]:
    return f"  {line[0]}", line[1]


def in_words(parting: Parting) -> str:
    """What is lost at a place where requests part."""
    told = (
        f"{parting.lost:,} tokens that were seen before are lost where {parting.requests:,} "
        f"request{'s part' if parting.requests != 1 else ' parts'} from others, after {parting.tokens:,} tokens: "
        f"{parting.request} parts from {parting.relative or 'all others'} there"
    )
    return f"{told}, {words_at(parting)}" if parting.after else f"{told}."


def words_at(parting: Parting) -> str:
    """What the example says there, and its relative; empty for a trace of blocks."""
    if not parting.after:
        return ""
    return f"… {parting.before} ▸ {parting.after} … where the other has ▸ {parting.relative_after or 'its end'}"


def notes(found: Explanation) -> list[str]:
    """What the numbers do not show."""
    if found.in_tokens:
        runs = 2 * (found.page_size or 1) - 1
        special = f"Behind another beginning, runs of at least {runs} tokens are found whole, shorter ones by chance."
    elif found.page_size:
        special = (
            f"Blocks that differ may still begin alike: up to {found.hidden:,} tokens more, "
            f"{found.hidden / found.tokens.total:.1%}, may be reusable than blocks of {found.page_size} can show."
        )
    else:
        special = "The trace does not say how long its blocks are: each counts as an equal share of its prompt."
    return [UPPER_BOUND, special]
