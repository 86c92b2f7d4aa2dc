"""What came of a random history: who objected, and what can be counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvpaged import mini
from kvpaged.exercises.exercise import Seen
from kvpaged.exercises.small_cache import views_of
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_view import Use
from kvpaged.figures.picture import Picture
from kvpaged.wording import count_of

Beginning = tuple[str, int, int]  # whose, how many tokens there were, how many of them were found
STOPPED = "stopped before the end"


def told(num_pages: int, page_size: int, lines: Iterable[str]) -> str:
    """What happens, below the size of the pool in which it does."""
    pool = f"{count_of(num_pages, 'page')} of {count_of(page_size, 'slot')}"
    return f"In a pool of {pool}:\n\n`" + "\n".join(lines) + "`"


class Played:
    """One history, played with some function in the place of the small engine's.

    steps: how many were played. objection: what the judge said; nobody plays on after it. live: who is left, by name.
    """

    def __init__(self, cache: mini.Cache, counting: Iterable[str]) -> None:
        self.cache, self.steps, self.objection = cache, 0, ""
        self.counted: dict[str, list[str]] = {what: [] for what in counting}
        self.live: Mapping[str, mini.Sequence] = {}
        self.beginnings: list[Beginning] = []  # of requests, in order

    def seen(self) -> Seen:
        """What can be compared with another run of the same history."""
        free, kept = len(self.cache.pool.free), len(self.cache.by_use)
        return {
            "the judge says": self.objection.replace("`", "") or "nothing",
            **{what: ", ".join(which) or "none" for what, which in self.counted.items()},
            "free pages at the end": STOPPED if self.objection else free,
            "pages that the prefix cache keeps": STOPPED if self.objection else kept,
        }

    def draw(self) -> dict[str, Picture]:
        """The pool after the last line that was played, with the owners of each page, counted or not."""
        size, views = self.cache.page_size, views_of(self.cache)
        for name, sequence in self.live.items():
            for page in sequence.page_table:
                views[page].uses[name] = Use(size, size, sequence.page_table.count(page))
        return {"the pool afterwards": draw_pages(views, size, counting_tokens=False)}
