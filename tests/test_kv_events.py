"""Events that others can follow: the same tree from the stream alone, or a sentence that says what is wrong with it."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpaged import PagedKVCache
from kvpaged.lab.follower import Follower, StreamError
from kvpaged.tier import KVEventPublisher
from kvpaged.tokens import unpack

PACKAGE = Path(__file__).parent.parent


def texts_of(cache: PagedKVCache) -> list[tuple[str, list[int]]]:
    """What a cache holds: the salt and all tokens up to the end of each page."""
    return sorted((repr(salt), unpack(tokens)) for salt, tokens in (node.path() for node in cache.prefix.nodes()))


def random_traffic(cache: PagedKVCache, seed: int, upheavals: bool = False) -> None:
    """A few requests, some of which evict others, and now and then a clearing or an interrupt."""
    choose = random.Random(seed)
    for _ in range(choose.randint(1, 4)):
        sequence = cache.sequence(
            [choose.randrange(2) for _ in range(choose.randint(1, 14))], choose.choice([None, "a"])
        )
        sequence.mark_computed()
        sequence.release()
    if choose.random() < 0.3:
        cache.prefix.evict(choose.randint(1, 6))
    if upheavals and choose.random() < 0.1:
        cache.prefix.clear()
    if upheavals and choose.random() < 0.1:
        cache.salvage([])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
def test_a_follower_has_the_tree_of_the_live_cache_after_every_batch(seeds: list[int]) -> None:
    cache, follower = PagedKVCache(12, 3), Follower()
    publisher = KVEventPublisher(cache.prefix)
    for seed in seeds:
        random_traffic(cache, seed, upheavals=True)
        follower.read(publisher.batch())
        assert sorted(follower.texts()) == texts_of(cache)
        assert len(follower) == len(cache.prefix)
        prompt = [random.Random(seed).randrange(2) for _ in range(10)]
        assert follower.match(prompt, "a") == cache.prefix.match(prompt, "a").num_tokens // 3 * 3


def stream(num_batches: int = 6) -> tuple[PagedKVCache, KVEventPublisher, list[str]]:
    """A cache after some traffic, and what it told."""
    cache = PagedKVCache(12, 3)
    publisher = KVEventPublisher(cache.prefix)
    lines = []
    for seed in range(num_batches):
        random_traffic(cache, seed)
        lines.append(publisher.batch())
    return cache, publisher, lines


def follow(lines: list[str]) -> Follower:
    follower = Follower()
    for line in lines:
        follower.read(line)
    return follower


def test_every_lost_batch_is_named() -> None:
    _, _, lines = stream()
    for lost in range(len(lines) - 1):
        before = f"batch {lost - 1}: 1 lost" if lost else "no batch that says all there is"
        with pytest.raises(StreamError, match=f"^batch {lost + 1} comes after {before}; ask for a snapshot$"):
            follow(lines[:lost] + lines[lost + 1 :])


def test_a_batch_that_comes_twice_is_named() -> None:
    _, _, lines = stream()
    with pytest.raises(StreamError, match="^batch 2 comes after batch 2; ask for a snapshot$"):
        follow([*lines[:3], lines[2]])


def test_after_a_loss_a_snapshot_is_enough() -> None:
    cache, publisher, lines = stream()
    follower = follow(lines[:3])
    with pytest.raises(StreamError, match="1 lost"):
        follower.read(lines[4])
    with pytest.raises(StreamError, match="no batch that says all there is"):
        follower.read(lines[5])
    follower.read(publisher.snapshot())
    random_traffic(cache, 99)
    follower.read(publisher.batch())
    assert sorted(follower.texts()) == texts_of(cache)


def test_who_begins_to_watch_late_hears_all_there_is() -> None:
    cache, _, _ = stream()
    assert len(cache.prefix)
    assert sorted(follow([KVEventPublisher(cache.prefix).batch()]).texts()) == texts_of(cache)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([["stored", 0, 5, [1, 2, 3], "None"]], "batch 0: page 0 continues page 5, which is not there"),
        ([["removed", 4]], "batch 0: page 4 is removed, and it is not there"),
        (
            [["stored", 0, None, [1, 2, 3], "None"], ["removed", 0], ["removed", 0]],
            "batch 0: page 0 is removed, and it is not there",
        ),
        (
            [["stored", 0, None, [1, 2, 3], "None"], ["stored", 1, 0, [4, 5, 6], "None"], ["removed", 0]],
            "batch 0: page 0 is removed, and another continues it",
        ),
        ([["stored", 0, None, [1, 2, 3], "None"]] * 2, "batch 0: page 0 is stored a second time"),
        (
            [["stored", 0, None, [1, 2, 3], "None"], ["stored", 1, None, [1, 2, 3], "None"]],
            "batch 0: page 1 is stored a second time",
        ),
    ],
)
def test_what_cannot_be_is_named(events: list[object], message: str) -> None:
    with pytest.raises(StreamError, match=f"^{message}$"):
        Follower().read(json.dumps({"batch": 0, "page_size": 3, "events": events}))


def run_follower(lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Let another process, with the standard library and this package only, follow."""
    script = (
        f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); from kvpaged.lab import follower; sys.exit(follower.main())"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)


@pytest.mark.parametrize("line", ["x", "{}", "[]", '{"batch": 0, "page_size": 4, "events": [["stored", 0]]}'])
def test_what_is_no_batch_is_told_and_then_the_follower_knows_nothing(line: str) -> None:
    follower = Follower()
    follower.read('{"batch": 0, "page_size": 2, "events": [["stored", 0, null, [1, 2], "None"]]}')
    assert follower.match([1, 2]) == 2
    with pytest.raises(StreamError, match="this is no batch: |batch 0 comes after batch 0"):
        follower.read(line)
    assert (len(follower), follower.match([1, 2]), follower.last) == (0, 0, None)
    told = run_follower([line])
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.startswith("this is no batch: ")


def test_another_process_rebuilds_the_tree_or_says_what_is_wrong() -> None:
    cache, _, lines = stream(20)
    done = run_follower(lines)
    found = sorted((salt, tokens) for salt, tokens in map(json.loads, done.stdout.splitlines()))
    assert (done.returncode, done.stderr, found) == (0, "", texts_of(cache))
    done = run_follower(lines[:7] + lines[9:])
    assert (done.returncode, done.stdout) == (1, "batch 9 comes after batch 6: 2 lost; ask for a snapshot\n")
