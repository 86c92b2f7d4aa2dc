"""Why a prefix cache finds what it finds in a trace: each prompt token accounted for.

Requests are taken one after another, each computed before the next begins. A server works on many at once: two that
arrive together cannot find each other's pages, and pages in use leave less room. So all of this is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tqdm import tqdm

from kvpaged.checks import positive_int
from kvpaged.lab.explain.eviction import Rule
from kvpaged.lab.explain.hits import tokens_found
from kvpaged.lab.explain.ledger import Ledger
from kvpaged.lab.explain.page_paths import PagePaths
from kvpaged.lab.explain.parting import Parting, find_partings
from kvpaged.lab.explain.prefix_tree import Added, PrefixTree
from kvpaged.lab.explain.seen import Seen, SeenBlocks, SeenRuns
from kvpaged.lab.explain.verdict import Verdict, judge
from kvpaged.lab.trace import Trace

_CURVE_POINTS = 8  # capacities, each half the next; the largest keeps everything
_DEFAULT_SHARE = 8  # a cache has an eighth of the pages that keep everything, if nobody says how many


@dataclass
class Explanation:
    """What became of the prompt tokens of a trace, in a cache of `num_pages` pages that evicts by LRU."""

    trace: str
    in_tokens: bool  # whether the trace shows where within a page two prompts part
    page_size: int | None  # tokens; None where the blocks of the trace have no fixed size
    num_pages: int
    distinct_pages: int  # a cache of so many keeps everything
    tokens: Ledger
    kept: dict[str, dict[int, int]]  # tokens found, by rule and by pages of the cache
    partings: list[Parting]  # the most expensive first
    verdicts: list[Verdict] = field(repr=False)  # of each request

    @property
    def hidden(self) -> int:
        """Tokens that may be reusable beyond what a trace of blocks shows: two blocks that differ may begin alike."""
        if self.in_tokens or self.page_size is None:
            return 0
        most = self.page_size - 1
        return sum(min(most, verdict.tokens.total - verdict.parts_at) for verdict in self.verdicts)


def explain(
    trace: Trace, page_size: int = 16, num_pages: int | None = None, show_progress: bool = False
) -> Explanation:
    """Account for each prompt token of a trace.

    Pages have `page_size` tokens, if it is a trace of tokens; else a page is one of the trace's blocks. What is evicted
    is what a cache of `num_pages` pages gives up (of an eighth of the distinct ones, if None).
    Raises ValueError for an empty trace, or sizes below 1.
    """
    if not trace.requests:
        raise ValueError(f"{trace.name} has no request: there is nothing to explain")
    units_per_page = positive_int("page_size", page_size) if trace.in_tokens else 1
    own, of_all, elsewhere = _compare(trace, page_size, show_progress)
    paths = PagePaths([each.end for each in own], units_per_page)
    distinct = max(1, paths.distinct_pages)
    num_pages = positive_int("num_pages", max(1, distinct // _DEFAULT_SHARE) if num_pages is None else num_pages)
    capacities = sorted({num_pages, *(max(1, distinct >> power) for power in range(_CURVE_POINTS))})
    without_limit = tokens_found(trace, paths, distinct)
    limited = [(rule, capacity) for rule in Rule for capacity in capacities if capacity < distinct]
    found = {(rule, capacity): without_limit for rule in Rule for capacity in capacities}
    for rule, capacity in tqdm(limited, "evicting", leave=False, disable=not show_progress):
        found[rule, capacity] = tokens_found(trace, paths, capacity, rule)
    verdicts = [
        judge(trace, *each)
        for each in zip(trace.requests, own, of_all, elsewhere, without_limit, found[Rule.LRU, num_pages], strict=True)
    ]
    tokens = Ledger()
    for verdict in verdicts:
        tokens += verdict.tokens
    assert tokens.total == trace.num_tokens, "the lines of the ledger do not add up to the trace"
    return Explanation(
        trace=trace.name,
        in_tokens=trace.in_tokens,
        page_size=page_size if trace.in_tokens else trace.block_size,
        num_pages=num_pages,
        distinct_pages=distinct,
        tokens=tokens,
        kept={rule: {capacity: sum(found[rule, capacity]) for capacity in capacities} for rule in Rule},
        partings=find_partings(trace, of_all, verdicts),
        verdicts=verdicts,
    )


def _compare(trace: Trace, chunk: int, show_progress: bool) -> tuple[list[Added], list[Added], list[int]]:
    """For each request: how far it agrees with others of its salt, with any, and how many tokens it repeats behind."""
    tree = PrefixTree()
    salted = len({request.cache_salt for request in trace.requests}) > 1
    tree_of_all = PrefixTree() if salted else tree
    seen: Seen = SeenRuns(chunk) if trace.in_tokens else SeenBlocks(trace)
    own, of_all, elsewhere = [], [], []
    requests = tqdm(trace.requests, "comparing", unit=" requests", leave=False, disable=not show_progress)
    for number, request in enumerate(requests):
        own.append(tree.add(number, request.units, request.cache_salt))
        of_all.append(tree_of_all.add(number, request.units) if salted else own[-1])
        elsewhere.append(seen.count(request, of_all[-1].num_shared))
        seen.add(request)
    return own, of_all, elsewhere
