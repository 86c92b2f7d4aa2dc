"""Measures of the memory, each a fold over an event log."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kvpaged.events import Event, EventKind
from kvpaged.replay import Replay


@dataclass
class MemoryTotals:
    """What happened over a whole log, added up."""

    pages_allocated: int = 0  # times that a page got its first owner
    pages_reused: int = 0  # of these, pages that somebody had used before
    pages_shared: int = 0  # times that a page got one more owner: by a prefix hit or a fork
    pages_freed: int = 0  # times that a page lost its last owner
    pages_evicted: int = 0  # pages that the prefix cache gave back
    pages_copied: int = 0  # copy-on-write: private copies taken
    slots_copied: int = 0  # and the tokens whose K and V were copied
    tokens_hit: int = 0  # prompt tokens that the prefix cache knew
    tokens_missed: int = 0  # prompt tokens that it did not
    tokens_appended: int = 0
    peak_pages: int = 0  # most pages owned at once

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that needed no computing: hits / (hits + misses)."""
        return self.tokens_hit / max(1, self.tokens_hit + self.tokens_missed)

    def bytes_copied(self, bytes_per_token: int) -> int:
        """Bytes of K and V that copy-on-write copied, given what one token's K and V weigh."""
        return self.slots_copied * bytes_per_token


class MemoryUse(NamedTuple):
    """The memory at one moment. Pages, unless it says slots or tokens."""

    event: int  # events before this moment
    used: int  # owned by somebody
    idle: int  # of these, owned by the prefix cache alone
    slots_used: int  # slots that hold a token, in pages that are used
    slots: int  # slots in pages that are used
    tokens: int  # tokens of live sequences, each counted for each sequence it is in
    saved_by_sharing: int  # pages that live sequences would need beyond those they have, if they shared none

    @property
    def waste(self) -> float:
        """Internal waste: the share of the slots in used pages that hold no token."""
        return 1 - self.slots_used / self.slots if self.slots else 0.0


def memory_totals(events: Iterable[Event], page_size: int) -> MemoryTotals:
    """Add up what happened. Raises ValueError at an event that cannot follow those before it.

    The log must have been begun with the cache: one that was begun later may pass, with wrong numbers. What goes on
    after a salvage is told, and counted, once more.
    """
    totals, replay = MemoryTotals(), Replay(page_size)
    seen: set[int] = set()
    before = 0
    for event in replay.play(events):
        match event.kind:
            case EventKind.BEGIN:
                totals.tokens_hit += event.number
                totals.tokens_missed += len(event.tokens) - event.number
            case EventKind.ALLOCATE:
                totals.pages_allocated += len(event.pages)
                totals.pages_reused += len(seen.intersection(event.pages))
                seen.update(event.pages)
            case EventKind.SHARE | EventKind.FORK:
                totals.pages_shared += len(event.pages)
            case EventKind.COPY:
                totals.pages_copied += 1
                totals.slots_copied += event.number
            case EventKind.EVICT:
                totals.pages_evicted += len(event.pages)
            case EventKind.APPEND:
                totals.tokens_appended += 1
        if replay.num_used < before:
            totals.pages_freed += before - replay.num_used
        before = replay.num_used
        totals.peak_pages = max(totals.peak_pages, before)
    return totals


def memory_over_time(
    events: Iterable[Event], page_size: int, at: Callable[[Event], bool] = lambda event: True
) -> list[MemoryUse]:
    """Return the memory after each event for which `at` is true (by default after every one)."""
    replay = Replay(page_size)
    samples = []
    for index, event in enumerate(replay.play(events), start=1):
        if at(event):
            samples.append(_use(replay, index))
    return samples


def _use(replay: Replay, event: int) -> MemoryUse:
    return MemoryUse(
        event=event,
        used=replay.num_used,
        idle=replay.num_idle,
        slots_used=sum(replay.slots_used().values()),
        slots=replay.num_used * replay.page_size,
        tokens=sum(len(replay.tokens[sequence]) for sequence in replay.tables),
        saved_by_sharing=replay.num_mapped - replay.num_in_tables,
    )
