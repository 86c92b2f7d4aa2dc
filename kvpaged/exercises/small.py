"""Pools of the small engine, made at random, told in words and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from kvpaged import mini
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_view import SLOTS, PageView, Use
from kvpaged.figures.picture import Picture


def pool_of(ref_counts: Iterable[int]) -> mini.Pool:
    """A pool whose pages have so many owners."""
    counts = list(ref_counts)
    pool = mini.Pool(len(counts))
    pool.free = [page for page in reversed(range(len(counts))) if not counts[page]]
    pool.ref_counts = counts
    return pool


def random_counts(chance: Random, num_pages: int, most: int = 3) -> list[int]:
    """Owners of so many pages, a third of which are free."""
    return [chance.choice([0, *range(1, most)]) for _ in range(num_pages)]


def draw_pool(
    pool: mini.Pool, page_size: int | None = None, holders: Mapping[str, Iterable[int]] | None = None
) -> Picture:
    """Each page of a small pool, with its owners; `holders` names those that are known."""
    views, filled = [PageView(page, ref_count=count) for page, count in enumerate(pool.ref_counts)], page_size or SLOTS
    for holder, pages in (holders or {}).items():
        for page in pages:
            views[page].uses[holder] = Use(filled, filled)
    return draw_pages(views, page_size, counting_tokens=False)
