"""Sequences: append, fork, truncate, release, and the copy-on-write between them."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvpaged import EventLog, OutOfPages, PagedKVCache, PrefixCache, Sequence
from kvpaged.prefix_cache import PrefixNode


class RecordingStorage:
    """Stands where the bytes would be, and writes down what is copied."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self.copies: list[tuple[int, int, int]] = []
        self.fails = False

    def copy(self, source: int, target: int, num_slots: int) -> None:
        if self.fails:
            raise MemoryError("no bytes left")
        self.copies.append((source, target, num_slots))


@pytest.fixture
def storage() -> RecordingStorage:
    return RecordingStorage(num_pages=16, page_size=4)


@pytest.fixture
def cache(storage: RecordingStorage) -> Iterator[PagedKVCache]:
    cache = PagedKVCache(num_pages=16, page_size=4, storage=storage, events=EventLog())
    yield cache
    cache.check()


def state(cache: PagedKVCache) -> tuple[object, ...]:
    """Everything that an operation which raises must leave as it was."""
    return (
        [cache.pool.ref_count(page) for page in range(cache.pool.num_pages)],
        cache.pool.num_free,
        sorted((s.id, tuple(s.tokens), tuple(s.table.page_ids), len(s), s.num_computed) for s in cache.sequences),
        [(node.page_id, node.tokens) for node in cache.prefix.nodes()],
        list(cache.events),
    )


def computed(cache: PagedKVCache, tokens: list[int], salt: str | None = None) -> Sequence:
    sequence = cache.sequence(tokens, salt)
    sequence.mark_computed()
    return sequence


def test_a_sequence_owns_the_pages_its_prompt_needs(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(9))
    assert sequence.tokens == list(range(9))
    assert (len(sequence), sequence.num_computed, sequence.num_cached_tokens) == (9, 0, 0)
    assert len(sequence.table.page_ids) == 3
    assert all(cache.pool.ref_count(page) == 1 for page in sequence.table.page_ids)


def test_append_takes_a_page_only_when_the_last_one_is_full(cache: PagedKVCache) -> None:
    sequence = cache.sequence([1, 2, 3])
    sequence.append(4)
    assert cache.pool.num_used == 1
    sequence.append(5)
    assert cache.pool.num_used == 2
    assert sequence.tokens == [1, 2, 3, 4, 5]
    assert sequence.table.lookup(4) == (sequence.table.page_ids[1], 0)


def test_release_gives_every_page_back() -> None:
    cache = PagedKVCache(8, 4, prefix_caching=False)
    sequence = computed(cache, [*range(10)])
    sequence.release()
    assert cache.pool.num_free == 8
    assert (len(sequence), len(cache.prefix)) == (0, 0)


def test_a_released_sequence_can_do_nothing_more(cache: PagedKVCache) -> None:
    sequence = cache.sequence([1, 2, 3])
    sequence.release()
    for operation in (
        sequence.release,
        sequence.fork,
        sequence.mark_computed,
        lambda: sequence.append(4),
        lambda: sequence.truncate(1),
        lambda: sequence.slot_mapping(0, 1),
    ):
        with pytest.raises(ValueError, match=r"sequence 0 is released"):
            operation()  # type: ignore[operator]


def test_a_fork_owns_every_page_and_copies_nothing(cache: PagedKVCache, storage: RecordingStorage) -> None:
    parent = computed(cache, [*range(6)])
    child = parent.fork()
    assert child.tokens == parent.tokens
    assert child.tokens is not parent.tokens
    assert child.table.page_ids == parent.table.page_ids
    assert (child.num_computed, cache.pool.num_used, storage.copies) == (6, 2, [])


def test_the_first_write_after_a_fork_copies_only_the_slots_in_use_of_the_last_page(
    cache: PagedKVCache, storage: RecordingStorage
) -> None:
    parent = computed(cache, [*range(6)])
    shared, last = parent.table.page_ids
    child = parent.fork()
    child.append(60)
    target = child.table.page_ids[1]
    assert storage.copies == [(last, target, 2)]
    assert parent.table.page_ids == [shared, last]
    assert child.table.page_ids == [shared, target]
    parent.append(61)  # alone again, it writes in place
    assert len(storage.copies) == 1
    assert (parent.tokens[-1], child.tokens[-1]) == (61, 60)


def test_a_fork_at_a_page_boundary_copies_nothing_when_it_writes(
    cache: PagedKVCache, storage: RecordingStorage
) -> None:
    parent = computed(cache, [*range(8)])
    child = parent.fork()
    child.append(60)
    parent.append(61)
    assert storage.copies == []
    assert child.table.page_ids[:2] == parent.table.page_ids[:2]
    assert child.table.page_ids[2] != parent.table.page_ids[2]


def test_an_owner_from_outside_makes_a_page_read_only_too(cache: PagedKVCache, storage: RecordingStorage) -> None:
    sequence = cache.sequence([1, 2])
    [page] = sequence.table.page_ids
    cache.pool.share(page)
    sequence.append(3)
    assert storage.copies == [(page, sequence.table.page_ids[0], 2)]
    cache.pool.release(page)


def test_truncate_forgets_the_tail_and_gives_its_pages_back(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(10))
    kept = sequence.table.page_ids[:2]
    sequence.truncate(5)
    assert (sequence.tokens, sequence.table.page_ids, cache.pool.num_used) == ([0, 1, 2, 3, 4], kept, 2)
    sequence.truncate(5)
    sequence.truncate(0)
    assert (len(sequence), cache.pool.num_used) == (0, 0)
    sequence.append(7)
    assert sequence.tokens == [7]


def test_what_is_written_after_a_truncation_does_not_touch_a_page_that_the_cache_holds(
    cache: PagedKVCache, storage: RecordingStorage
) -> None:
    sequence = computed(cache, [*range(8)])
    cached = sequence.table.page_ids[1]
    sequence.truncate(6)
    assert sequence.num_computed == 6
    sequence.append(60)
    assert storage.copies == [(cached, sequence.table.page_ids[1], 2)]
    assert cache.prefix.match(range(8)).num_tokens == 8
    sequence.append(61)
    sequence.mark_computed()
    assert cache.prefix.match([*range(6), 60, 61]).num_tokens == 8


def test_full_pages_enter_the_prefix_cache_once_they_are_computed(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(10))
    assert cache.prefix.match(range(10)).num_tokens == 0
    sequence.mark_computed(7)
    assert cache.prefix.match(range(10)).num_tokens == 4
    sequence.mark_computed(8)
    assert cache.prefix.match(range(10)).num_tokens == 8
    sequence.mark_computed()
    assert cache.prefix.match(range(10)).num_tokens == 8


def test_release_donates_the_computed_part_of_the_last_page(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(10))
    sequence.mark_computed(9)
    sequence.release()
    assert cache.prefix.match(range(10)).num_tokens == 9
    assert cache.pool.num_used == 3


def test_release_leaves_a_last_page_to_the_fork_that_goes_on_with_it(
    cache: PagedKVCache, storage: RecordingStorage
) -> None:
    parent = computed(cache, [*range(6)])
    child = parent.fork()
    parent.release()
    child.append(6)
    assert storage.copies == []
    child.mark_computed()
    child.release()
    assert cache.prefix.match(range(7)).num_tokens == 7


@pytest.mark.parametrize(("length", "hit"), [(47, 46), (48, 47), (49, 48), (55, 54), (64, 63)])
def test_an_identical_prompt_hits_all_but_one_token(length: int, hit: int) -> None:
    cache = PagedKVCache(num_pages=64, page_size=16)
    computed(cache, [*range(length)]).release()
    sequence = cache.sequence(range(length))
    assert (sequence.num_cached_tokens, sequence.num_computed) == (hit, hit)
    cache.check()


def test_a_partial_hit_copies_the_slots_that_match(cache: PagedKVCache, storage: RecordingStorage) -> None:
    first = computed(cache, [*range(8)])
    sequence = cache.sequence([*range(6), 60, 61, 62])
    assert sequence.num_cached_tokens == 6
    assert sequence.table.page_ids[0] == first.table.page_ids[0]
    assert storage.copies == [(first.table.page_ids[1], sequence.table.page_ids[1], 2)]
    assert cache.pool.num_used == 2 + 2


def test_a_hit_shares_the_pages_of_a_sequence_that_is_still_running(cache: PagedKVCache) -> None:
    first = computed(cache, [*range(8)])
    second = cache.sequence([*range(8), 9])
    assert second.table.page_ids[:2] == first.table.page_ids
    assert [cache.pool.ref_count(page) for page in first.table.page_ids] == [3, 3]


def test_sequences_with_different_salts_share_nothing(cache: PagedKVCache) -> None:
    computed(cache, [*range(8)], "mine").release()
    assert cache.sequence([*range(8), 9], "yours").num_cached_tokens == 0
    assert cache.sequence([*range(8), 9]).num_cached_tokens == 0
    assert cache.sequence([*range(8), 9], "mine").num_cached_tokens == 8


def test_without_prefix_caching_nothing_is_kept() -> None:
    cache = PagedKVCache(16, 4, prefix_caching=False)
    computed(cache, [*range(8)]).release()
    assert cache.sequence(range(8)).num_cached_tokens == 0
    assert len(cache.prefix) == 0


def test_cached_pages_never_make_a_request_fail() -> None:
    cache = PagedKVCache(num_pages=4, page_size=4)
    computed(cache, [*range(16)]).release()
    assert cache.pool.num_free == 0
    sequence = cache.sequence(range(100, 116))
    assert cache.pool.num_free == 0
    assert len(cache.prefix) == 0
    sequence.release()
    cache.check()


def test_the_pages_that_a_request_is_about_to_reuse_are_not_evicted_for_it() -> None:
    cache = PagedKVCache(num_pages=4, page_size=4)
    computed(cache, [*range(8)]).release()
    reused = cache.prefix.match(range(8)).page_ids
    computed(cache, [50, 51, 52, 53, 54]).release()  # more recent, and yet it is what has to go
    sequence = cache.sequence([*range(8), 60, 61, 62, 63, 64])
    assert sequence.num_cached_tokens == 8
    assert sequence.table.page_ids[:2] == reused


def test_a_partial_hit_is_given_up_where_its_page_would_make_the_request_fail() -> None:
    cache = PagedKVCache(num_pages=2, page_size=4, events=EventLog())
    computed(cache, [*range(7)]).release()
    sequence = cache.sequence([*range(6), 60, 61])
    assert sequence.num_cached_tokens == 4
    assert cache.pool.num_free == 0
    cache.check()


def test_appending_past_the_last_page_leaves_everything_as_it_was(storage: RecordingStorage) -> None:
    cache = PagedKVCache(num_pages=2, page_size=4, events=EventLog())
    sequence = computed(cache, [*range(6)])
    fork = sequence.fork()
    before = state(cache)
    with pytest.raises(OutOfPages):
        fork.append(60)
    assert state(cache) == before
    sequence.release()
    fork.append(60)
    assert fork.tokens[-1] == 60


def test_a_prompt_that_does_not_fit_changes_nothing(cache: PagedKVCache) -> None:
    running = computed(cache, [*range(20)])
    computed(cache, [90, 91, 92, 93, 94]).release()
    before = state(cache)
    with pytest.raises(OutOfPages, match="asked for 12 pages: of 16, 9 are free and 2 more can be evicted"):
        cache.sequence([*range(20), *range(40, 88)])
    assert state(cache) == before
    running.release()


def test_a_copy_that_fails_changes_nothing(cache: PagedKVCache, storage: RecordingStorage) -> None:
    sequence = computed(cache, [*range(6)])
    fork = sequence.fork()
    computed(cache, [70, 71, 72, 73]).release()
    storage.fails = True
    before = state(cache)
    with pytest.raises(MemoryError):
        fork.append(60)
    with pytest.raises(MemoryError):
        cache.sequence([70, 71, 72, 9])
    assert state(cache) == before


@pytest.mark.parametrize(
    ("token", "error"), [(1.5, TypeError), ("one", TypeError), (None, TypeError), (-1, ValueError), (2**32, ValueError)]
)
def test_what_is_no_token_is_refused_and_changes_nothing(
    cache: PagedKVCache, token: object, error: type[Exception]
) -> None:
    sequence = cache.sequence([1, 2])
    before = state(cache)
    with pytest.raises(error, match="token"):
        sequence.append(token)  # type: ignore[arg-type]
    with pytest.raises(error, match="at index 1: token"):
        cache.sequence([1, token])  # type: ignore[list-item]
    assert state(cache) == before


def test_integers_of_numpy_and_torch_become_plain_ints(cache: PagedKVCache) -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    sequence = cache.sequence(torch.tensor([1, 2, 3]))
    sequence.append(numpy.int64(4))
    sequence.append(torch.tensor(5))
    assert sequence.tokens == [1, 2, 3, 4, 5]
    assert {type(token) for token in sequence.tokens} == {int}


@pytest.mark.parametrize("number", [3, np.int64(3), torch.tensor(3), np.float32(2)], ids=repr)
def test_a_number_is_no_prompt(cache: PagedKVCache, number: object) -> None:
    with pytest.raises(TypeError, match=r"^tokens are .*\d.*; hand in a list of ints$"):
        cache.sequence(number)  # type: ignore[arg-type]


def test_an_empty_prompt_is_refused(cache: PagedKVCache) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        cache.sequence([])
    with pytest.raises(TypeError, match="tokens are 5; hand in a list of ints"):
        cache.sequence(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [-1, 7])
def test_lengths_outside_the_sequence_are_refused(cache: PagedKVCache, length: int) -> None:
    sequence = cache.sequence(range(6))
    before = state(cache)
    with pytest.raises(ValueError, match=f"cannot truncate 6 tokens to {length}"):
        sequence.truncate(length)
    with pytest.raises(ValueError, match=f"cannot mark {length} tokens as computed: sequence 0 has 6"):
        sequence.mark_computed(length)
    with pytest.raises(IndexError):
        sequence.slot_mapping(0, length)
    assert state(cache) == before


def test_what_was_computed_stays_computed(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(6))
    sequence.mark_computed(5)
    sequence.mark_computed(3)
    assert sequence.num_computed == 5


@pytest.mark.parametrize(("num_pages", "page_size"), [(0, 4), (4, 0), (-1, 4)])
def test_a_cache_needs_pages_and_slots(num_pages: int, page_size: int) -> None:
    with pytest.raises(ValueError, match="it must be at least 1"):
        PagedKVCache(num_pages, page_size)


def test_a_storage_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="the storage has 8 pages of 4 slots, the cache 16 of 4"):
        PagedKVCache(16, 4, storage=RecordingStorage(8, 4))


def test_another_sequences_page_may_stand_on_our_path_and_go() -> None:
    """Two sequences compute the same page; the cache keeps one. When that one is evicted, ours takes its place."""
    cache = PagedKVCache(num_pages=8, page_size=2)
    ours, theirs = cache.sequence([1, 2, 3, 4, 5]), cache.sequence([1, 2, 3, 4, 5])
    theirs.mark_computed(4)
    ours.mark_computed(4)
    assert cache.prefix.match([1, 2, 3, 4]).page_ids == theirs.table.page_ids[:2]
    theirs.release()
    cache.check()
    assert cache.prefix.evict(2) == 2
    ours.append(6)
    ours.mark_computed()
    assert cache.prefix.match([1, 2, 3, 4, 5, 6]).page_ids == ours.table.page_ids
    cache.check()


def test_only_release_ends_ownership() -> None:
    cache = PagedKVCache(4, 4)
    cache.sequence(range(3))
    gc.collect()
    assert cache.pool.num_used == 1
    cache.check()


def test_check_finds_a_page_whose_owner_is_gone() -> None:
    cache = PagedKVCache(4, 4)
    sequence = cache.sequence(range(3))
    sequence.table.truncate(0)  # and did not give the page back
    sequence.tokens.clear()
    with pytest.raises(AssertionError, match="law 1: page 0 has 1 reference in the pool, but 0 owners: nobody"):
        cache.check()


def test_check_finds_a_reference_taken_behind_the_holders_backs() -> None:
    cache = PagedKVCache(4, 4)
    sequence = cache.sequence(range(3))
    cache.pool.share(sequence.table.page_ids[0])
    with pytest.raises(AssertionError, match="law 1: page 0 has 2 references in the pool, but 1 owner: sequence 0"):
        cache.check()


def test_check_finds_a_write_to_a_shared_page() -> None:
    cache = PagedKVCache(4, 4)
    parent = cache.sequence([1, 2, 3])
    child = parent.fork()
    for sequence, token in ((parent, 4), (child, 5)):  # an append that forgot the second law
        sequence.table.extend([], 1)
        sequence.tokens.append(token)
    with pytest.raises(AssertionError, match=r"law 2: page 0 cannot hold both \(1, 2, 3, 5\) for sequence 1"):
        cache.check()


def test_check_finds_a_page_reused_after_another_prefix() -> None:
    cache = PagedKVCache(8, 2)
    one, other = cache.sequence([1, 1, 5, 5]), cache.sequence([2, 2, 5, 5])
    cache.pool.release(other.table.page_ids[1])
    cache.pool.share(one.table.page_ids[1])
    other.table.page_ids[1] = one.table.page_ids[1]
    with pytest.raises(AssertionError, match=r"law 2: page 1 .*, after different tokens"):
        cache.check()


def test_events_tell_the_story_in_order(cache: PagedKVCache) -> None:
    first = computed(cache, [*range(6)])
    first.release()
    second = cache.sequence(range(6))
    second.append(60)
    second.fork().release()
    second.truncate(2)
    told = " ".join(event.kind for event in cache.events)
    assert told == (
        "begin allocate compute insert insert release "  # the full page when computed, the partly filled one at the end
        "begin share allocate copy append "
        "fork release truncate"
    )


def test_a_log_that_is_not_recording_stays_empty() -> None:
    cache = PagedKVCache(8, 4)
    computed(cache, [*range(6)]).release()
    assert len(cache.events) == 0
    assert not cache.events.recording


def test_importing_kvpaged_imports_neither_torch_nor_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, kvpaged; print(sorted({'torch', 'numpy', 'numba', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fork_of_a_salted_sequence_is_salted_too_and_knows_what_was_cached() -> None:
    cache = PagedKVCache(16, 4)
    computed(cache, [1, 2, 3, 4, 5], "secret").release()
    sequence = cache.sequence([1, 2, 3, 4, 6], "secret")
    fork = sequence.fork()
    assert (fork.cache_salt, fork.num_cached_tokens) == ("secret", sequence.num_cached_tokens) == ("secret", 4)
    sequence.release()
    for token in (7, 8, 9):
        fork.append(token)
    fork.mark_computed()
    fork.release()
    prompt = [1, 2, 3, 4, 6, 7, 8, 9]
    assert cache.prefix.match(prompt).num_tokens == 0
    assert cache.prefix.match(prompt, "secret").num_tokens == 8


def test_a_page_of_one_slot_takes_one_page_a_token() -> None:
    cache = PagedKVCache(4, 1)
    sequence = cache.sequence([1])
    sequence.append(2)
    assert (sequence.table.page_ids, cache.pool.num_used) == ([0, 1], 2)


def test_a_copy_before_the_last_slot_takes_the_copys_page_alone(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(3))
    sequence.fork().append(9)
    assert cache.pool.num_used == 2


def test_any_number_of_computed_tokens_up_to_all_can_be_noted_and_noting_it_again_says_nothing(
    cache: PagedKVCache,
) -> None:
    sequence = cache.sequence(range(6))
    sequence.mark_computed(0)
    sequence.mark_computed(5)
    sequence.mark_computed(6)
    before = state(cache)
    sequence.mark_computed(6)
    sequence.mark_computed(2)
    sequence.mark_computed()
    assert state(cache) == before
    assert [event.number for event in cache.events if event.kind == "compute"] == [5, 6]


def test_what_is_computed_after_a_truncation_over_several_pages_is_found_again(cache: PagedKVCache) -> None:
    sequence = computed(cache, [*range(20)])
    sequence.truncate(9)
    for token in range(50, 60):
        sequence.append(token)
    sequence.mark_computed()
    assert cache.prefix.match([*range(9), *range(50, 60)]).num_tokens == 16
    sequence.truncate(16)
    sequence.truncate(13)
    for token in range(70, 80):
        sequence.append(token)
    sequence.mark_computed()
    assert cache.prefix.match([*range(9), *range(50, 54), *range(70, 80)]).num_tokens == 20


def test_what_is_computed_after_a_partial_hit_was_given_up_is_found_again() -> None:
    cache = PagedKVCache(3, 4)
    computed(cache, [*range(8)]).release()
    cache.sequence([50])  # leaves no page for a copy beside its source
    prompt = [0, 1, 2, 3, 4, 60, 61, 62]
    sequence = cache.sequence(prompt)
    assert sequence.num_cached_tokens == 4
    sequence.mark_computed()
    assert cache.prefix.match(prompt).num_tokens == 8
    cache.check()


def test_pages_computed_after_everything_cached_was_evicted_are_found_again(cache: PagedKVCache) -> None:
    computed(cache, [1, 2, 3, 4]).release()
    sequence = cache.sequence([9, 9, 9, 9, 9])  # matches nothing, below the same root
    cache.prefix.evict(1)
    sequence.mark_computed()
    assert cache.prefix.match([9, 9, 9, 9]).num_tokens == 4


def test_a_sequence_and_its_cache_show_what_they_hold() -> None:
    cache = PagedKVCache(8, 4)
    sequence = computed(cache, [*range(5)])
    sequence.append(5)
    assert cache.page_size == 4
    assert repr(sequence) == "Sequence(id=0, 6 tokens, 5 computed, pages=[0, 1])"
    assert repr(cache) == "PagedKVCache(num_pages=8, page_size=4, 1 sequence, 1 page cached, 6 free)"
    sequence.release()
    assert repr(sequence) == "Sequence(id=0, 0 tokens, 5 computed, released)"


def test_an_empty_prompt_is_refused_in_words(cache: PagedKVCache) -> None:
    with pytest.raises(ValueError, match="^the prompt is empty; a sequence needs at least one token to compute logits"):
        cache.sequence([])


def test_check_names_the_prefix_cache_among_the_owners() -> None:
    cache = PagedKVCache(8, 4)
    sequence = computed(cache, [1, 2, 3, 4])
    cache.pool.share(0)
    told = "law 1: page 0 has 3 references in the pool, but 2 owners: sequence 0, the prefix cache"
    with pytest.raises(AssertionError, match=f"^{told}$"):
        cache.check()
    sequence.release()


def test_check_finds_a_page_that_the_prefix_cache_has_after_two_prefixes() -> None:
    cache = PagedKVCache(8, 2)
    one, other, shared = cache.pool.allocate_many(3)
    cache.prefix.insert([1, 1, 5, 5], [one, shared])
    cache.prefix.insert([2, 2, 5, 5], [other, shared])
    cache.pool.release_many([one, other, shared])
    with pytest.raises(AssertionError, match=rf"law 2: page {shared} .*, after different tokens"):
        cache.check()


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_check_tells_the_beginning_from_every_later_page_of_a_cached_path(pages: int) -> None:
    cache = PagedKVCache(16, 2)
    [first] = cache.sequence([9, 9]).table.page_ids
    before = cache.pool.allocate_many(pages)
    cache.prefix.insert([token for token in range(pages) for _ in range(2)] + [9, 9], [*before, first])
    cache.pool.release_many(before)
    with pytest.raises(AssertionError, match=rf"law 2: page {first} .*, after different tokens"):
        cache.check()


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_check_tells_the_beginning_from_every_later_page(pages: int) -> None:
    cache = PagedKVCache(16, 2)
    long, short = cache.sequence([token for token in range(pages) for _ in range(2)] + [9, 9]), cache.sequence([9, 9])
    cache.pool.release(short.table.page_ids[0])
    cache.pool.share(long.table.page_ids[-1])
    short.table.page_ids[0] = long.table.page_ids[-1]
    with pytest.raises(AssertionError, match=r"law 2: .*, after different tokens"):
        cache.check()


def test_a_partial_hit_given_up_keeps_its_salt() -> None:
    cache = PagedKVCache(4, 4)
    computed(cache, [*range(8)], "secret").release()
    waiting = cache.sequence([50])
    sequence = cache.sequence([0, 1, 2, 3, 4, 60, 61, 62, 63, 64, 65, 66], "secret")
    assert (sequence.num_cached_tokens, sequence.cache_salt) == (4, "secret")
    waiting.release()


def test_whole_pages_evicted_under_another_are_cached_again_when_a_fork_keeps_the_last_one() -> None:
    cache = PagedKVCache(16, 4)
    one, other = cache.sequence(range(4)), cache.sequence(range(6))
    one.mark_computed()
    other.mark_computed()  # its first page is the same, so the cache keeps the other's
    one.release()
    cache.prefix.evict(1)
    fork = other.fork()
    other.release()
    assert cache.prefix.match(range(6)).num_tokens == 4
    fork.release()
    cache.check()


@pytest.mark.parametrize("wrong", [4.5, 2.0, "2", [2]])
def test_what_is_no_number_of_tokens_is_named_and_changes_nothing(cache: PagedKVCache, wrong: object) -> None:
    sequence = cache.sequence(range(9))
    sequence.mark_computed(2)
    before = state(cache)
    for name, operation in (("n", sequence.mark_computed), ("length", sequence.truncate)):
        with pytest.raises(TypeError, match=f"^{name} is {re.escape(repr(wrong))}, a {type(wrong).__name__}; it"):
            operation(wrong)
    assert state(cache) == before


def test_numpys_integers_count_tokens_too_and_are_kept_as_plain_ones(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(9))
    sequence.mark_computed(np.int64(5))
    sequence.truncate(np.int64(7))
    assert (sequence.num_computed, len(sequence)) == (5, 7)
    assert {type(number) for _, _, _, _, number in cache.events} == {int}


@pytest.mark.parametrize(
    "tokens",
    [
        [np.int64(5), np.int32(6)],
        [5, 6, np.uint16(7)],
        (np.int64(5), 6, 7),
        np.array([5, 6]),
        torch.tensor([5, 6]),
        [torch.tensor(5), torch.tensor(6)],
        [True, 2],
    ],
    ids=str,
)
def test_tokens_of_other_kinds_are_kept_as_plain_ints(cache: PagedKVCache, tokens: list[int], tmp_path: Path) -> None:
    sequence = cache.sequence(tokens)
    sequence.append(tokens[0])
    sequence.release()
    assert {type(token) for token in sequence.tokens} == {int}
    cache.events.save(tmp_path / "log")
    assert list(EventLog.load(tmp_path / "log")) == list(cache.events)


def test_a_log_can_be_saved_whatever_kinds_of_integers_a_prompt_mixes(cache: PagedKVCache, tmp_path: Path) -> None:
    sequence = cache.sequence([5, np.int64(6), 7])
    cache.prefix.insert([1, 2], np.array(cache.pool.allocate_many(1)))
    cache.prefix.clear()
    cache.events.save(tmp_path / "log")
    assert list(EventLog.load(tmp_path / "log")) == list(cache.events)
    sequence.release()
    cache.pool.release(1)


def test_the_prefix_cache_is_shown_each_page_once_and_only_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, shown = PagedKVCache(16, 4), list[list[int]]()
    insert = PrefixCache.insert_packed

    def watched(self: PrefixCache, packed: bytes, page_ids: list[int], *rest: Any, **named: Any) -> PrefixNode:
        shown.append(page_ids)
        return insert(self, packed, page_ids, *rest, **named)

    monkeypatch.setattr(PrefixCache, "insert_packed", watched)
    first = cache.sequence(range(8))
    for num_tokens in range(9):
        first.mark_computed(num_tokens)
    assert shown == [[0], [1]]
    second = cache.sequence(range(11))
    assert second.num_cached_tokens == 8
    second.mark_computed()
    assert shown == [[0], [1]], "its third page is not full, and the others were found"
    second.append(11)
    second.mark_computed()
    child = second.fork()
    for sequence in (second, child):
        for token in range(12, 16):
            sequence.append(token)
        sequence.mark_computed()
    assert shown[2:] == [[2], [3], [4]], "a fork goes on where it parted"
    child.truncate(9)
    for token in range(9, 12):
        child.append(token)
    child.mark_computed()
    assert shown[5:] == [child.table.page_ids[2:]], "the page that is written again, and no page before it"
    child.truncate(8)
    for token in range(8, 11):
        child.append(token)
    child.mark_computed()
    assert shown[6:] == [], "the two pages before are known still"


def test_a_partly_filled_page_that_a_fork_goes_on_with_is_not_donated() -> None:
    cache = PagedKVCache(16, 4)
    parent = cache.sequence(range(7))
    parent.mark_computed()
    fork = parent.fork()
    parent.release()
    assert len(cache.prefix) == 1, "the second page lacks one token, and is the fork's"
    fork.append(7)
    fork.mark_computed()
    assert cache.prefix.match(range(8)).page_ids == fork.table.page_ids
    cache.check()


def test_a_release_is_a_use_of_the_last_page_full_or_not() -> None:
    for num_tokens in (4, 3):
        cache = PagedKVCache(16, 4)
        early, late = cache.sequence(range(num_tokens)), cache.sequence(range(50, 50 + num_tokens))
        early.mark_computed()
        late.mark_computed()
        late.release()
        early.release()
        assert cache.prefix.evict(1) == 1
        found = [cache.prefix.match([first]).num_tokens for first in (0, 50)]
        assert found == [1, 0], "that of the sequence that was released first has gone"
