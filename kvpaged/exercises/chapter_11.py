"""Chapter 11, measuring it: what a page size costs, and folds over the log of a small memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from kvpaged import OutOfPages, PagedKVCache
from kvpaged.events import Event, EventLog
from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen
from kvpaged.metrics import memory_over_time
from kvpaged.replay import Replay

_PAGE_SIZE = 2


def _room(chance: Random) -> Question:
    """How much of what requests hold is filled, and how many fit."""
    tokens, page_size = chance.choice([60, 80, 100, 150, 250, 400]), chance.choice([8, 16, 32, 64, 128])
    slots = chance.choice([4_000, 8_192, 15_728, 30_000])
    held = tokens + (page_size - 1) / 2
    words = (
        f"A request has {tokens} tokens in memory on average, in pages of {page_size}. How much of what it holds is "
        f"filled, to the nearest percent, and how many such requests fit into {slots:,} slots?"
    )
    return Question(words, (round(100 * tokens / held), int(slots // held)))


def _a_log(chance: Random, size: int) -> list[Event]:
    """What happened to a small memory: texts that begin alike, grow, fork and end, and steps between."""
    cache = PagedKVCache(chance.choice([3, 4, 6]), _PAGE_SIZE, events=EventLog())
    live: list[Any] = []
    for _ in range(size):
        what = chance.choice(["begin", "append", "fork", "release"] if live else ["begin"])
        text: Any = chance.choice(live) if live else None
        try:
            if what == "begin":
                live.append(cache.sequence([chance.randrange(2) for _ in range(chance.randint(1, 4))]))
                live[-1].mark_computed()
            elif what == "append":
                text.append(chance.randrange(2))
                text.mark_computed()
            elif what == "fork":
                live.append(text.fork())
            else:
                live.remove(text)
                text.release()
        except OutOfPages:
            pass
        if chance.random() < 0.6:
            cache.events.add("step")
    return list(cache.events)


def _told(call: str, events: Iterable[Event]) -> str:
    lines = []
    for event in events:
        fields = {name: value for name, value in event._asdict().items() if value and name != "kind"}
        lines.append(" ".join([event.kind, *(f"{name}={value}".replace(" ", "") for name, value in fields.items())]))
    return f"`{call}`, where these are the events:\n\n`" + "\n".join(lines) + "`"


def _idle(chance: Random, size: int) -> Case:
    events = _a_log(chance, size)

    def run(idle_steps: Function) -> Seen:
        steps: Mapping[int, int] = idle_steps([*events], _PAGE_SIZE)
        return {"steps in which each page lay idle": {page: steps[page] for page in sorted(steps) if steps[page]}}

    return Case(_told(f"idle_steps(events, {_PAGE_SIZE})", events), run)


def _idle_steps(events: Iterable[Event], page_size: int) -> Counter[int]:
    replay, idle = Replay(page_size), Counter[int]()
    for event in events:
        replay.apply(event)
        if event.kind == "step":
            idle.update(page for page in replay.cached if replay.ref_counts[page] == 1)
    return idle


def _sharing(chance: Random, size: int) -> Case:
    events = _a_log(chance, size)
    return Case(
        _told("saved_by_sharing(events)", events),
        lambda saved_by_sharing: {"pages saved by sharing": saved_by_sharing([*events])},
    )


def _saved_by_sharing(events: Iterable[Event]) -> int:
    return memory_over_time(events, _PAGE_SIZE)[-1].saved_by_sharing


EXERCISES = (
    Predict(
        number="11.1",
        title="what a page size costs",
        instance=_room,
        hints=(
            "In pages of b slots, `(b - 1) / 2` slots of each request's last page are empty, and nothing else.",
            "So a request holds its tokens and `(b - 1) / 2` slots. What part of that is tokens, and how often does it "
            "go into the memory?",
        ),
    ),
    Build(
        number="11.4",
        name="idle_steps",
        title="how long each page lay idle",
        cases=_idle,
        reference=_idle_steps,
        against="the package's replay",
        hints=(
            "`Replay(page_size)` knows owners and cached pages after each event; the `step` events are the clock.",
            "`replay.apply(event)` goes one event further. `replay.cached` are the pages that the prefix cache owns, "
            "`replay.ref_counts` counts the owners of each.",
            "At each `step`, add one for each page in `replay.cached` whose count is 1.",
        ),
    ),
    Build(
        number="11.5",
        name="saved_by_sharing",
        title="pages saved by sharing",
        cases=_sharing,
        reference=_saved_by_sharing,
        against="the package's `memory_over_time`",
        hints=(
            "The state is a table for each live sequence: a list of pages.",
            "`share` and `allocate` put pages at the end of `event.sequence`'s table; `fork` gives all of its pages to "
            "the child, whose id is `event.number`; `release` ends a table. At a `copy` the first of its two pages "
            "leaves the table; the second is there already.",
            "At the end: how many entries have all tables together, and how many different pages stand in them?",
        ),
    ),
)
