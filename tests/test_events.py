"""The event log: what it says, how it is saved, and that a damaged file is refused."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from kvpaged import Event, EventKind, EventLog, PagedKVCache, Replay
from support.damaged import FUZZ, damage, replaced


def refused(message: str) -> "pytest.RaisesExc[ValueError]":
    """Exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_an_event_says_nothing_that_it_was_not_told() -> None:
    log = EventLog()
    log.add("finish")
    assert log[0] == ("finish", None, (), (), 0)


def test_a_log_says_how_long_it_is_and_whether_it_grows() -> None:
    log, silent = EventLog(), EventLog(recording=False)
    for each in (log, silent):
        each.add("finish")
    assert repr(log) == "EventLog(1 event)"
    assert repr(silent) == "EventLog(0 events, not recording)"


def test_who_listens_is_told_of_each_event_whether_the_log_is_recording_or_not() -> None:
    for recording in (True, False):
        cache = PagedKVCache(8, 4, events=EventLog(recording))
        told: list[tuple[object, ...]] = []
        cache.sequence([1, 2, 3]).release()
        cache.events.listeners.append(told.append)
        sequence = cache.sequence([1, 2, 3])
        sequence.append(4)
        sequence.release()
        assert [kind for kind, *_ in told] == ["begin", "allocate", "append", "release"]
        assert told[0] == ("begin", 1, (), (1, 2, 3), 0)
        assert cache.events.recording == recording
        assert list(cache.events)[3:] == (told if recording else [])


def test_every_event_says_who_which_pages_which_tokens_and_how_many(tmp_path: Path) -> None:
    cache = PagedKVCache(8, 4, events=EventLog())
    first = cache.sequence(range(10))
    first.mark_computed()
    first.release()
    second = cache.sequence([*range(9), 20])  # hits 9: two whole pages and a slot of the third
    second.append(30)
    fork = second.fork()
    fork.append(31)
    fork.truncate(3)
    fork.release()
    cache.prefix.evict(1)
    cache.prefix.clear()
    cache.events.save(tmp_path / "story.log")
    assert (tmp_path / "story.log").read_text(encoding="utf-8").splitlines()[1:] == [
        '["begin", 0, [], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0]',
        '["allocate", 0, [0, 1, 2], [], 0]',
        '["compute", 0, [], [], 10]',
        '["insert", null, [0, 1], [], 8]',
        '["insert", null, [2], [], 2]',
        '["release", 0, [0, 1, 2], [], 0]',
        '["begin", 1, [], [0, 1, 2, 3, 4, 5, 6, 7, 8, 20], 9]',
        '["share", 1, [0, 1, 2], [], 0]',
        '["allocate", 1, [3], [], 0]',
        '["copy", 1, [2, 3], [], 1]',
        '["append", 1, [], [30], 0]',
        '["fork", 1, [0, 1, 3], [], 2]',
        '["allocate", 2, [4], [], 0]',
        '["copy", 2, [3, 4], [], 3]',
        '["append", 2, [], [31], 0]',
        '["truncate", 2, [1, 4], [], 3]',
        '["release", 2, [0], [], 0]',
        '["evict", null, [2], [], 0]',
        '["evict", null, [1, 0], [], 0]',
    ]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    cache = PagedKVCache(16, 4, events=EventLog())
    draw = random.Random(0)
    for _ in range(3):
        sequence = cache.sequence([draw.randrange(3) for _ in range(9)])
        sequence.mark_computed()
        sequence.fork().append(1)
        sequence.release()
    cache.events.add("finish", number=1)
    cache.events.save(tmp_path / "story.log")
    return tmp_path / "story.log"


def test_a_log_comes_back_as_it_was_saved(log: Path) -> None:
    loaded = EventLog.load(log)
    assert loaded.recording
    loaded.save(log.with_name("again.log"))
    assert log.with_name("again.log").read_bytes() == log.read_bytes()
    assert loaded[-1] == ("finish", None, (), (), 1)
    for kind, sequence, pages, tokens, number in loaded:
        assert (type(kind), type(pages), type(tokens), type(number)) == (str, tuple, tuple, int)
        assert sequence is None or type(sequence) is int
    assert Replay(4).apply_all(loaded).num_used > 0


@FUZZ
@given(damage=damage(within=1000))
def test_a_damaged_log_is_refused(damage: Callable[[bytes], bytes], log: Path) -> None:
    whole = log.read_bytes()
    damaged = damage(whole)
    with replaced(log, damaged):
        if damaged == whole:
            EventLog.load(log)
            return
        with pytest.raises(ValueError, match=r"story\.log") as refused:
            EventLog.load(log)
    assert "\n" not in str(refused.value)


def test_a_log_of_another_version_is_refused_by_its_number(log: Path) -> None:
    told = f"{log} is an event log of version 1, and this kvpaged reads version 2: record it again"
    with replaced(log, log.read_bytes().replace(b'"version": 2', b'"version": 1', 1)), refused(told):
        EventLog.load(log)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": "else"}', b"[" * 100_000, b"\xff\xfe", b"text"])
def test_what_is_no_log_is_refused(content: bytes, log: Path) -> None:
    with replaced(log, content), refused(f"{log} is no event log: give a file that EventLog.save wrote"):
        EventLog.load(log)


def test_a_log_whose_events_changed_is_refused(log: Path) -> None:
    told = f"{log} is damaged: its events are not those that were saved; save the log again"
    with replaced(log, log.read_bytes().replace(b'"release"', b'"evicted"', 1)), refused(told):
        EventLog.load(log)


def test_a_log_that_contradicts_itself_is_refused_at_the_event() -> None:
    log = EventLog()
    log.add("begin", 0, (), (1, 2), 0)
    log.add("release", 7, (3,))
    with pytest.raises(ValueError, match=r"^event 1 cannot follow those before it: Event\(kind='release', sequence=7"):
        Replay(4).apply_all(log)


def test_a_replay_counts_what_a_transfer_owns_until_its_end() -> None:
    cache = PagedKVCache(8, 4, events=EventLog())
    pages = cache.pool.allocate_many(3)
    first, second = cache.transfers.begin(b"", pages), cache.transfers.begin(b"", pages[1:])
    cache.pool.release_many(pages)

    def replayed() -> tuple[dict[int, int], dict[int, int]]:
        replay = Replay(4).apply_all(cache.events)
        return replay.ref_counts, +replay.moving

    assert replayed() == ({0: 1, 1: 2, 2: 2}, {0: 1, 1: 2, 2: 2})
    cache.transfers.end(first)
    assert replayed() == ({1: 1, 2: 1}, {1: 1, 2: 1})
    cache.transfers.end(second)
    assert replayed() == ({}, {})


NULL_PAGE_NAMED = [
    Event(EventKind.SET_ASIDE, None, (0,)),
    Event(EventKind.BEGIN, 1, (), tuple(range(20, 29))),
    Event(EventKind.ALLOCATE, 1, (3, 4, 5)),
]


def test_a_page_that_a_sequence_gives_back_early_is_free_and_the_null_page_stands_for_it() -> None:
    replay = Replay(4).apply_all([*NULL_PAGE_NAMED, Event(EventKind.GIVE_BACK, 1, (3,))])
    assert replay.tables == {1: [0, 4, 5]}
    assert replay.ref_counts == {0: 1, 4: 1, 5: 1}
    assert (replay.num_mapped, replay.num_in_tables) == (2, 2)
    assert replay.slots_used() == {0: 0, 4: 4, 5: 1}, "the pages behind the null page count"
    replay.apply(Event(EventKind.GIVE_BACK, 1, (4,)))
    assert (replay.tables, replay.ref_counts) == ({1: [0, 0, 5]}, {0: 1, 5: 1})


def test_a_page_cannot_be_given_back_early_before_a_null_page_is_named() -> None:
    begun_late = [*NULL_PAGE_NAMED[1:], Event(EventKind.GIVE_BACK, 1, (3,))]
    with pytest.raises(
        ValueError, match=r"^event 2 cannot follow those before it: Event\(kind='give back', sequence=1"
    ):
        Replay(4).apply_all(begun_late)
    replay = Replay(4).apply_all(begun_late[:2])
    with refused("sequence 1 gives pages back early, but no null page was set aside"):
        replay.apply(begun_late[2])


def test_a_page_that_nobody_owns_cannot_be_given_back() -> None:
    with refused("nobody owns page 3"):
        Replay(4).apply(Event(EventKind.EVICT, None, (3,)))
