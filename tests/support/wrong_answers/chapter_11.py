"""Wrong answers to the exercises of chapter 11."""

from collections import Counter, defaultdict

from kvpaged.replay import Replay


def all_cached(events, page_size):
    replay, idle = Replay(page_size), Counter()
    for event in events:
        replay.apply(event)
        if event.kind == "step":
            idle.update(replay.cached)
    return idle


def after_each_event(events, page_size):
    replay, idle = Replay(page_size), Counter()
    for event in events:
        replay.apply(event)
        idle.update(page for page in replay.cached if replay.ref_counts[page] == 1)
    return idle


def owned_once(events, page_size):
    replay, idle = Replay(page_size), Counter()
    for event in events:
        replay.apply(event)
        if event.kind == "step":
            idle.update(page for page, count in replay.ref_counts.items() if count == 1)
    return idle


def tables_of(events, copies=True, forks=True):
    tables = defaultdict(list)
    for kind, sequence, pages, _, number in events:
        if kind in ("share", "allocate"):
            tables[sequence] += pages
        elif kind == "fork" and forks:
            tables[number] += pages
        elif kind == "copy" and copies:
            tables[sequence].remove(pages[0])
        elif kind == "release":
            tables.pop(sequence, None)
    return tables


def saved(tables):
    entries = [page for table in tables.values() for page in table]
    return len(entries) - len({*entries})


def copies_forgotten(events):
    return saved(tables_of(events, copies=False))


def pages_that_are_shared(events):
    counts = Counter(page for table in tables_of(events).values() for page in table)
    return sum(count > 1 for count in counts.values())


def the_cache_is_an_owner_too(events):
    kept = Counter()
    for event in events:
        if event.kind == "insert":
            kept.update(event.pages)
        elif event.kind == "evict":
            kept.subtract(event.pages)
    return saved(tables_of(events)) + sum(kept.values())


def shares_and_forks(events):
    return sum(len(event.pages) for event in events if event.kind in ("share", "fork"))


IDLE, SAVED = "steps in which each page lay idle", "pages saved by sharing"

WRONG = {
    "11.4": [(all_cached, IDLE), (after_each_event, IDLE), (owned_once, IDLE)],
    "11.5": [
        (copies_forgotten, SAVED),
        (pages_that_are_shared, SAVED),
        (the_cache_is_an_owner_too, SAVED),
        (shares_and_forks, SAVED),
    ],
}
