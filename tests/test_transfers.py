"""Pages under way: a transfer is one of their owners, from `begin` to `end`."""

import pytest

from kvpaged import EventLog, PagedKVCache, PagePool
from kvpaged.tokens import pack
from kvpaged.transfers import Transfers


def told(log: EventLog) -> list[tuple[object, ...]]:
    return [tuple(event) for event in log]


def test_a_transfer_owns_one_reference_to_each_page_until_its_end() -> None:
    pool, log = PagePool(8), EventLog()
    transfers = Transfers(pool, log)
    pages = pool.allocate_many(3)
    first, second = transfers.begin(b"one", pages), transfers.begin(b"two", iter(pages[:1]))
    assert [pool.ref_count(page) for page in pages] == [3, 2, 2]
    assert (len(transfers), list(transfers)) == (2, [first, second]), "in the order in which they began"
    assert [(each.id, each.tokens, each.page_ids) for each in transfers] == [(0, b"one", pages), (1, b"two", pages[:1])]
    transfers.end(first)
    assert [pool.ref_count(page) for page in pages] == [2, 1, 1]
    assert list(transfers) == [second]
    assert told(log) == [
        ("transfer", None, (0, 1, 2), (), 1),
        ("transfer", None, (0,), (), 1),
        ("transfer", None, (0, 1, 2), (), 0),
    ]


def test_pages_that_were_allocated_for_a_transfer_are_adopted_with_their_reference() -> None:
    pool, log = PagePool(8), EventLog()
    transfers = Transfers(pool, log)
    transfer = transfers.begin(pack([5, 6, 7]))
    assert told(log) == [], "of no page there is nothing to tell"
    pages = pool.allocate_many(2)
    transfers.adopt(transfer, pages)
    transfers.adopt(transfer, pool.allocate_many(1))
    assert transfer.page_ids == [0, 1, 2]
    assert pool.ref_counts == [1, 1, 1]
    transfers.end(transfer)
    assert pool.num_used == 0
    assert pool.allocate_many(3) == [0, 1, 2], "given back so that the next gets them in their old order"
    assert told(log) == [
        ("transfer", None, (0, 1), (), 1),
        ("transfer", None, (2,), (), 1),
        ("transfer", None, (0, 1, 2), (), 0),
    ]


def test_a_transfer_of_a_free_page_does_not_begin_and_one_that_ended_does_not_end() -> None:
    pool, log = PagePool(8), EventLog()
    transfers = Transfers(pool, log)
    page = pool.allocate()
    with pytest.raises(ValueError, match="^page 1 is free: "):
        transfers.begin(b"", [page, 1])
    assert (len(transfers), pool.ref_counts, told(log)) == (0, [1], [])
    transfer = transfers.begin(b"", [page])
    transfers.end(transfer)
    with pytest.raises(KeyError):
        transfers.end(transfer)
    assert pool.ref_counts == [1]


def test_what_is_forgotten_gives_nothing_back() -> None:
    pool = PagePool(8)
    transfers = Transfers(pool, EventLog())
    transfers.begin(b"", pool.allocate_many(1))
    transfers.forget()
    assert (len(transfers), list(transfers), pool.ref_counts) == (0, [], [2])


def test_the_judge_knows_what_a_transfer_owns_and_what_its_pages_hold() -> None:
    cache = PagedKVCache(8, 4)
    text = list(range(10, 20))
    sequence = cache.sequence(text)
    pages = sequence.table.page_ids
    whole, end = cache.transfers.begin(pack(text), pages), cache.transfers.begin(pack(text), pages[1:])
    cache.check()
    cache.pool.release(pages[2])
    with pytest.raises(AssertionError, match="^law 1: page 2 has 2 references .* 3 owners: .*transfer 0, transfer 1$"):
        cache.check()
    cache.pool.share(pages[2])
    whole.tokens = pack([1, *text[1:]])
    with pytest.raises(AssertionError, match="^law 2: page 0 cannot hold both .* for transfer 0"):
        cache.check()
    whole.tokens = pack(text)
    end.tokens = pack([1, *text[1:]])
    with pytest.raises(AssertionError, match="^law 2: page 1 cannot hold both .* for transfer 1.*, after different"):
        cache.check()
    end.tokens = pack(text)
    for transfer in (whole, end):
        cache.transfers.end(transfer)
    sequence.release()
    cache.check()
    assert cache.pool.num_used == len(cache.prefix) == 0, "nothing was computed"


def test_a_cache_has_transfers_of_its_own_pages_and_log() -> None:
    cache = PagedKVCache(8, 4, events=EventLog())
    transfer = cache.transfers.begin(b"", cache.pool.allocate_many(2))
    assert cache.pool.ref_counts == [2, 2]
    assert told(cache.events) == [("transfer", None, (0, 1), (), 1)]
    cache.transfers.end(transfer)
    assert cache.pool.ref_counts == [1, 1]
