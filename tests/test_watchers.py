"""A prefix cache tells its watchers what it does, before or after it does it."""

import pytest

from kvpaged import OutOfPages, PagedKVCache, PagePool, PrefixCache
from kvpaged.prefix_cache import PrefixNode, PrefixWatcher


class Told(PrefixWatcher):
    """Writes down what it is told, with the pages in it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[int]]] = []

    def kept(self, nodes: list[PrefixNode]) -> None:
        self.heard.append(("kept", [node.page_id for node in nodes]))

    def used(self, node: PrefixNode) -> None:
        self.heard.append(("used", [node.page_id]))

    def making_room(self) -> None:
        self.heard.append(("making room", []))

    def evicting(self, nodes: list[PrefixNode]) -> None:
        assert all(node.alive for node in nodes), "they are still there"
        self.heard.append(("evicting", [node.page_id for node in nodes]))

    def removed(self, nodes: list[PrefixNode]) -> None:
        assert not any(node.alive for node in nodes)
        self.heard.append(("removed", [node.page_id for node in nodes]))


def watched(num_pages: int = 6) -> tuple[PagedKVCache, Told]:
    cache, told = PagedKVCache(num_pages, 2), Told()
    cache.prefix.watchers.append(told)
    return cache, told


def test_what_is_kept_found_and_evicted_is_told() -> None:
    cache, told = watched()
    first = cache.sequence([1, 2, 3, 4, 5])
    first.mark_computed()
    first.release()
    assert told.heard == [("kept", [0, 1]), ("kept", [2])]
    told.heard.clear()
    second = cache.sequence([1, 2, 3, 4, 6, 7])
    assert told.heard == [("used", [1])], "by the deepest page of the match"
    told.heard.clear()
    second.release()
    assert told.heard == [], "it computed nothing, so nothing is kept"
    third = cache.sequence(range(20, 28))
    assert told.heard == [("making room", []), ("evicting", [2]), ("removed", [2])]
    third.release()
    told.heard.clear()
    cache.prefix.clear()
    assert told.heard == [("removed", [1, 0])], "who clears makes no room"


def test_a_request_that_finds_nothing_or_has_room_tells_nothing() -> None:
    cache, told = watched()
    cache.sequence([1, 2, 3])
    assert len(cache.prefix.allocate_many(4)) == 4, "all that are free"
    assert told.heard == []
    assert cache.prefix.evict(1) == 0
    assert told.heard == [("making room", []), ("evicting", [])]


def test_pages_that_a_watcher_gives_back_in_time_need_not_be_evicted() -> None:
    cache, _ = watched(4)
    sequence = cache.sequence([1, 2, 3, 4])
    sequence.mark_computed()
    sequence.release()
    held = cache.pool.allocate_many(2)

    class Gives(PrefixWatcher):
        def making_room(self) -> None:
            cache.pool.release_many(held)

    cache.prefix.watchers.append(Gives())
    assert sorted(cache.prefix.allocate_many(2)) == held
    assert len(cache.prefix) == 2


def test_a_watcher_that_objects_keeps_everything_as_it_was() -> None:
    pool = PagePool(4)
    prefix = PrefixCache(pool, page_size=1)
    for token in range(3):
        page = pool.allocate()
        prefix.insert([token], [page])
        pool.release(page)

    class Objects(PrefixWatcher):
        def evicting(self, nodes: list[PrefixNode]) -> None:
            raise OSError("the disk is full")

    prefix.watchers.append(Objects())
    for evict in (prefix.evict, prefix.allocate_many):
        with pytest.raises(OSError, match="the disk is full"):
            evict(3)
        assert (len(prefix), pool.ref_counts) == (3, [1, 1, 1])
    prefix.watchers.clear()
    assert [prefix.evict(1) and prefix.match([token]).num_tokens for token in range(3)] == [0, 0, 0], "in their order"


def test_too_few_pages_are_told_of_before_anybody_is_evicted() -> None:
    cache, told = watched(2)
    sequence = cache.sequence([1, 2, 3])
    sequence.mark_computed()
    sequence.release()
    told.heard.clear()
    with pytest.raises(OutOfPages):
        cache.prefix.allocate_many(3)
    assert told.heard == [("making room", [])]
    assert len(cache.prefix) == 2
