"""The page table: logical token index -> (page id, slot)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvpaged import PageTable


def test_lookup_divides_the_index_by_the_page_size() -> None:
    table = PageTable(page_size=4, page_ids=[5, 2, 7], num_tokens=10)
    assert len(table) == 10
    assert [table.lookup(index) for index in (0, 3, 4, 9)] == [(5, 0), (5, 3), (2, 0), (7, 1)]


@pytest.mark.parametrize("index", [-1, 10, 11])
def test_lookup_outside_the_tokens_raises(index: int) -> None:
    table = PageTable(4, [5, 2, 7], 10)
    with pytest.raises(IndexError, match=f"token index {index} is outside this table of 10 tokens"):
        table.lookup(index)


@given(st.integers(1, 9), st.integers(0, 40), st.data())
def test_slot_mapping_is_lookup_token_by_token(page_size: int, num_tokens: int, data: st.DataObject) -> None:
    page_ids = data.draw(st.permutations(range(-(-num_tokens // page_size))))
    table = PageTable(page_size, page_ids, num_tokens)
    start = data.draw(st.integers(0, num_tokens))
    stop = data.draw(st.integers(start, num_tokens))
    expected = [page * page_size + slot for page, slot in map(table.lookup, range(start, stop))]
    assert table.slot_mapping(start, stop) == expected


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 11)])
def test_slot_mapping_outside_the_tokens_raises(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=f"tokens {start} to {stop} are not within this table of 10 tokens"):
        PageTable(4, [5, 2, 7], 10).slot_mapping(start, stop)


def test_extend_fills_the_last_page_before_it_takes_another() -> None:
    table = PageTable(4, [5], 3)
    table.extend([], 1)
    assert table.page_ids == [5]
    table.extend([8], 2)
    assert (table.page_ids, len(table)) == ([5, 8], 6)


@pytest.mark.parametrize(("page_ids", "num_tokens"), [([8], 1), ([], 2), ([8, 9], 5), ([], -1)])
def test_extend_refuses_pages_too_many_or_too_few(page_ids: list[int], num_tokens: int) -> None:
    table = PageTable(4, [5], 3)
    with pytest.raises(ValueError, match="more tokens need"):
        table.extend(page_ids, num_tokens)
    assert (table.page_ids, len(table)) == ([5], 3)


def test_truncate_returns_the_pages_it_no_longer_maps() -> None:
    table = PageTable(4, [5, 2, 7], 10)
    assert table.truncate(8) == [7]
    assert table.truncate(5) == []
    assert table.truncate(0) == [5, 2]
    assert (table.page_ids, len(table)) == ([], 0)


@pytest.mark.parametrize("length", [-1, 11])
def test_truncate_refuses_a_length_the_table_does_not_have(length: int) -> None:
    table = PageTable(4, [5, 2, 7], 10)
    with pytest.raises(ValueError, match=f"cannot truncate 10 tokens to {length}"):
        table.truncate(length)


def test_a_table_holds_just_the_pages_its_tokens_need() -> None:
    with pytest.raises(ValueError, match="9 tokens in pages of 4 need 3 pages, but 2 are given"):
        PageTable(4, [5, 2], 9)
    with pytest.raises(ValueError, match="page_size is 0; it must be at least 1"):
        PageTable(0)


def test_a_new_table_is_empty_and_shows_what_it_holds() -> None:
    table = PageTable(4)
    assert (len(table), table.page_ids) == (0, [])
    table.extend([], 0)
    table.extend([7, 2], 5)
    assert repr(table) == "PageTable(page_size=4, page_ids=[7, 2], num_tokens=5)"


def test_a_refused_extension_says_how_many_pages_it_needs() -> None:
    table = PageTable(4, [7], 3)
    with pytest.raises(ValueError, match="^6 more tokens need 2 more pages, but 1 are given$"):
        table.extend([1], 6)


@pytest.mark.parametrize("wrong", [0.5, 2.0, "1", None])
def test_what_is_no_number_of_tokens_is_named_and_changes_nothing(wrong: object) -> None:
    table = PageTable(4, [5], 3)
    for operation in (table.truncate, lambda n: table.extend([], n), lambda n: PageTable(4, [5], n)):
        with pytest.raises(TypeError, match=f"^num_tokens is {wrong!r}, a {type(wrong).__name__}; it must be an int$"):
            operation(wrong)
    assert (table.page_ids, len(table)) == ([5], 3)
