"""The prefix cache: pages found again by the tokens they hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpaged import OutOfPages, PagePool, PrefixCache
from kvpaged.tokens import common_prefix, pack, unpack


def cache_with(*prompts: list[int], page_size: int = 4, num_pages: int = 64) -> tuple[PagePool, PrefixCache]:
    """A cache that alone owns the pages of these prompts."""
    pool = PagePool(num_pages)
    prefix = PrefixCache(pool, page_size)
    for prompt in prompts:
        insert(prefix, prompt)
    return pool, prefix


def insert(prefix: PrefixCache, tokens: list[int], cache_salt: str | None = None) -> list[int]:
    pages = prefix.pool.allocate_many(-(-len(tokens) // prefix.page_size))
    prefix.insert(tokens, pages, cache_salt)
    prefix.pool.release_many(pages)
    return pages


def test_an_empty_cache_matches_nothing() -> None:
    _, prefix = cache_with()
    match = prefix.match([1, 2, 3])
    assert (match.page_ids, match.num_tokens, len(prefix)) == ([], 0, 0)


def test_a_match_gives_the_pages_on_the_path() -> None:
    pool = PagePool(8)
    prefix = PrefixCache(pool, 4)
    pages = insert(prefix, list(range(12)))
    match = prefix.match([*range(8), 99, 98, 97, 96, 95])
    assert (match.page_ids, match.num_tokens) == (pages[:2], 8)


def test_a_match_is_exact_to_the_token() -> None:
    _, prefix = cache_with(list(range(12)))
    for length in range(13):
        match = prefix.match([*range(length), 99])
        assert match.num_tokens == length
        assert len(match.page_ids) == -(-length // 4)


def test_the_sibling_with_the_longest_common_prefix_is_found() -> None:
    _, prefix = cache_with([1, 2, 3, 4], [1, 2, 9, 9], [1, 7, 7, 7], [8, 8, 8, 8])
    assert prefix.match([1, 2, 9, 5]).num_tokens == 3
    assert prefix.match([1, 2, 5]).num_tokens == 2
    assert prefix.match([1, 5, 5, 5]).num_tokens == 1
    assert prefix.match([5, 5]).num_tokens == 0


def test_the_same_page_of_tokens_after_another_prefix_is_another_page() -> None:
    _, prefix = cache_with([1, 1, 1, 1, 5, 5, 5, 5], [2, 2, 2, 2, 5, 5, 5, 5])
    one, other = prefix.match([1, 1, 1, 1, 5, 5, 5, 5]), prefix.match([2, 2, 2, 2, 5, 5, 5, 5])
    assert one.num_tokens == other.num_tokens == 8
    assert not set(one.page_ids) & set(other.page_ids)


def test_a_match_takes_no_ownership() -> None:
    pool, prefix = cache_with(list(range(8)))
    before = [pool.ref_count(page) for page in range(8)]
    prefix.match(range(8))
    assert [pool.ref_count(page) for page in range(8)] == before


def test_insert_makes_the_cache_one_more_owner_of_what_it_keeps() -> None:
    pool = PagePool(8)
    prefix = PrefixCache(pool, 4)
    pages = pool.allocate_many(2)
    prefix.insert(range(8), pages)
    assert [pool.ref_count(page) for page in pages] == [2, 2]
    assert len(prefix) == 2


def test_duplicates_are_kept_once() -> None:
    pool = PagePool(8)
    prefix = PrefixCache(pool, 4)
    first = insert(prefix, list(range(8)))
    second = pool.allocate_many(3)
    prefix.insert([*range(8), 50], second)
    assert [pool.ref_count(page) for page in second] == [1, 1, 2]
    assert prefix.match(range(8)).page_ids == first
    assert len(prefix) == 3


def test_a_partly_filled_page_gives_way_to_a_fuller_one() -> None:
    pool = PagePool(8)
    prefix = PrefixCache(pool, 4)
    insert(prefix, [1, 2])
    longer = insert(prefix, [1, 2, 3])
    assert (len(prefix), pool.num_used) == (1, 1)
    assert prefix.match([1, 2, 3, 4]).page_ids == longer
    insert(prefix, [1, 2])
    assert (len(prefix), pool.num_used) == (1, 1)


def test_no_cached_page_crosses_a_salt() -> None:
    _, prefix = cache_with()
    mine = insert(prefix, [1, 2, 3, 4], "mine")
    yours = insert(prefix, [1, 2, 3, 4], "yours")
    assert prefix.match([1, 2, 3, 4], "mine").page_ids == mine
    assert prefix.match([1, 2, 3, 4], "yours").page_ids == yours
    assert prefix.match([1, 2, 3, 4]).num_tokens == 0
    assert prefix.match([1, 2, 3, 4], "").num_tokens == 0


def test_eviction_takes_the_least_recently_used_first() -> None:
    _, prefix = cache_with([1] * 4, [2] * 4, [3] * 4)
    prefix.touch(prefix.match([1] * 4))
    assert prefix.evict(1) == 1
    assert [prefix.match([token] * 4).num_tokens for token in (1, 2, 3)] == [4, 0, 4]
    assert prefix.evict(1) == 1
    assert [prefix.match([token] * 4).num_tokens for token in (1, 2, 3)] == [4, 0, 0]


def test_eviction_takes_leaves_before_the_pages_they_continue() -> None:
    _, prefix = cache_with(list(range(12)))
    for left in (8, 4, 0):
        assert prefix.evict(1) == 1
        assert prefix.match(range(12)).num_tokens == left


def test_a_page_above_is_as_recent_as_the_most_recent_below() -> None:
    _, prefix = cache_with([1] * 8, [2] * 4)
    prefix.touch(prefix.match([1] * 8))
    assert prefix.evict(2) == 2
    assert prefix.match([1] * 8).num_tokens == 4
    assert prefix.match([2] * 4).num_tokens == 0


def test_eviction_spares_pages_that_somebody_else_owns() -> None:
    pool, prefix = cache_with([1] * 4, [2] * 4)
    [page] = prefix.match([1] * 4).page_ids
    pool.share(page)
    assert prefix.evict(5) == 1
    assert prefix.match([1] * 4).page_ids == [page]
    pool.release(page)
    assert prefix.evict(5) == 1
    assert pool.num_used == 0


def test_eviction_returns_how_many_pages_became_free() -> None:
    pool, prefix = cache_with(list(range(12)))
    free = pool.num_free
    assert prefix.evict(2) == 2
    assert pool.num_free == free + 2
    assert prefix.evict(5) == 1
    assert prefix.evict(5) == 0


def test_allocating_evicts_what_only_the_cache_owns() -> None:
    pool, prefix = cache_with(list(range(8)), [9] * 4, num_pages=4)
    assert len(prefix.allocate_many(3)) == 3
    assert (len(prefix), pool.num_free) == (1, 0)


def test_allocating_more_than_can_be_evicted_evicts_nothing() -> None:
    pool, prefix = cache_with([1] * 8, [2] * 4, num_pages=4)
    in_use = prefix.match([2] * 4).page_ids
    pool.share_many(in_use)
    with pytest.raises(OutOfPages, match="asked for 4 pages: of 4, 1 are free and 2 more can be evicted"):
        prefix.allocate_many(4)
    pool.release_many(in_use)
    assert (len(prefix), pool.num_free) == (3, 1)
    with pytest.raises(OutOfPages):
        prefix.allocate_many(5)
    assert [prefix.match([token] * 8).num_tokens for token in (1, 2)] == [8, 4]
    assert prefix.evict(9) == 3


def test_an_allocation_that_fails_leaves_the_order_of_eviction_as_it_was() -> None:
    _, prefix = cache_with([1] * 4, [2] * 8, [3] * 4, num_pages=4)
    with pytest.raises(OutOfPages):
        prefix.allocate_many(5)
    lengths = []
    for _ in range(4):
        prefix.evict(1)
        lengths.append([prefix.match([token] * 8).num_tokens for token in (1, 2, 3)])
    assert lengths == [[0, 8, 4], [0, 4, 4], [0, 0, 4], [0, 0, 0]]


def test_a_page_in_use_that_an_eviction_comes_to_counts_as_used_even_if_the_allocation_fails() -> None:
    pool, prefix = cache_with([1] * 4, [2] * 4, num_pages=3)
    in_use = prefix.match([1] * 4).page_ids
    pool.share_many(in_use)
    with pytest.raises(OutOfPages):
        prefix.allocate_many(3)
    pool.release_many(in_use)
    prefix.evict(1)
    assert [prefix.match([token] * 4).num_tokens for token in (1, 2)] == [4, 0]


def test_clear_gives_every_page_back() -> None:
    pool, prefix = cache_with(list(range(12)), [9] * 6)
    insert(prefix, [1, 2, 3], "salt")
    prefix.clear()
    assert (len(prefix), pool.num_used) == (0, 0)
    assert prefix.match(range(12)).num_tokens == 0
    insert(prefix, [1, 2, 3, 4])
    assert prefix.evict(1) == 1


def test_insert_refuses_pages_that_do_not_fit_the_tokens() -> None:
    pool, prefix = cache_with()
    pages = pool.allocate_many(3)
    with pytest.raises(ValueError, match="8 tokens in pages of 4 need 2 pages, but 3 are given"):
        prefix.insert(range(8), pages)
    with pytest.raises(ValueError, match="page 40 is free"):
        prefix.insert(range(8), [pages[0], 40])
    assert (len(prefix), pool.ref_count(pages[0])) == (0, 1)


@pytest.mark.parametrize("token", [1.5, "one", None, [1]])
def test_what_is_no_token_is_named(token: object) -> None:
    _, prefix = cache_with()
    with pytest.raises(TypeError, match=r"at index 1: token .* is not an int"):
        prefix.match([1, token])  # type: ignore[list-item]


@pytest.mark.parametrize("token", [-1, 2**32])
def test_a_token_out_of_range_is_named(token: int) -> None:
    _, prefix = cache_with()
    with pytest.raises(ValueError, match=f"at index 2: token {token} is outside"):
        prefix.match([1, 2, token])


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=11)


@settings(max_examples=300)
@given(st.lists(prompts, max_size=12), prompts, st.integers(1, 4))
def test_a_match_is_the_longest_common_prefix_with_anything_inserted(
    inserted: list[list[int]], asked: list[int], page_size: int
) -> None:
    _, prefix = cache_with(*inserted, page_size=page_size, num_pages=200)

    def common(other: list[int]) -> int:
        return next(
            (i for i, (a, b) in enumerate(zip(asked, other, strict=False)) if a != b), min(len(asked), len(other))
        )

    assert prefix.match(asked).num_tokens == max(map(common, inserted), default=0)


@settings(max_examples=200)
@given(st.lists(prompts, min_size=1, max_size=12), st.lists(st.integers(1, 5)), st.integers(1, 4))
def test_evicting_in_any_steps_frees_everything_in_the_end(
    inserted: list[list[int]], steps: list[int], page_size: int
) -> None:
    pool, prefix = cache_with(*inserted, page_size=page_size, num_pages=200)
    for step in steps:
        held = len(prefix)
        assert prefix.evict(step) == min(step, held)
        assert pool.num_used == len(prefix)
    prefix.evict(200)
    assert pool.num_used == 0


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["insert", "use", "evict"]), prompts), max_size=30), st.integers(1, 3))
def test_who_leaves_is_the_leaf_that_a_list_of_all_times_of_use_names(
    events: list[tuple[str, list[int]]], page_size: int
) -> None:
    _, prefix = cache_with(page_size=page_size, num_pages=400)
    last_used: dict[object, int] = {}
    for now, (event, tokens) in enumerate([*events, *[("evict", [])] * 400]):
        if event == "evict":
            leaves = [node for node in prefix.nodes() if not node.children]
            oldest = min(leaves, key=lambda leaf: last_used[leaf], default=None)
            left = [node for node in prefix.nodes() if node is not oldest]
            assert prefix.evict(1) == (oldest is not None)
            assert list(prefix.nodes()) == left
            continue
        if event == "insert":
            insert(prefix, tokens)
        match = prefix.match(tokens)
        prefix.touch(match)
        node = match.partial or match.full
        while node is not None:
            last_used[node] = now
            node = node.parent
    assert not prefix._ends


def test_a_match_that_was_evicted_since_can_be_touched_without_effect() -> None:
    _, prefix = cache_with([1] * 4)
    match = prefix.match([1] * 4)
    prefix.clear()
    prefix.touch(match)
    assert prefix.evict(1) == 0


def test_a_prefix_that_is_used_by_itself_outlives_what_once_continued_it() -> None:
    _, prefix = cache_with([1] * 12, [2] * 4)
    prefix.touch(prefix.match([1] * 4))
    assert prefix.evict(3) == 3
    assert [prefix.match([token] * 12).num_tokens for token in (1, 2)] == [4, 0]


def test_pages_that_were_in_use_can_be_evicted_when_they_are_not_whatever_was_asked_meanwhile() -> None:
    pool, prefix = cache_with([1] * 12, [1] * 8 + [2] * 4, num_pages=6)
    in_use = prefix.match([1] * 12).page_ids
    pool.share_many(in_use)
    for _ in range(3):
        with pytest.raises(OutOfPages, match="2 are free and 1 more can be evicted"):
            prefix.allocate_many(4)
    pool.release_many(in_use)
    assert len(prefix.allocate_many(6)) == 6


def test_the_order_of_eviction_does_not_grow_with_what_is_gone() -> None:
    _, prefix = cache_with(page_size=600, num_pages=4)
    for length in range(1, 600):  # each time a fuller page takes the place of the one before
        insert(prefix, [*range(length)])
    assert len(prefix) == len(prefix._ends) == 1


def test_a_cache_says_what_it_holds() -> None:
    _, prefix = cache_with([1, 2, 3, 4, 5])
    assert repr(prefix) == "PrefixCache(page_size=4, 2 pages held)"


def test_a_cache_of_no_slots_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="^page_size is 0; it must be at least 1$"):
        PrefixCache(PagePool(4), 0)


def test_a_cache_that_was_given_no_log_keeps_none() -> None:
    _, prefix = cache_with([1, 2, 3, 4, 5])
    assert len(prefix.events) == 0
    assert not prefix.events.recording


def test_a_fuller_page_takes_the_place_of_a_partly_filled_one_and_goes_on() -> None:
    pool, prefix = cache_with([1, 2])
    insert(prefix, [1, 2, 3, 4, 5, 6])
    assert (len(prefix), pool.num_used) == (2, 2)
    assert [node.tokens for node in prefix.nodes()] == [[1, 2, 3, 4], [5, 6]]


def test_inserting_returns_the_last_node_whose_page_is_full() -> None:
    pool, prefix = cache_with()
    pages = pool.allocate_many(4)
    root = prefix.insert_packed(pack([1, 2]), pages[:1], None)
    assert root.parent is None, "no page is full: the root it is"
    full = prefix.insert_packed(pack([5, 6, 7, 8, 9]), pages[1:3], None)
    assert full.tokens == [5, 6, 7, 8]
    again = prefix.insert_packed(pack([9]), pages[2:3], None, after=full)
    assert again is full
    more = prefix.insert_packed(pack([9, 9]), pages[3:], None, after=full)
    covered = prefix.insert_packed(pack([9]), pages[2:3], None, after=full)
    assert more is full
    assert covered is full, "another page holds these tokens, and more"


def test_the_best_partial_match_is_found_among_a_thousand_with_a_few_comparisons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, prefix = cache_with(*([first, second, 0, 0] for first in range(32) for second in range(32)), num_pages=1024)
    compared = []

    def counted(one: bytes, other: bytes) -> int:
        compared.append(other)
        return common_prefix(one, other)

    monkeypatch.setattr("kvpaged.prefix_cache.common_prefix", counted)
    assert prefix.match([17, 20, 5]).num_tokens == 2
    assert len(compared) <= 3


def test_nodes_come_depth_first_in_the_order_in_which_they_were_cached() -> None:
    _, prefix = cache_with([9, 9, 9, 9, 1], [3, 3, 3, 3], [9, 9, 9, 9, 0])
    insert(prefix, [1], "salt")
    insert(prefix, [5, 5, 5, 5])
    assert [node.tokens for node in prefix.nodes()] == [[9] * 4, [1], [0], [3] * 4, [5] * 4, [1]]


def test_what_cannot_be_allocated_is_told_in_numbers() -> None:
    pool, prefix = cache_with([1, 2, 3, 4, 5], num_pages=3)
    pool.allocate()
    told = "3 pages: of 3, 0 are free and 2 more can be evicted; release a sequence, or open a larger pool"
    with pytest.raises(OutOfPages, match=f"^asked for {told}$"):
        prefix.allocate_many(3)
    prefix.clear()
    pool.allocate_many(2)
    for wanted, pages in ((1, "1 page"), (2, "2 pages")):
        with pytest.raises(OutOfPages, match=f"^asked for {pages}: of 3, 0 are free and 0 more"):
            prefix.allocate_many(wanted)


def test_a_node_knows_its_salt_and_all_tokens_up_to_its_end() -> None:
    prefix = PrefixCache(PagePool(16), page_size=2)
    insert(prefix, [1, 2, 3, 4, 5])
    insert(prefix, [1, 2, 6], "salt")
    paths = sorted((repr(salt), unpack(tokens)) for salt, tokens in (node.path() for node in prefix.nodes()))
    assert paths == [("'salt'", [1, 2]), ("'salt'", [1, 2, 6])] + [
        ("None", tokens) for tokens in ([1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5])
    ]
    assert [node.depth for node in prefix.nodes()] == [1, 2, 3, 1, 2]


def test_a_match_of_whole_pages_is_no_partial_one_and_a_partial_one_can_be_given_up() -> None:
    prefix = PrefixCache(PagePool(16), page_size=2)
    pages = insert(prefix, [1, 2, 3, 4])
    whole = prefix.match([1, 2, 3, 4])
    assert (whole.page_ids, whole.num_tokens, whole.partial) == (pages, 4, None)
    assert whole.full is not None
    assert whole.full.page_id == pages[1]
    partial = prefix.match([1, 2, 3, 9])
    assert (partial.page_ids, partial.num_tokens, partial.partial) == (pages, 3, whole.full)
    given_up = partial.without_partial(2)
    assert (given_up.page_ids, given_up.num_tokens, given_up.partial) == (pages[:1], 2, None)
    assert given_up.full is partial.full is whole.full.parent


def test_nobody_asks_with_what_is_no_salt() -> None:
    prefix = PrefixCache(PagePool(16), page_size=2)
    for ask in (lambda: prefix.match([1], cache_salt=1.0), lambda: prefix.insert([], [], cache_salt=1.0)):
        with pytest.raises(TypeError, match="^cache_salt has 1.0, a float"):
            ask()
