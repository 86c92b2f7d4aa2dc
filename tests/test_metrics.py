"""Metrics: folds over the event log."""

import pytest

from kvpaged import Event, EventKind, EventLog, PagedKVCache, Replay, memory_over_time, memory_totals


@pytest.fixture
def cache() -> PagedKVCache:
    return PagedKVCache(num_pages=16, page_size=4, events=EventLog())


def test_totals_add_up_what_happened(cache: PagedKVCache) -> None:
    first = cache.sequence(range(10))  # 3 pages
    first.mark_computed()
    first.release()  # all 3 stay in the prefix cache
    second = cache.sequence(range(10))  # hits 9: shares 3, copies 1 slot of the third
    fork = second.fork()  # shares 3
    fork.append(60)  # copies 2 slots
    fork.release()
    second.release()
    cache.prefix.evict(2)
    totals = memory_totals(cache.events, 4)
    assert (totals.pages_allocated, totals.pages_shared) == (3 + 1 + 1, 3 + 3)
    assert (totals.pages_copied, totals.slots_copied, totals.bytes_copied(8)) == (2, 1 + 2, 24)
    assert (totals.tokens_hit, totals.tokens_missed, totals.hit_rate) == (9, 11, 9 / 20)
    assert (totals.tokens_appended, totals.peak_pages) == (1, 5)
    # What the fork and the second wrote privately holds nothing that the cache does not know: it is freed at once.
    assert (totals.pages_evicted, totals.pages_freed) == (2, 1 + 1 + 2)


def test_a_page_counts_as_reused_when_somebody_had_it_before() -> None:
    cache = PagedKVCache(4, 4, prefix_caching=False, events=EventLog())
    for _ in range(3):
        cache.sequence(range(8)).release()
    totals = memory_totals(cache.events, 4)
    assert (totals.pages_allocated, totals.pages_reused, totals.pages_freed) == (6, 4, 6)


def test_memory_over_time_counts_pages_slots_and_sharing(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(6))
    fork = sequence.fork()
    use = memory_over_time(cache.events, 4)[-1]
    assert (use.used, use.slots_used, use.slots, use.tokens) == (2, 6, 8, 12)
    assert (use.waste, use.saved_by_sharing, use.idle) == (0.25, 2, 0)
    fork.release()
    sequence.mark_computed()
    sequence.release()
    use = memory_over_time(cache.events, 4)[-1]
    assert (use.used, use.idle, use.slots_used, use.tokens, use.saved_by_sharing) == (2, 2, 6, 0, 0)


def test_memory_can_be_sampled_at_chosen_events(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(4))
    for token in range(3):
        sequence.append(token)
    samples = memory_over_time(cache.events, 4, at=lambda event: event.kind == EventKind.APPEND)
    assert [sample.tokens for sample in samples] == [5, 6, 7]


def test_nothing_used_wastes_nothing() -> None:
    assert memory_totals([], 4).hit_rate == 0
    assert memory_over_time([Event("step", 0)], 4)[0].waste == 0


def test_a_replay_passes_over_events_of_other_rooms(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(4))
    cache.events.add("step", None, number=4)
    cache.events.add("finish", sequence.id)
    replay = Replay(4).apply_all(cache.events)
    assert replay.tables == {0: sequence.table.page_ids}


def test_slots_used_are_those_of_the_owner_with_most_tokens_in_the_page(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(6))
    fork = sequence.fork()
    fork.truncate(5)
    replay = Replay(4).apply_all(cache.events)
    assert list(replay.slots_used().values()) == [4, 2]
    sequence.release()
    assert list(Replay(4).apply_all(cache.events).slots_used().values()) == [4, 1]


def test_totals_add_up_over_several_of_each_kind(cache: PagedKVCache) -> None:
    for _ in range(3):
        sequence = cache.sequence(range(10))
        sequence.mark_computed()
        sequence.append(1)
        sequence.append(2)
        sequence.release()
    cache.prefix.evict(1)
    cache.prefix.evict(1)
    totals = memory_totals(cache.events, 4)
    assert (totals.tokens_hit, totals.tokens_missed) == (0 + 9 + 9, 10 + 1 + 1)
    assert (totals.tokens_appended, totals.pages_evicted) == (6, 2)


def test_each_sample_says_after_how_many_events_it_was_taken(cache: PagedKVCache) -> None:
    cache.sequence(range(4))
    assert [sample.event for sample in memory_over_time(cache.events, 4)] == [1, 2]


def test_a_replay_knows_tables_tokens_and_what_is_computed_or_cached(cache: PagedKVCache) -> None:
    def agrees() -> None:
        replay = Replay(4).apply_all(cache.events)
        live = sorted(cache.sequences, key=lambda each: each.id)
        assert replay.tables == {each.id: each.table.page_ids for each in live}
        assert {each.id: replay.tokens[each.id] for each in live} == {each.id: each.tokens for each in live}
        assert {each.id: replay.num_computed[each.id] for each in live} == {each.id: each.num_computed for each in live}
        assert replay.cached == {node.page_id: len(node.tokens) for node in cache.prefix.nodes()}

    first = cache.sequence(range(11))
    agrees()
    first.mark_computed(9)
    agrees()
    fork = first.fork()
    fork.append(50)
    agrees()
    fork.truncate(10)
    agrees()
    fork.truncate(3)
    agrees()
    first.mark_computed()
    first.release()
    agrees()
    second = cache.sequence([*range(10), 60, 61])
    second.truncate(8)
    agrees()
    cache.prefix.evict(1)
    agrees()


def test_a_replay_takes_a_page_cached_under_two_salts_away_twice() -> None:
    cache = PagedKVCache(4, 4, events=EventLog())
    [page] = cache.pool.allocate_many(1)
    cache.events.add("begin", 0, (), (1, 2), 0)
    cache.events.add("allocate", 0, (page,))
    for salt in ("one", "other"):
        cache.prefix.insert([1, 2], [page], salt)
    cache.prefix.clear()
    replay = Replay(4).apply_all(cache.events)
    assert (replay.cached, replay.ref_counts) == ({}, {page: 1})


def test_a_page_in_several_tables_counts_as_full_as_its_fullest_owner_makes_it(cache: PagedKVCache) -> None:
    sequence = cache.sequence(range(7))
    sequence.mark_computed()
    fork = sequence.fork()
    fork.truncate(1)
    sequence.release()  # the cache keeps 4 tokens of the first page; the fork sees 1
    assert Replay(4).apply_all(cache.events).slots_used() == {0: 4, 1: 3}


def test_a_page_holds_nothing_until_its_first_token_has_a_slot(cache: PagedKVCache) -> None:
    cache.sequence(range(4)).append(4)
    uses = memory_over_time(cache.events, 4, at=lambda event: event.kind in ("allocate", "append"))
    assert [(use.used, use.slots_used) for use in uses] == [(1, 4), (2, 4), (2, 5)]


def test_a_replay_knows_how_full_each_of_several_pages_is_that_were_cached_together(cache: PagedKVCache) -> None:
    pages = cache.pool.allocate_many(3)
    cache.prefix.insert(range(10), pages)
    assert Replay(4).apply_all(cache.events).cached == dict(zip(pages, [4, 4, 2], strict=True))


@pytest.mark.parametrize(
    "event",
    [Event(EventKind.APPEND, 7, (), (1,)), Event(EventKind.RELEASE, 7, (3,)), Event(EventKind.EVICT, None, (3,))],
)
def test_a_log_that_was_begun_late_is_refused_whoever_reads_it(event: Event) -> None:
    log = [Event("another room's", None), event]
    for read in (memory_totals, memory_over_time, lambda log, page_size: Replay(page_size).apply_all(log)):
        with pytest.raises(
            ValueError, match=f"^event 1 cannot follow .*kind='{event.kind}'.*, from when the cache is new$"
        ):
            read(log, 4)
