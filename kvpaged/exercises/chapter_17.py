"""Chapter 17, a second tier: who owns what waits, bytes that a policy moves, a follower of events, pages under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.small import draw_pool, pool_of
from kvpaged.tier import Store, Tier, TieredKVCache

Batch = tuple[int, list[tuple[Any, ...]]]  # its number, and its events


class _Records(dict[int, tuple[bytes, bytes]]):
    """What a tier asks of its file, in memory: keys without values."""

    path, num_records, key_bytes, value_bytes = "memory", 64, 1000, 0

    def __iter__(self) -> Any:
        return iter([(record, key) for record, (key, _) in self.items()])

    def write(self, record: int, key: bytes, value: bytes) -> None:
        self[record] = key, value

    def read(self, record: int) -> tuple[bytes, bytes]:
        return self[record]


def _a_memory(num_pages: int, page_size: int, store: Store) -> TieredKVCache:
    records: Any = _Records()
    return TieredKVCache(num_pages, page_size, Tier(records, page_size), store)


def _tell(cache: TieredKVCache, tokens: Sequence[int]) -> None:
    sequence = cache.sequence(tokens)
    sequence.mark_computed()
    sequence.release()


def _what_waits(chance: Random) -> Question:
    """A prompt that is stored at once, and a long one that needs its room."""
    page_size, full = chance.choice([4, 8]), chance.randint(2, 5)
    num_pages = full + 1 + chance.randint(1, 3)
    num_tokens = full * page_size + chance.randint(1, page_size - 1)
    cache = _a_memory(num_pages, page_size, Store.AT_ONCE)
    _tell(cache, range(num_tokens))
    used = cache.pool.num_used
    owners = sum(map(cache.pool.ref_count, range(num_pages)))
    cache.prefix.clear()
    free = cache.pool.num_free
    long = num_pages * page_size
    cache.sequence(range(1000, 1000 + long))
    words = (
        f"A pool of {num_pages} pages of {page_size} tokens, and a tier that stores at once. A prompt of {num_tokens} "
        "tokens is computed and its sequence released; nothing has been written yet. How many pages are used, and how "
        "many references do they have together? Now somebody calls `cache.prefix.clear()`. How many pages are free? "
        f"Then a prompt of {long} tokens comes, with nothing in common. How many pages are in the tier when that "
        "prompt has its pages? Four numbers."
    )
    return Question(words, (used, owners, free, len(cache.tier)))


def _bytes_moved(chance: Random) -> Question:
    """A pool with room for one text, and visits of those who told two or three."""
    store = chance.choice([Store.AT_ONCE, Store.ON_SECOND_USE, Store.ON_SECOND_USE, Store.WHEN_EVICTED])
    page_size, full, megabytes = 4, chance.randint(2, 5), chance.choice([1, 2, 5])
    visits = "".join(chance.choice("AAB" if index % 2 else "ABC") for index in range(chance.randint(6, 8)))
    cache = _a_memory(full + 1, page_size, store)
    for letter in visits:
        _tell(cache, [ord(letter) * 100 + index for index in range(full * page_size + 1)])
        cache.outbound.run()
    words = (
        f"The texts A, B and C have {full} full pages each, and one token more. The pool has room for one of them, so "
        f"each new one evicts all of the one before. A tier stores `{store.value}`, and a page is {megabytes} MB. The "
        f"visits, one after another: {' '.join(visits)}. After each of them all that waits is written. How many MB are "
        "written to the tier, and how many are read from it, until the last visit is over?"
    )
    moved = (cache.tier.num_written * megabytes, cache.tier.num_read * megabytes)
    return Question(words, moved)


def _a_stream(chance: Random, size: int) -> Case:
    """Batches of a cache that grows and shrinks, in which something may have gone wrong on the way."""
    batches: list[Batch] = []
    parents: dict[int, int | None] = {}
    number = 0
    for _ in range(size):
        events: list[tuple[Any, ...]] = []
        for _ in range(chance.randint(0, 3)):
            ends = [page for page in parents if page not in parents.values()]
            if ends and chance.random() < 0.4:
                events.append(("removed", page := chance.choice(ends)))
                del parents[page]
            else:
                parents[number] = chance.choice([None, *parents])
                events.append(("stored", number, parents[number]))
                number += 1
        if chance.random() < 0.15:  # a snapshot: all there is, once more
            events = [("cleared",), *(("stored", page, parent) for page, parent in parents.items())]
        batches.append((len(batches), events))
    _lose(chance, batches)

    def run(follow: Function) -> Seen:
        came = follow([(number, [*events]) for number, events in batches])
        return {"it returned": set(came) if isinstance(came, frozenset) else came}

    return Case(f"`follow({batches})`", run)


def _lose(chance: Random, batches: list[Batch]) -> None:
    """Something that happens on the way: a batch is lost, or sent twice, or one of its events is."""
    what = chance.choice(["nothing", "a batch", "what came before", "a batch twice", "an event", "an event twice"])
    at = chance.randrange(len(batches))
    events = batches[at][1]
    if what == "a batch":
        del batches[at]
    elif what == "what came before":  # so one who comes late begins: with a snapshot
        while batches[at][1][:1] != [("cleared",)] and at + 1 < len(batches):
            at += 1
        del batches[:at]
    elif what == "a batch twice":
        batches.insert(at, batches[at])
    elif what == "an event" and events:
        del events[chance.randrange(len(events))]
    elif what == "an event twice":
        events += [each for each in events if each[0] == "removed"][:1]


def _follow(batches: Sequence[Batch]) -> set[int] | tuple[str, int]:
    held: set[int] = set()
    due = 0
    for number, events in batches:
        if number != due and events[:1] != [("cleared",)]:
            return "not the next", number
        due = number + 1
        for kind, *about in events:
            if kind == "cleared":
                held = set()
            elif kind == "stored":
                page, parent = about
                if parent is not None and parent not in held:
                    return "no parent", page
                held.add(page)
            elif about[0] not in held:
                return "not there", about[0]
            else:
                held.remove(about[0])
    return held


def _on_the_way(chance: Random, size: int) -> Case:
    """Pages that the prefix cache has, and gives up while they are copied; what becomes free, a stranger writes to."""
    num_pages = size + 1
    pages = chance.sample(range(num_pages), chance.randint(1, size))
    counts = [(page in pages) * chance.choice([1, 1, 2]) for page in range(num_pages)]
    evicted = [{page for page in pages if chance.random() < 0.4} for _ in pages]  # during each copy
    fails = chance.randrange(len(pages)) if size > 3 and chance.random() < 0.4 else None

    def run(send: Function) -> Drawn:
        pool, gone = pool_of(counts), set[int]()
        holds = [f"text {page}" if count else "" for page, count in enumerate(counts)]
        turn = iter(range(len(pages)))

        def copy(page: int) -> str:
            now = next(turn)
            for each in sorted(evicted[now] - gone):
                gone.add(each)
                mini.release(pool, each)
            for each in pool.free:
                holds[each] = "a stranger's"
            if now == fails:
                raise OSError("the disk is full")
            return holds[page]

        came = outcome(send, pool, [*pages], copy, refusals=(OSError,))
        came = {"it returned": [*came["it returned"]]} if isinstance(came.get("it returned"), list | tuple) else came
        came |= {"owners of each page afterwards": pool.ref_counts, "free pages afterwards": sorted(pool.free)}
        return Drawn(came, lambda: {"the pool before": draw_pool(pool_of(counts)), "the pool after": draw_pool(pool)})

    during = "; ".join(
        f"during copy {turn} the cache gives up {sorted(each)}" for turn, each in enumerate(evicted) if each
    )
    failing = f"; copy {fails} fails" if fails is not None else ""
    return Case(
        f"`send(pool, {pages}, copy)`, where the pages have {counts} owners; {during or 'nothing else happens'}"
        f"{failing}. (Copies are counted from 0.)",
        run,
    )


def _send(pool: Any, pages: list[int], copy: Callable[[int], str]) -> list[str]:
    for page in pages:
        mini.share(pool, page)
    try:
        return [copy(page) for page in pages]
    finally:
        for page in pages:
            mini.release(pool, page)


EXERCISES = (
    Predict(
        number="17.1",
        title="who owns what waits",
        instance=_what_waits,
        hints=(
            "Who owns the full pages, and who the last one? Only full pages are stored.",
            "After `clear()` the prefix cache owns nothing. What waits to be written has an owner still.",
            "The long prompt needs all pages. `making_room` writes what waits, and then its transfers end.",
        ),
    ),
    Predict(
        number="17.6",
        title="bytes that a policy moves",
        instance=_bytes_moved,
        hints=(
            "Go through the visits. Where the text is the one before it again, the pool has it and nothing is read.",
            "A page that is in the tier is not written a second time, under any policy.",
            "`on second use` counts a use when a page is computed, and when it is found in the pool; `when evicted` "
            "writes a text when the next one comes, so the last one is not written.",
        ),
    ),
    Build(
        number="17.7",
        name="follow",
        title="a follower that says what is wrong",
        cases=_a_stream,
        reference=_follow,
        against="a follower of a few lines",
        hints=(
            "Two things to remember from batch to batch: the pages that are there, and the number that is due.",
            "A batch whose first event is `cleared` may come at any time: it says all there is. After it, the one with "
            "the next number is due.",
            "`parent` None begins a text; every other parent must be there. Return at the first thing that is wrong.",
        ),
    ),
    Build(
        number="17.8",
        name="send",
        title="a transfer that gives its pages back too early",
        kind="debug",
        cases=_on_the_way,
        reference=_send,
        against="a transfer that owns its pages to the end",
        hints=(
            "Who owns a page while it is copied? Look at the line before its copy.",
            "A page that nobody owns during its copy may hold a stranger's text when the bytes are read.",
            "All pages get their second owner before the first copy, and lose it after the last. If a copy fails, they "
            "lose it too: `try`, `finally`.",
        ),
    ),
)
