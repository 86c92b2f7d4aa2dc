"""Pool, prefix cache, storage and log, put together."""

import pytest

from kvpaged import EventLog, OutOfPages, PagedKVCache, PageTable
from kvpaged.figures.page_map import page_map
from kvpaged.memory import Memory


class Copies:
    """A storage that writes down what is copied, or fails."""

    def __init__(self, num_pages: int, page_size: int, fails: bool = False) -> None:
        self.num_pages, self.page_size, self.fails = num_pages, page_size, fails
        self.done: list[tuple[int, int, int]] = []

    def copy(self, source: int, target: int, num_slots: int) -> None:
        if self.fails:
            raise MemoryError("no bytes left")
        self.done.append((source, target, num_slots))


def test_room_for_a_table_is_pages_for_what_its_last_page_cannot_hold() -> None:
    memory: Memory[object] = Memory(8, 4)
    table = PageTable(4, memory.make_room(PageTable(4), 6), 6)
    assert [len(memory.make_room(table, num_tokens)) for num_tokens in (1, 2, 3, 6, 7)] == [0, 0, 1, 1, 2]
    assert memory.pool.num_used == 2 + 4
    with pytest.raises(OutOfPages):
        memory.make_room(table, 11)
    assert memory.pool.num_used == 2 + 4


def test_a_table_must_copy_exactly_where_others_own_the_page_it_writes_next() -> None:
    memory: Memory[object] = Memory(8, 4)
    pages = memory.make_room(PageTable(4), 6)
    assert not memory.must_copy(PageTable(4, pages, 6))
    memory.pool.share(pages[0])
    assert not memory.must_copy(PageTable(4, pages, 6))
    memory.pool.share(pages[1])
    assert memory.must_copy(PageTable(4, pages, 6))
    assert not memory.must_copy(PageTable(4, pages, 8)), "the next token goes to a new page"
    assert not memory.must_copy(PageTable(4))


def test_the_first_page_of_the_room_is_the_copy_of_a_page_with_other_owners() -> None:
    storage = Copies(8, 4)
    memory: Memory[object] = Memory(8, 4, storage=storage)
    pages = memory.make_room(PageTable(4), 6)
    memory.pool.share_many(pages)
    room = memory.make_room(PageTable(4, pages, 6), 3)
    assert len(room) == 2
    assert storage.done == [(pages[1], room[0], 2)]


def test_a_copy_that_fails_leaves_no_page_behind() -> None:
    memory: Memory[object] = Memory(8, 4, storage=Copies(8, 4, fails=True))
    pages = memory.make_room(PageTable(4), 6)
    memory.pool.share_many(pages)
    with pytest.raises(MemoryError):
        memory.make_room(PageTable(4, pages, 6), 1)
    assert memory.pool.num_used == 2
    assert memory.pool.allocate() == 2, "and the next one is the page that it was to be"


def test_a_memory_without_a_log_keeps_none_and_a_log_learns_the_sizes() -> None:
    assert not Memory(8, 4).events.recording
    log = EventLog()
    log.about["words"] = {"1": "one"}
    memory: Memory[object] = Memory(8, 4, events=log)
    assert memory.events is memory.prefix.events is log
    assert log.about == {"words": {"1": "one"}, "page_size": 4, "num_pages": 8}


@pytest.mark.parametrize("storage", [object(), 7, "pages"])
def test_what_is_no_storage_is_refused_by_name(storage: object) -> None:
    message = f"^storage is {storage!r}; give a PageStorage, or what has num_pages, page_size and copy\\(source, "
    with pytest.raises(TypeError, match=message):
        PagedKVCache(8, 4, storage=storage)


def test_a_storage_of_other_pages_is_refused_and_the_log_learns_nothing() -> None:
    log = EventLog()
    for storage in (Copies(8, 2), Copies(7, 4)):
        with pytest.raises(
            ValueError, match=f"has {storage.num_pages} pages of {storage.page_size} slots, the cache 8 of 4"
        ):
            PagedKVCache(8, 4, storage=storage, events=log)
    assert not log.about


def test_a_log_that_is_none_and_a_switch_that_is_neither_on_nor_off_are_refused() -> None:
    with pytest.raises(TypeError, match="events is 5; give an EventLog, or nothing"):
        PagedKVCache(8, 4, events=5)
    with pytest.raises(ValueError, match="prefix_caching is 'no'; it must be True or False"):
        PagedKVCache(8, 4, prefix_caching="no")


@pytest.mark.parametrize(("name", "numbers"), [("num_pages", (True, 4)), ("page_size", (8, True))])
def test_true_is_no_number_of_pages_or_slots(name: str, numbers: tuple[int, int]) -> None:
    with pytest.raises(TypeError, match=f"^{name} is True, a bool; it must be an int of at least 1$"):
        PagedKVCache(*numbers)


@pytest.mark.parametrize(("num_pages", "shown"), [(1, True), (512, True), (513, False)])
def test_a_notebook_shows_the_map_of_pages_that_can_be_told_apart(num_pages: int, shown: bool) -> None:
    cache = PagedKVCache(num_pages, 4)
    cache.sequence([1, 2, 3])
    assert cache._repr_html_() == (page_map(cache)._repr_html_() if shown else None)


def test_a_text_begins_with_what_is_a_salt() -> None:
    cache = PagedKVCache(8, 4)
    with pytest.raises(TypeError, match="^cache_salt has 1.0, a float"):
        cache.sequence([1, 2, 3], cache_salt=1.0)
    assert cache.pool.num_used == 0
