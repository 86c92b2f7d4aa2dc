"""A second tier: pages that leave the pool come back as they were, or not at all, and are owned all the way."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvpaged import EventLog, OutOfPages, PagedKVCache, Replay
from kvpaged.tier import RecordFile, Store, Tier, TieredKVCache
from kvpaged.tier.record_file import DamagedRecord
from kvpaged.transfers import Transfer, Transfers
from support.faults import Countdown, InjectedError, fail_allocations, fail_copies
from support.tier_world import KEY_BYTES, PAGE_SIZE, World, random_history

LONG, OTHER = list(range(17)), list(range(100, 117))
FILLER = [list(range(start, start + 21)) for start in (200, 300)]  # with one of them, no page of another text is left


# --- a file of records -------------------------------------------------------------------------------------------


def records(path: Path, num_records: int = 4, value_bytes: int = 10) -> RecordFile:
    return RecordFile(path, num_records, 16, value_bytes)


def test_what_was_written_is_read_again_and_outlives_the_process(tmp_path: Path) -> None:
    file = records(tmp_path / "r")
    file.write(2, b"key", b"0123456789")
    assert file.read(2) == (b"key", b"0123456789")
    file.close()
    again = records(tmp_path / "r")
    assert list(again) == [(2, b"key")]
    assert again.read(2) == (b"key", b"0123456789")


def test_a_write_that_ends_half_way_leaves_no_record_and_no_other_is_harmed(tmp_path: Path) -> None:
    for step in range(1, 10):
        path = tmp_path / str(step)
        file = records(path)
        file.write(0, b"first", b"a" * 10)
        file.write(1, b"before", b"b" * 10)
        countdown, put = Countdown(step), file._put
        file._put = lambda start, data, put=put, countdown=countdown: (countdown.use(), put(start, data))[1]
        try:
            file.write(1, b"after", b"c" * 10)
        except InjectedError:
            found = dict(records(path))
            assert found.pop(0) == b"first"
            assert found in ({}, {1: b"before"})  # the second, if it ended before it began
            continue
        assert step == 4
        assert dict(records(path)) == {0: b"first", 1: b"after"}
        return
    raise AssertionError("a write that never ends")


def test_a_bit_turned_anywhere_in_a_record_is_noticed_or_harmless(tmp_path: Path) -> None:
    noticed = 0
    file = records(tmp_path / "r")
    file.write(1, b"key", b"0123456789")
    whole = (tmp_path / "r").read_bytes()
    for place in range(file._start(1), file._start(2)):
        (tmp_path / "r").write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert file.read(1) == (b"key", b"0123456789")
        except DamagedRecord:
            noticed += 1
    assert noticed == 8 + 16 + 10  # length and checksum; key, padded; value


def test_a_file_that_became_shorter_is_neither_read_nor_written_behind_its_end(tmp_path: Path) -> None:
    file = records(tmp_path / "r")
    file.write(3, b"key", b"0123456789")
    os.truncate(tmp_path / "r", file._start(3) + 5)
    with pytest.raises(DamagedRecord, match="has no record 3, or no longer"):
        file.read(3)
    with pytest.raises(OSError, match="has no record 3, or no longer"):
        file.write(3, b"key", b"0123456789")
    with pytest.raises(DamagedRecord, match="record 3 of .* is damaged"):
        records(tmp_path / "r").read(3)


def test_a_file_keeps_the_records_that_it_has_room_for(tmp_path: Path) -> None:
    file = records(tmp_path / "r")
    for record in range(4):
        file.write(record, b"%d" % record, b"0123456789")
    file.close()
    assert [key for _, key in records(tmp_path / "r", 6)] == [b"0", b"1", b"2", b"3"]
    assert [key for _, key in records(tmp_path / "r", 2)] == [b"0", b"1"]


@pytest.mark.parametrize("other", [b"a letter to my mother, which nobody should overwrite", None])
def test_a_file_of_another_kind_or_size_is_refused_and_left_alone(tmp_path: Path, other: bytes | None) -> None:
    path = tmp_path / "r"
    if other is None:
        records(path, value_bytes=11).close()
    else:
        path.write_bytes(other)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds no records of 16 bytes of key and 10 of value: delete it, or name"):
        records(path)
    assert path.read_bytes() == before


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = records(tmp_path / "r")
    for key, value in ((b"k" * 17, b"v" * 10), (b"", b"v" * 10), (b"k", b"v" * 9)):
        with pytest.raises(ValueError, match="do not fit: 1 to 16 and just 10 bytes"):
            file.write(0, key, value)
    assert list(file) == []


# --- leaving and coming back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [Store.AT_ONCE, Store.WHEN_EVICTED])
def test_pages_that_were_evicted_come_back(tmp_path: Path, store: Store) -> None:
    world = World(tmp_path, num_pages=6, store=store)
    assert world.serve(LONG) == 0
    world.serve(FILLER[0])
    assert world.cache.prefix.match(LONG).num_tokens == 0
    assert world.serve(LONG) == 16  # of seventeen: one token must run
    assert world.tier.num_read == 4


def test_a_text_goes_on_in_the_tier_where_the_pool_ends(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8)
    world.serve(LONG)
    world.cache.prefix.evict(3)  # the partly filled page, and two full ones
    assert world.cache.prefix.match(LONG).num_tokens == 8
    assert world.serve([*LONG[:16], 99]) == 16
    assert world.tier.num_read == 2


def test_only_full_pages_are_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.serve(LONG)
    world.cache.outbound.run()
    assert len(world.tier) == world.tier.num_written == 4


def test_a_tier_without_limits_finds_the_pages_that_a_pool_without_limits_finds(tmp_path: Path) -> None:
    for store in (Store.AT_ONCE, Store.WHEN_EVICTED):
        (tmp_path / store).mkdir()
        world, free = World(tmp_path / store, 8, store, num_records=400), PagedKVCache(1000, PAGE_SIZE)
        for seed in range(60):
            prompt = [int(bit) for bit in f"{seed * 37 % 64:06b}" * 3]
            other = free.sequence(prompt)
            other.mark_computed()
            other.release()
            assert world.serve(prompt) // PAGE_SIZE == other.num_cached_tokens // PAGE_SIZE
        assert world.tier.num_read > 40


def test_another_process_finds_what_one_has_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.serve(LONG)
    world.cache.outbound.run()
    world.records.close()
    later = World(tmp_path)
    assert len(later.tier) == 4
    assert later.serve(LONG) == 16


def test_salts_and_weights_are_walls_in_the_tier_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path, computed_by=b"these weights")
    world.serve(LONG, salt="a")
    world.cache.outbound.run()
    world.cache.prefix.clear()
    assert world.serve(LONG, salt="b") == world.serve(LONG) == 0
    assert world.serve(LONG, salt="a") == 16
    with caplog.at_level(logging.WARNING):
        assert World(tmp_path, computed_by=b"others").serve(LONG, salt="a") == 0
    assert caplog.messages == [f"12 pages in {world.path} are of other weights, or of another kind: misses"]


def test_no_two_pages_have_one_key(tmp_path: Path) -> None:
    tier = World(tmp_path).tier
    salts = (None, "None", b"None", "", "' ", 1, "1", ("1",), (1,), "a\0", "a", "a ")
    keys = {tier.key(tokens, salt) for salt in salts for tokens in (b"", b"\0\0\0\0", b"a\0\0\0", b"    ")}
    assert len(keys) == len(salts) * 4


def test_a_full_tier_gives_up_the_page_that_was_used_least_recently(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=6, num_records=8, store=Store.WHEN_EVICTED)
    world.serve(LONG)
    world.serve(OTHER)  # evicts four pages into the tier
    world.serve(LONG)  # and these four, while the first come back: the tier is full
    world.serve(FILLER[0])
    world.serve(FILLER[1])
    assert len(world.tier) == 8
    assert world.serve(LONG) > 0
    assert world.serve(OTHER) == 0


def test_a_text_longer_than_a_key_is_stored_as_far_as_the_key_reaches(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=60)
    text = list(range(100))
    world.serve(text)
    world.cache.outbound.run()
    assert len(world.tier) == (KEY_BYTES - 8) // 4 // PAGE_SIZE == 18


def test_a_tier_for_other_pages_is_refused(tmp_path: Path) -> None:
    tier = Tier(RecordFile(tmp_path / "t", 4, 100, 0), 8)
    with pytest.raises(ValueError, match="pages of 8 tokens and 0 bytes, the cache of 4 tokens and 0 bytes"):
        TieredKVCache(8, 4, tier)


def test_books_alone_need_no_bytes(tmp_path: Path) -> None:
    cache = TieredKVCache(6, 4, Tier(RecordFile(tmp_path / "t", 9, 200, 0), 4))
    for prompt in (LONG, FILLER[0], LONG):
        sequence = cache.sequence(prompt)
        sequence.mark_computed()
        sequence.release()
        cache.check()
    assert sequence.num_cached_tokens == 16


def test_where_there_is_no_room_nothing_comes_back_and_the_request_is_judged_as_without_a_tier(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=6)
    world.serve(LONG)
    world.serve(FILLER[0])
    live = world.begin(OTHER[:9])
    with pytest.raises(OutOfPages):
        world.cache.sequence(LONG)
    world.cache.check()
    live.release()
    assert world.serve(LONG) == 16


# --- what is worth storing ----------------------------------------------------------------------------------------


def moved(folder: Path, store: Store) -> tuple[int, list[int]]:
    """Pages written, and hits, when one text comes three times and others come between, once each."""
    folder.mkdir()
    world = World(folder, num_pages=6, store=store)
    hits = []
    for number in range(3):
        hits.append(world.serve(LONG))
        world.serve([500 + number, *FILLER[0]])
    world.cache.outbound.run()
    return world.tier.num_written, hits


def test_policies_pay_for_hits_with_bytes(tmp_path: Path) -> None:
    at_once, hits = moved(tmp_path / "a", Store.AT_ONCE)
    assert hits == [0, 16, 16]
    when_evicted, hits = moved(tmp_path / "e", Store.WHEN_EVICTED)
    assert hits == [0, 16, 16]
    second, hits = moved(tmp_path / "s", Store.ON_SECOND_USE)
    assert hits == [0, 0, 16]
    never, hits = moved(tmp_path / "n", Store.NEVER)
    assert hits == [0, 0, 0]
    assert at_once > when_evicted > second > never == 0
    assert second == 4


def test_a_page_that_is_found_in_the_pool_is_used_a_second_time(tmp_path: Path) -> None:
    world = World(tmp_path, store=Store.ON_SECOND_USE)
    world.serve(LONG)
    world.cache.outbound.run()
    assert world.tier.num_written == 0
    world.serve([*LONG[:8], 77])
    world.cache.outbound.run()
    assert world.tier.num_written == 2


# --- what is damaged is a miss ------------------------------------------------------------------------------------


def stored(folder: Path) -> World:
    """A world whose pool is empty, and whose tier has the four pages of a text."""
    world = World(folder)
    world.serve(LONG)
    world.cache.outbound.run()
    world.cache.prefix.clear()
    return world


def test_a_damaged_page_ends_a_hit_says_so_once_and_is_stored_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = stored(tmp_path)
    [record] = [record for record, key in world.records if len(key) == len(world.tier.key(bytes(4 * 12), None))]
    world.damage(record, world.records._stride - 100)
    with caplog.at_level(logging.WARNING):
        assert world.serve(LONG) == 8  # the pages before it; serve() looks at every slot
    assert caplog.messages == [f"a page of the tier is a miss: record {record} of {world.path} is damaged"]
    assert world.tier.num_damaged == 1
    world.cache.outbound.run()
    world.cache.prefix.clear()
    assert world.serve(LONG) == 16


def test_a_file_cut_short_is_a_miss_and_no_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = stored(tmp_path)
    os.truncate(world.path, world.records._start(2) + 7)
    with caplog.at_level(logging.WARNING):
        assert world.serve(LONG) == 8
        world.cache.outbound.run()  # what cannot be stored is not stored
    assert caplog.messages[0].startswith("a page of the tier is a miss:")
    assert caplog.messages[1].startswith("a page is not kept in the tier:")
    world.cache.check()


def test_a_file_that_is_gone_is_a_miss_and_the_log_says_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = stored(tmp_path)
    with caplog.at_level(logging.INFO):
        assert World(tmp_path).serve(LONG) == 16
        world.path.unlink()
        assert World(tmp_path).serve(LONG) == 0
    assert caplog.messages == [f"the tier in {world.path} begins with {pages} pages" for pages in (4, 0)]


def test_a_record_that_another_page_was_written_to_is_a_miss(tmp_path: Path) -> None:
    world = stored(tmp_path)
    for record, _ in list(world.records):  # as if another process used the same file
        world.records.write(record, world.tier.key(bytes(16), None), world.storage.dump(0))
    assert world.serve(LONG) == 0
    world.cache.check()


# --- every step fails once ----------------------------------------------------------------------------------------


class Disk(OSError):
    """A failure that a tier has to expect."""


def fail_everything(world: World, at: int, error: Callable[[str], Exception]) -> Countdown:
    """Let one of all the steps fail: a piece of a record written, a record read, a page dumped or loaded."""
    countdown = Countdown(at, error)
    for owner, name in (
        (world.records, "_put"),
        (world.records, "read"),
        (world.storage, "dump"),
        (world.storage, "load"),
    ):
        honest = getattr(owner, name)
        setattr(owner, name, lambda *args, honest=honest: (countdown.use(), honest(*args))[1])
    return countdown


def scenario(world: World) -> Iterator[Callable[[], object]]:
    """Operations, one after another, that store pages, evict them, and bring them back."""
    yield lambda: world.serve(LONG)
    yield lambda: world.serve(OTHER)
    yield lambda: world.cache.outbound.run(2)
    yield lambda: world.serve(LONG)
    yield lambda: world.cache.prefix.evict(3)
    yield lambda: world.serve([*OTHER[:10], 1, 2, 3])
    yield world.cache.outbound.run


@pytest.mark.parametrize("store", [Store.AT_ONCE, Store.WHEN_EVICTED, Store.ON_SECOND_USE])
@pytest.mark.parametrize("error", [Disk, InjectedError])
def test_every_step_of_every_transfer_fails_once_and_nothing_is_lost(
    tmp_path: Path, store: Store, error: type[Exception]
) -> None:
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder, num_pages=6, store=store)
        countdown = fail_everything(world, at, error)
        for operation in scenario(world):
            try:
                operation()
            except (Disk, InjectedError):
                world.cache.check()
                for sequence in list(world.cache.sequences):  # of the operation that failed
                    world.look(sequence)
                    sequence.release()
                operation()
            world.cache.check()
        world.cache.outbound.run()
        world.cache.prefix.clear()
        assert world.cache.pool.num_used == 0
        if not countdown.num_fired:
            assert at > 20
            return
    raise AssertionError("failures without end")


def test_allocations_and_copies_fail_in_turn_and_nothing_is_lost(tmp_path: Path) -> None:
    fired = 0
    for at in range(1, 60):
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World(folder, num_pages=6)
        pages, copies = fail_allocations(world.cache, at), fail_copies(world.cache, at)
        for operation in scenario(world):
            try:
                operation()
            except (OutOfPages, InjectedError):
                world.cache.check()
                operation()
            world.cache.check()
        fired += pages.num_fired + copies.num_fired
        world.cache.outbound.run()
        world.cache.prefix.clear()
        assert world.cache.pool.num_used == 0
    assert fired > 15


@pytest.mark.parametrize("store", Store)
def test_random_histories_keep_the_laws_and_every_slot_says_what_its_text_says(tmp_path: Path, store: Store) -> None:
    counts, num_damaged = Counter[str](), 0
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        world = World(tmp_path / str(seed), num_pages=9, store=store, num_records=12)
        counts += random_history(world, seed, 150)
        num_damaged += world.tier.num_damaged
    assert counts["found"] > 100
    assert bool(num_damaged) == bool(counts["brought back"]) == (store is not Store.NEVER)


# --- who owns a page that is under way ----------------------------------------------------------------------------


def test_a_page_that_waits_for_its_copy_is_not_evicted_and_not_freed(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8)
    sequence = world.begin(LONG)
    assert len(world.cache.transfers) == 4
    sequence.release()
    world.cache.prefix.clear()
    assert world.cache.pool.num_used == 4  # owned by transfers alone
    world.cache.check()
    world.cache.outbound.run(1)
    assert world.cache.pool.num_used == 3
    world.cache.outbound.run()
    assert world.cache.pool.num_used == 0
    assert world.serve(LONG) == 16


def test_when_pages_are_short_what_waits_is_stored_first(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=6)
    world.serve(LONG)
    assert len(world.cache.outbound) == 4
    world.serve(FILLER[0])  # needs all six pages
    assert world.tier.num_written >= 4


def test_what_is_evicted_is_stored_before_it_goes_and_what_the_tier_has_is_not_stored_again(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8, store=Store.WHEN_EVICTED)
    for found in (0, 16):
        assert world.serve(LONG) == found
        assert world.cache.prefix.evict(8) == 5
        assert (world.cache.pool.num_free, len(world.cache.outbound), world.tier.num_written) == (8, 0, 4)


class Careless(Transfers):
    """Knows what is under way, and owns nothing of it: the race of vLLM #29870, #30166 and #52360."""

    def begin(self, tokens: bytes, page_ids: object = ()) -> Transfer:
        transfer = super().begin(tokens, page_ids)
        self.pool.release_many(transfer.page_ids)
        return transfer

    def end(self, transfer: Transfer) -> None:
        self.pool.share_many(page_id for page_id in transfer.page_ids if self.pool.ref_count(page_id))
        transfer.page_ids = [page_id for page_id in transfer.page_ids if self.pool.ref_count(page_id) > 1]
        super().end(transfer)


def test_a_transfer_that_owns_nothing_stores_the_page_of_another(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=6)
    world.cache.transfers = Careless(world.cache.pool, world.cache.events)
    world.begin(LONG).release()
    world.cache.prefix.clear()  # its pages are free, although they wait to be stored
    with pytest.raises(AssertionError, match=r"law 1: page \d has 0 references in the pool, but 1 owner: transfer 0"):
        world.cache.check()
    world.begin(OTHER)  # takes them, and writes to them
    world.cache.outbound.run()
    world.cache.prefix.watchers.clear()
    for sequence in list(world.cache.sequences):
        sequence.release()
    world.cache.prefix.clear()
    with pytest.raises(AssertionError, match="slot .* holds"):  # the tokens of LONG find the pages of OTHER
        world.begin(LONG)


def test_the_judge_names_a_transfer_that_does_not_give_back(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8)
    world.serve(LONG)
    [first, *_] = world.cache.transfers
    world.cache.transfers._under_way.pop(first)
    with pytest.raises(AssertionError, match="law 1: page 0 has 2 references in the pool, but 1 owner: the prefix"):
        world.cache.check()


def test_the_judge_names_a_transfer_of_another_text(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8)
    world.serve(LONG)
    [first, *_] = world.cache.transfers
    first.tokens = bytes(len(first.tokens))
    with pytest.raises(AssertionError, match=r"law 2: page 0 cannot hold both .* for transfer 0 and .* the prefix"):
        world.cache.check()


def test_a_transfer_of_a_free_page_does_not_begin() -> None:
    cache = PagedKVCache(4, 4)
    with pytest.raises(ValueError, match="page 2 is free"):
        cache.transfers.begin(b"", [2])
    assert not len(cache.transfers)


def test_after_an_interrupt_nothing_is_under_way(tmp_path: Path) -> None:
    world = World(tmp_path, num_pages=8)
    kept = world.begin(LONG)
    world.cache.salvage([kept])
    assert len(world.cache.transfers) == len(world.cache.outbound) == 0
    world.cache.check()
    kept.release()
    world.cache.outbound.run()
    assert world.serve(LONG) == 16


def test_the_log_tells_of_transfers_and_can_be_played_again(tmp_path: Path) -> None:
    log = EventLog()
    tier = Tier(RecordFile(tmp_path / "t", 9, 200, 0), 4)
    cache = TieredKVCache(6, 4, tier, events=log)
    for prompt in (LONG, FILLER[0], LONG):
        sequence = cache.sequence(prompt)
        sequence.mark_computed()
        sequence.release()
        replay = Replay(4).apply_all(log)
        assert replay.ref_counts == {page: n for page in range(6) if (n := cache.pool.ref_count(page))}
    begun = [event.pages for event in log if event.kind == "transfer" and event.number]
    ended = [event.pages for event in log if event.kind == "transfer" and not event.number]
    assert sum(map(len, begun)) == sum(map(len, ended)) + len(cache.outbound)


@pytest.mark.parametrize("record", [-1, 3, 99])
def test_a_record_that_the_file_does_not_have_is_neither_written_nor_read(tmp_path: Path, record: int) -> None:
    records = RecordFile(tmp_path / "t", 3, 16, 4)
    records.write(0, b"key", b"1234")
    with pytest.raises(OSError, match=f"has no record {record}"):
        records.write(record, b"other", b"5678")
    with pytest.raises(DamagedRecord, match=f"has no record {record}"):
        records.read(record)
    assert RecordFile(tmp_path / "t", 3, 16, 4).read(0) == (b"key", b"1234")
