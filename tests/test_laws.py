"""The judge of the laws: what it convicts, and the words in which it says so."""

import re
from collections.abc import Callable

import pytest

from kvpaged import PagedKVCache, Sequence
from kvpaged.laws import Claim, check_contents
from kvpaged.tokens import pack


def convicted(words: str) -> "pytest.RaisesExc[AssertionError]":
    """In exactly these words."""
    return pytest.raises(AssertionError, match=f"^{re.escape(words)}$")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda sequence: sequence.tokens.append(9), "sequence 0 has 7 tokens, but maps 6"),
        (lambda sequence: sequence.table.page_ids.append(5), "sequence 0 maps 6 tokens to [0, 1, 5]"),
        (lambda sequence: sequence.table.page_ids.__setitem__(1, 0), "sequence 0 has a page twice: [0, 0]"),
        (lambda sequence: setattr(sequence, "num_computed", 7), "sequence 0 has 7 of 6 tokens computed"),
    ],
)
def test_a_sequence_that_contradicts_itself_is_named_with_what_it_says(
    spoil: Callable[[Sequence], object], words: str
) -> None:
    cache = PagedKVCache(8, 4)
    sequence = cache.sequence(range(6))
    sequence.num_computed = 6
    cache.check()
    spoil(sequence)
    with convicted(words):
        cache.check()


def test_a_page_that_the_pool_does_not_have_breaks_the_first_law() -> None:
    cache = PagedKVCache(4, 4)
    sequence = cache.sequence(range(4))
    sequence.table.page_ids.append(99)
    sequence.table.num_tokens = 5
    sequence.tokens.append(4)
    with convicted("law 1: page 99 has 0 references in the pool, but 1 owner: sequence 0"):
        cache.check()


def test_a_cached_page_that_is_continued_before_it_is_full_breaks_the_third_law() -> None:
    cache = PagedKVCache(8, 4)
    pages = cache.pool.allocate_many(2)
    cache.prefix.insert(range(6), pages)
    cache.pool.release_many(pages)
    cache.check()
    first = next(cache.prefix.nodes())
    first.edge = pack([0, 1, 2])
    with convicted("law 3: page 0 is not full, yet continued"):
        cache.check()


def test_a_page_that_the_pool_has_twice_among_its_free_ones_breaks_the_first_law() -> None:
    cache = PagedKVCache(8, 4)
    cache.sequence(range(6)).release()
    cache.pool._released.append(cache.pool._released[-1])
    with convicted("law 1: 8 pages have no owner, but the pool says 9 are free"):
        cache.check()


def test_each_owner_of_a_page_is_compared_with_the_one_who_says_most_of_it() -> None:
    claims = [Claim(3, "short", 0, (1,)), Claim(3, "long", 0, (1, 2, 3, 4)), Claim(3, "middle", 0, (1, 2))]
    check_contents(claims)
    words = "law 2: page 3 cannot hold both (1, 2, 9) for liar and (1, 2, 3, 4) for long"
    with convicted(words):
        check_contents([*claims, Claim(3, "liar", 0, (1, 2, 9))])


def test_what_the_prefix_cache_knows_is_not_taken_for_what_a_sequence_holds() -> None:
    cache = PagedKVCache(8, 2)
    cache.sequence([1, 1])
    one, other, shared = cache.pool.allocate_many(3)
    cache.prefix.insert([2, 2, 5, 5], [other, shared])
    cache.prefix.insert([1, 1, 5, 5], [one, shared])
    cache.pool.release_many([one, other, shared])
    with convicted(
        f"law 2: page {shared} cannot hold both (5, 5) for the prefix cache and (5, 5) for the prefix cache, "
        "after different tokens"
    ):
        cache.check()


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_transfers_of_one_page_after_different_tokens_are_both_named(pages: int) -> None:
    cache = PagedKVCache(16, 2)
    [page] = cache.pool.allocate_many(1)
    before = list(range(2 * pages))
    for text in ([*before, 7, 7], [9, *before[1:], 7, 7]):
        cache.transfers.begin(pack(text), [page])
    cache.pool.release(page)
    with convicted(
        f"law 2: page {page} cannot hold both (7, 7) for transfer 1 and (7, 7) for transfer 0, after different tokens"
    ):
        cache.check()


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_the_beginning_of_a_transfer_is_told_from_every_later_page_of_another(pages: int) -> None:
    cache = PagedKVCache(16, 2)
    [page] = cache.pool.allocate_many(1)
    for text in ([*range(2 * pages), 7, 7], [7, 7]):
        cache.transfers.begin(pack(text), [page])
    cache.pool.release(page)
    with convicted(
        f"law 2: page {page} cannot hold both (7, 7) for transfer 1 and (7, 7) for transfer 0, after different tokens"
    ):
        cache.check()


def test_what_follows_a_cached_page_is_told_from_what_follows_a_page_under_way() -> None:
    cache = PagedKVCache(8, 2)
    page, cached = cache.pool.allocate_many(2)
    cache.prefix.insert([2, 2], [cached])
    for text in ([3, 3, 7, 7], [2, 2, 7, 7]):
        cache.transfers.begin(pack(text), [page])
    cache.pool.release_many([page, cached])
    with convicted(
        f"law 2: page {page} cannot hold both (7, 7) for transfer 1 and (7, 7) for transfer 0, after different tokens"
    ):
        cache.check()


def test_a_prefix_cache_that_has_lost_count_says_both_numbers() -> None:
    cache = PagedKVCache(8, 4)
    sequence = cache.sequence(range(8))
    sequence.mark_computed()
    cache.prefix._num_pages = 3
    with convicted("the prefix cache holds 2 pages, but says 3"):
        cache.check()
