"""What the bookkeeping costs, beside bare Python doing nothing but appending and popping as many list items.

Loop A: a sequence of 1,024 tokens in pages of 16, 256 appends one at a time, released.
Loop B: a cached prompt of 1,024 tokens plus 64 new ones, released.
Both on a pool of 100,000 pages. The yardstick runs in turns with the loops, so that a noisy machine slows both.

    python benchmarks/bookkeeping.py
"""

import time
import tracemalloc
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from kvpaged import EventLog, PagedKVCache, PagePool

PROMPT, APPENDS, NEW, NUM_PAGES, PAGE_SIZE = 1_024, 256, 64, 100_000, 16
ROUNDS = 15
PROMPT_TOKENS = [token * 7 % 30_000 for token in range(PROMPT)]


def loop_a(cache: PagedKVCache) -> None:
    """One long sequence, decoded token by token."""
    sequence = cache.sequence(PROMPT_TOKENS)
    for token in range(APPENDS):
        sequence.append(token)
    sequence.release()


def loop_b(cache: PagedKVCache) -> None:
    """One request whose prompt is cached but for its end."""
    sequence = cache.sequence(PROMPT_TOKENS + list(range(NEW)))
    assert sequence.num_cached_tokens == PROMPT
    sequence.release()


def with_cached_prompt() -> PagedKVCache:
    """A cache that knows the prompt of loop B."""
    cache = PagedKVCache(NUM_PAGES, PAGE_SIZE)
    sequence = cache.sequence(PROMPT_TOKENS)
    sequence.mark_computed()
    sequence.release()
    return cache


def yardstick(num_items: int) -> None:
    """Append and pop as many items of a list as a loop has tokens."""
    items: list[int] = []
    for item in range(num_items):
        items.append(item)
    for _ in range(num_items):
        items.pop()


def seconds(action: Callable[[], object], times: int) -> float:
    """Seconds for one run of `action`."""
    start = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - start) / times


def compare(
    name: str, make: Callable[[], PagedKVCache], loop: Callable[[PagedKVCache], None], num_items: int
) -> list[str]:
    """Measure a loop and its yardstick in turns; return a row of the table."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        cache = make()
        ours.append(seconds(lambda cache=cache: loop(cache), 100))  # type: ignore[misc]
        bare.append(seconds(lambda: yardstick(num_items), 100))
    best, ratios = min(ours), [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    return [name, f"{1 / median(ours):,.0f}", f"{1 / best:,.0f}", f"{median(ratios):.2f}"]


def main() -> None:
    """Print both tables."""
    table = Table(
        "loop", "per second, median", "per second, best", "time / yardstick", title="Bookkeeping, 100,000 pages"
    )
    table.add_row(*compare("A", lambda: PagedKVCache(NUM_PAGES, PAGE_SIZE), loop_a, PROMPT + APPENDS))
    recording = "A, with the event log on"
    table.add_row(
        *compare(recording, lambda: PagedKVCache(NUM_PAGES, PAGE_SIZE, events=EventLog()), loop_a, PROMPT + APPENDS)
    )
    table.add_row(*compare("B", with_cached_prompt, loop_b, PROMPT + NEW))

    opening = seconds(lambda: PagePool(1_000_000), 1)
    tracemalloc.start()
    pool = PagePool(1_000_000)
    opened, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    in_use = seconds(lambda: pool.release_many(pool.allocate_many(1_000_000)), 1)
    million = Table("a pool of 1,000,000 pages", "", title="")
    million.add_row("opened in", f"{opening * 1e3:.3f} ms")
    million.add_row("holds, when opened", f"{opened / 2**20:.3f} MiB")
    million.add_row("all allocated and released in", f"{in_use:.2f} s")
    console = Console()
    console.print(table)
    console.print(million)


if __name__ == "__main__":
    main()
