"""The pool: who owns which page."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvpaged import OutOfPages, PagePool


def test_a_new_pool_is_free() -> None:
    pool = PagePool(num_pages=3)
    assert (pool.num_pages, pool.num_free, pool.num_used) == (3, 3, 0)
    assert [pool.ref_count(page) for page in range(3)] == [0, 0, 0]


def test_an_allocated_page_has_one_owner() -> None:
    pool = PagePool(2)
    page = pool.allocate()
    assert pool.ref_count(page) == 1
    assert (pool.num_free, pool.num_used) == (1, 1)


def test_release_returns_the_page_only_when_the_last_owner_lets_go() -> None:
    pool = PagePool(1)
    page = pool.allocate()
    pool.share(page)
    pool.release(page)
    assert pool.num_free == 0
    pool.release(page)
    assert pool.num_free == 1


def test_the_page_released_last_is_allocated_first() -> None:
    pool = PagePool(8)
    pages = pool.allocate_many(4)
    pool.release(pages[1])
    pool.release(pages[3])
    assert [pool.allocate(), pool.allocate()] == [pages[3], pages[1]]


def test_an_empty_pool_refuses_and_says_how_many_are_free() -> None:
    pool = PagePool(2)
    pool.allocate_many(2)
    with pytest.raises(OutOfPages, match="asked for 1 page, but 0 of 2 are free"):
        pool.allocate()


def test_allocate_many_is_all_or_nothing() -> None:
    pool = PagePool(4)
    pool.allocate()
    with pytest.raises(OutOfPages, match="asked for 4 pages, but 3 of 4 are free"):
        pool.allocate_many(4)
    assert pool.num_free == 3
    assert pool.allocate_many(0) == []
    assert len(set(pool.allocate_many(3))) == 3


@pytest.mark.parametrize("operation", ["share", "release"])
def test_a_free_page_can_be_neither_shared_nor_released(operation: str) -> None:
    pool = PagePool(4)
    page = pool.allocate()
    pool.release(page)
    with pytest.raises(ValueError, match=f"page {page} is free"):
        getattr(pool, operation)(page)
    with pytest.raises(ValueError, match="page 3 is free"):
        getattr(pool, operation)(3)
    assert pool.num_free == 4


@pytest.mark.parametrize("operation", ["share", "release", "ref_count"])
@pytest.mark.parametrize("page", [-1, 4, 1000])
def test_a_page_outside_the_pool_does_not_exist(operation: str, page: int) -> None:
    pool = PagePool(4)
    pool.allocate_many(4)
    with pytest.raises(ValueError, match=f"page {page} does not exist: this pool has pages 0 to 3"):
        getattr(pool, operation)(page)


@pytest.mark.parametrize("operation", ["share_many", "release_many"])
def test_operations_on_many_pages_are_all_or_nothing(operation: str) -> None:
    pool = PagePool(4)
    first, second = pool.allocate_many(2)
    with pytest.raises(ValueError, match="page 3 is free"):
        getattr(pool, operation)([first, second, 3])
    assert [pool.ref_count(first), pool.ref_count(second)] == [1, 1]
    assert pool.num_free == 2


@pytest.mark.parametrize("operation", ["share_many", "release_many"])
def test_what_another_library_raises_of_its_numbers_leaves_all_as_it_was(operation: str) -> None:
    class Vague:
        def __index__(self) -> int:
            return 1

        def __ge__(self, other: object) -> bool:
            raise RuntimeError("ambiguous")

    pool = PagePool(4)
    pages = pool.allocate_many(2)
    with pytest.raises(RuntimeError, match="ambiguous"):
        getattr(pool, operation)([*pages, Vague()])
    assert [pool.ref_count(page) for page in pages] == [1, 1]
    assert pool.num_free == 2


def test_release_many_counts_each_mention_of_a_page_and_frees_it_once() -> None:
    pool = PagePool(2)
    page = pool.allocate()
    pool.share(page)
    with pytest.raises(ValueError, match="is free"):
        pool.release_many([page, page, page])
    assert pool.ref_count(page) == 2
    pool.release_many([page, page])
    assert pool.num_free == 2
    assert len({pool.allocate(), pool.allocate()}) == 2


@pytest.mark.parametrize("bad", [0, -1])
def test_a_pool_needs_a_page(bad: int) -> None:
    with pytest.raises(ValueError, match=f"num_pages is {bad}; it must be at least 1"):
        PagePool(bad)


def test_a_page_count_must_be_an_int() -> None:
    with pytest.raises(TypeError, match=r"num_pages is 2\.5, a float"):
        PagePool(2.5)  # type: ignore[arg-type]


def test_allocating_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot allocate -1 pages"):
        PagePool(2).allocate_many(-1)


def test_a_pool_of_a_million_pages_holds_nothing_until_it_is_used() -> None:
    tracemalloc.start()
    pool = PagePool(1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert pool.num_free == 1_000_000


@given(st.lists(st.tuples(st.sampled_from(["allocate", "share", "release"]), st.integers(0, 5))))
def test_the_pool_agrees_with_a_plain_list_of_counts(actions: list[tuple[str, int]]) -> None:
    pool, counts = PagePool(4), [0] * 4
    for action, page in actions:
        if action == "allocate":
            if 0 in counts:
                got = pool.allocate()
                assert counts[got] == 0
                counts[got] = 1
            else:
                with pytest.raises(OutOfPages):
                    pool.allocate()
        elif page < 4 and counts[page]:
            getattr(pool, action)(page)
            counts[page] += 1 if action == "share" else -1
        else:
            with pytest.raises(ValueError, match=f"page {page} "):
                getattr(pool, action)(page)
        assert [pool.ref_count(page) for page in range(4)] == counts
        assert pool.num_free == counts.count(0)
        assert pool.num_used == 4 - pool.num_free


def test_refusals_say_what_was_wanted_what_there_is_and_what_to_do() -> None:
    pool = PagePool(5)
    freed, owned = pool.allocate_many(2)
    pool.release(freed)
    for verb, operation in (("shared", pool.share), ("released", pool.release)):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 (the whole message is compared)
            operation(freed)
        assert str(refused.value) == f"page 0 is free: nobody owns it, so it cannot be {verb}; allocate it first"
    for verb, many in (("shared", pool.share_many), ("released", pool.release_many)):
        for page_id in (freed, 2):  # one that somebody owned once, and the next that nobody ever had
            with pytest.raises(ValueError) as refused:  # noqa: PT011
                many([owned, page_id])
            told = f"page {page_id} is free: nobody owns it, so it cannot be {verb}; allocate it first"
            assert str(refused.value) == told
    assert pool.ref_counts == [0, 1]
    for wanted, pages in ((5, "5 pages"), (6, "6 pages")):
        with pytest.raises(OutOfPages) as short:
            pool.allocate_many(wanted)
        told = f"asked for {pages}, but 4 of 5 are free; release what is no longer needed, or open a larger pool"
        assert str(short.value) == told
    pool.allocate_many(4)
    with pytest.raises(OutOfPages, match="^asked for 1 page, but 0 of 5 are free; "):
        pool.allocate()


def test_a_pool_shows_what_is_used_and_free() -> None:
    pool = PagePool(5)
    pool.allocate_many(2)
    assert repr(pool) == "PagePool(num_pages=5, num_used=2, num_free=3)"


@pytest.mark.parametrize("wrong", [None, "0", 1.0, [2]])
def test_what_is_no_page_id_is_named_and_changes_nothing(wrong: object) -> None:
    pool = PagePool(4)
    pool.allocate_many(3)
    for operation in (pool.release, pool.share, pool.ref_count):
        with pytest.raises(TypeError, match=f"^{re.escape(repr(wrong))} is no page id; give an int$"):
            operation(wrong)
    for operation in (pool.release_many, pool.share_many):
        with pytest.raises(TypeError, match=f"^{re.escape(repr(wrong))} is no page id; give an int$"):
            operation([0, 1, wrong, 2])
    assert [pool.ref_count(page_id) for page_id in range(4)] == [1, 1, 1, 0]
    assert (pool.num_used, pool.num_free) == (3, 1)


def test_numpys_integers_are_page_ids_too() -> None:
    pool = PagePool(4)
    pool.allocate_many(2)
    pool.share(np.int64(1))
    pool.release_many(np.arange(2))
    assert [pool.ref_count(page_id) for page_id in np.arange(3)] == [0, 1, 0]
    pool.release(np.int64(1))
    assert [type(page_id) for page_id in pool.allocate_many(2)] == [int, int], "and leave as plain ones"


def test_how_many_pages_are_wanted_is_an_int_of_any_kind() -> None:
    pool = PagePool(4)
    pages = pool.allocate_many(np.int64(2))
    assert (pages, [type(page_id) for page_id in pages]) == ([0, 1], [int, int])
    for wrong in ("1", 1.0, None):
        told = f"n is {wrong!r}, a {type(wrong).__name__}; it must be an int"
        with pytest.raises(TypeError, match=f"^{re.escape(told)}$"):
            pool.allocate_many(wrong)
    assert pool.num_used == 2
