"""Failures on demand: a pool, a storage and a model that fail once, at the k-th thing that is asked of them.

After SQLite's tests, which let each allocation fail in turn. Page allocations are counted page by page, copies copy by
copy, and a model's work layer by layer.
"""

from collections.abc import Callable
from typing import Any

from kvpaged import OutOfPages, PagedKVCache, PagePool
from kvpaged.model.fast import fast


class InjectedError(RuntimeError):
    """A failure that nobody in the package expects."""


class Countdown:
    """Counts what is used, and raises once, at number `at`; never, if `at` is None."""

    def __init__(self, at: int | None = None, error: Callable[[str], Exception] = InjectedError) -> None:
        self.at, self.error = at, error
        self.used = 0
        self.num_fired = 0

    def set(self, at: int) -> None:
        """Fail at the `at`-th use from now on."""
        self.at = self.used + at

    def use(self, n: int = 1) -> None:
        """Use `n` things; raise if the one to fail is among them, and then none of them is used."""
        if self.at is not None and self.used < self.at <= self.used + n:
            self.at = None
            self.num_fired += 1
            raise self.error("injected")
        self.used += n


class FailingPool(PagePool):
    """A pool one of whose allocations fails, though there are pages."""

    def __init__(self, num_pages: int, pages: Countdown) -> None:
        super().__init__(num_pages)
        self.pages = pages

    def allocate_many(self, n: int) -> list[int]:
        self.pages.use(n)
        return super().allocate_many(n)


def fail_allocations(cache: PagedKVCache, at: int | None = None) -> Countdown:
    """Give a cache that has not been used yet a pool that fails at its `at`-th page."""
    countdown = Countdown(at, OutOfPages)
    cache.pool = cache.prefix.pool = cache.transfers.pool = FailingPool(cache.pool.num_pages, countdown)
    return countdown


def fail_copies(cache: PagedKVCache, at: int | None = None) -> Countdown:
    """Let the storage of a cache fail at its `at`-th copy, before it copies anything."""
    countdown, copy = Countdown(at), cache.storage.copy

    def failing_copy(source: int, target: int, num_slots: int) -> None:
        countdown.use()
        copy(source, target, num_slots)

    cache.storage.copy = failing_copy
    return countdown


class FailingModel:
    """A model that fails in its `at`-th layer, counted over all passes, after K and V of that layer are written."""

    def __init__(self, model: Any, at: int | None = None) -> None:
        self.model, self.config, self.layers = model, model.config, Countdown(at)

    def __call__(self, tokens: object, positions: object, attend: Callable[..., object], logits_at: object) -> object:
        def failing_attend(*arguments: object) -> object:
            output = attend(*arguments)
            self.layers.use()
            return output

        return fast(self.model)(tokens, positions, failing_attend, logits_at)
