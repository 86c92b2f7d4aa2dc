"""What a cache of so many pages finds, in tokens."""

from kvpaged.lab.explain.eviction import EvictionSimulation, Rule
from kvpaged.lab.explain.page_paths import PagePaths
from kvpaged.lab.trace import Trace


def tokens_found(trace: Trace, paths: PagePaths, num_pages: int, rule: Rule = Rule.LRU) -> list[int]:
    """For each request, the tokens that a cache finds in whole pages. One token at least is left to run."""
    found = []
    hits = EvictionSimulation(paths, num_pages, rule).hits
    for request, pages in zip(trace.requests, hits, strict=True):
        if trace.in_tokens:
            pages = min(pages, (request.num_tokens - 1) // paths.units_per_page)
        found.append(min(trace.tokens_in(request, pages * paths.units_per_page), request.num_tokens - 1))
    return found
