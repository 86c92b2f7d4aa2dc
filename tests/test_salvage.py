"""What an interrupt left half done is cleared away, and what others have stays as it stands."""

import pytest

from kvpaged import EventLog, PagedKVCache, PagePool
from kvpaged.events import EventKind
from kvpaged.prefix_cache import PrefixWatcher
from kvpaged.replay import Replay
from kvpaged.tokens import pack


def test_what_is_kept_owns_its_pages_alone_and_all_else_is_free() -> None:
    log = EventLog()
    cache = PagedKVCache(16, 4, events=log)
    kept = cache.sequence(range(10))
    kept.mark_computed()
    fork, gone = kept.fork(), cache.sequence(range(50, 59))
    gone.mark_computed(8)
    cache.transfers.begin(pack(range(4)), kept.table.page_ids[:1])
    cache.pool.allocate_many(2)  # somebody's, who was interrupted before saying so
    gone.table.page_ids.pop()  # half done
    pages = list(kept.table.page_ids)
    before = len(log)
    cache.salvage(iter([kept]))
    cache.check()
    assert cache.sequences == {kept}
    assert kept.table.page_ids == pages
    assert [cache.pool.ref_count(page) for page in range(16)] == [page in pages for page in range(16)]
    assert (len(cache.prefix), len(cache.transfers), cache.pool.num_used) == (0, 0, 3)
    for other in (fork, gone):
        assert (len(other), other.table.page_ids, other.table.page_size) == (0, [], 4)
        with pytest.raises(ValueError, match="is released"):
            other.append(1)
    told = [tuple(event) for event in log][before:]
    assert told == [
        (EventKind.SALVAGE, None, (), (), 0),
        (EventKind.BEGIN, kept.id, (), tuple(range(10)), 10),
        (EventKind.SHARE, kept.id, tuple(pages), (), 0),
    ]
    replay = Replay(4).apply_all(log)
    assert (replay.num_used, replay.tables) == (3, {kept.id: pages})


def test_what_is_kept_goes_on_and_shows_its_pages_to_the_prefix_cache_again() -> None:
    cache = PagedKVCache(16, 4)
    kept = cache.sequence(range(10))
    kept.mark_computed()
    cache.salvage([kept])
    assert len(cache.prefix) == 0
    for token in (10, 11):
        kept.append(token)
    kept.mark_computed()
    assert len(cache.prefix) == 3
    kept.release()
    cache.check()
    assert cache.sequence(range(12)).num_cached_tokens == 11


def test_it_may_be_begun_again() -> None:
    cache = PagedKVCache(16, 4)
    kept = [cache.sequence(range(10)), cache.sequence(range(90, 97))]
    cache.salvage(kept)
    cache.salvage(kept)
    cache.check()
    assert (cache.pool.num_used, cache.sequences) == (5, set(kept))
    cache.salvage([])
    cache.check()
    assert (cache.pool.num_used, cache.sequences) == (0, set())


def test_a_cache_holds_something_while_anybody_has_keys_and_values_in_it() -> None:
    cache = PagedKVCache(16, 4)
    assert not cache.holds_any
    sequence = cache.sequence(range(6))
    assert not cache.holds_any, "slots, and nothing in them yet"
    sequence.mark_computed(1)
    assert cache.holds_any
    sequence.release()
    assert cache.holds_any, "the prefix cache keeps it"
    cache.prefix.clear()
    assert not cache.holds_any


def test_a_recount_gives_each_page_as_many_owners_as_it_is_named() -> None:
    pool = PagePool(8)
    pool.allocate_many(6)
    pool.share(3)
    pool.release(5)
    pool.recount(iter([4, 1, 4]))
    assert pool.ref_counts == [0, 1, 0, 0, 2, 0]
    assert (pool.num_used, pool.num_free) == (2, 6)
    assert pool.allocate_many(6) == [0, 2, 3, 5, 6, 7], "those that come first are given out first"


class Told(PrefixWatcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def forgotten(self) -> None:
        self.heard.append("forgotten")


def test_watchers_of_the_prefix_cache_are_told_that_it_begins_empty() -> None:
    cache, watcher = PagedKVCache(16, 4), Told()
    cache.prefix.watchers += [watcher, PrefixWatcher()]
    cache.salvage([])
    assert watcher.heard == ["forgotten"]
