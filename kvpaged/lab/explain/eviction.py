"""What a prefix cache of a limited number of pages would have found, by one rule of eviction or another.

Requests come one after another. Each finds the pages of its beginning that are still there; then the cache takes its
other pages, and to make room gives up pages of others: always from the end of a prompt towards its beginning, as
`PrefixCache` does, and never the pages of the request itself. A request longer than the cache leaves its beginning.
"""

from enum import StrEnum
from heapq import heappop, heappush

from kvpaged.lab.explain.page_paths import PagePaths

_NEVER = (1 << 32) - 1  # a request that does not come
_BITS = 32  # of a request's number, and of a run's


class Rule(StrEnum):
    """Which page goes first, of those that no other page continues."""

    LRU = "LRU"  # the one that was used least recently
    LFU = "LFU"  # the one that was used least often since it came, of equals the least recent
    FIFO = "FIFO"  # the one that came first
    ORACLE = "oracle"  # the one that is needed again last, or never; what is needed even later is not let in (Belady)


class EvictionSimulation:
    """A cache of `num_pages` pages after all requests: `hits` has the pages that each of them found.

    A run of pages is kept from its beginning; pages at its end come and go. Those of a run that came together are a
    parcel: the last parcel goes first.
    """

    def __init__(self, paths: PagePaths, num_pages: int, rule: Rule) -> None:
        runs = len(paths.num_pages)
        self.rule = rule
        self.hits: list[int] = []
        self._pages = paths.num_pages
        self._parents = paths.parents
        self._free = num_pages
        self._kept = [0] * runs  # pages of each run that are in the cache
        self._continued = [0] * runs  # how many runs in the cache continue it
        self._last = [0] * runs  # the last request that used it
        self._uses = [0] * runs
        self._next = [_NEVER] * runs  # the next request that needs it: for the oracle alone
        self._parcels: list[list[tuple[int, int, int]]] = [[] for _ in range(runs)]  # pages, request, uses before
        # Evictable runs, as key << _BITS | run. An entry is out of date if the run's key is another by now.
        self._queue: list[int] = []
        coming = _next_requests(paths) if rule is Rule.ORACLE else []
        for request, path in enumerate(paths.paths):
            if coming:
                for run, needed in zip(path, coming[request], strict=True):
                    self._next[run] = needed
            self.hits.append(self._serve(request, path))

    def _serve(self, request: int, path: list[int]) -> int:
        """Use what is there, take the rest, and return how many pages were there."""
        kept, last, uses, pages = self._kept, self._last, self._uses, self._pages
        found = whole = 0  # pages, and runs all of whose pages are there
        for run in path:
            here = kept[run]
            found += here
            last[run] = request
            uses[run] += 1
            if here < pages[run]:
                break
            whole += 1
        deepest = path[whole - 1] if whole else -1
        for run in path[whole:]:
            last[run] = request  # which protects what is there of it
            missing = pages[run] - kept[run]
            if missing > self._free:
                self._evict(missing - self._free, request, self._next[run])
            taken = min(missing, self._free)
            if taken:
                self._take(run, taken, request)
            if kept[run]:
                deepest = run
            if taken < missing:
                break
        if deepest >= 0 and not self._continued[deepest]:
            heappush(self._queue, self._key(deepest) << _BITS | deepest)
        return found

    def _take(self, run: int, taken: int, request: int) -> None:
        """Fill so many pages of a run."""
        if not self._kept[run]:
            self._uses[run] = 1
            if self._parents[run] >= 0:
                self._continued[self._parents[run]] += 1
        self._free -= taken
        self._kept[run] += taken
        self._parcels[run].append((taken, request, self._uses[run] - 1))

    def _evict(self, shortage: int, request: int, needed: int) -> None:
        """Free that many pages, or as many as may go for a page that is needed next by the request `needed`."""
        while shortage > 0 and self._queue:
            entry = heappop(self._queue)
            run = entry & _NEVER
            if not self._kept[run] or self._continued[run] or self._last[run] == request:
                continue  # gone, continued, or in use by the request, which puts it back when it is served
            if entry >> _BITS != self._key(run):
                continue  # there is a later entry
            if self.rule is Rule.ORACLE and self._next[run] <= needed:
                heappush(self._queue, entry)
                return
            there, came, uses_before = self._parcels[run].pop()
            freed = min(there, shortage)
            if freed < there:
                self._parcels[run].append((there - freed, came, uses_before))
            self._kept[run] -= freed
            self._free += freed
            shortage -= freed
            exposed = run if self._kept[run] else self._parents[run]
            if exposed != run and exposed >= 0:
                self._continued[exposed] -= 1
            if exposed >= 0 and not self._continued[exposed] and self._last[exposed] != request:
                heappush(self._queue, self._key(exposed) << _BITS | exposed)

    def _key(self, run: int) -> int:
        """What decides who goes first: the smallest key."""
        if self.rule is Rule.LRU:
            return self._last[run]
        if self.rule is Rule.ORACLE:
            return _NEVER - self._next[run]
        _, came, uses_before = self._parcels[run][-1]
        return came if self.rule is Rule.FIFO else (self._uses[run] - uses_before) << _BITS | self._last[run]


def _next_requests(paths: PagePaths) -> list[list[int]]:
    """For each request, the next request that needs each of its runs."""
    coming = [_NEVER] * len(paths.num_pages)
    backwards = []
    for request in reversed(range(len(paths.paths))):
        path = paths.paths[request]
        backwards.append([coming[run] for run in path])
        for run in path:
            coming[run] = request
    return backwards[::-1]
