"""The players: what their script plays is what Replay says, in pages small enough to have many."""

import json
import random
import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from kvpaged import EventLog, OutOfPages, PagedKVCache, Replay
from kvpaged.figures import Arrive, ContiguousPlayer, Grow, Leave, TracePlayer
from kvpaged.hybrid import GroupedKVCache, SlidingWindow, group_layers

NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
SCRIPT = files("kvpaged.figures").joinpath("trace_player.js")


def random_log(seed: int, num_events: int, num_pages: int = 40) -> EventLog:
    """A log in which everything happens that can: hits, forks, copies, truncations, evictions, releases."""
    choose = random.Random(seed)
    log = EventLog()
    cache = PagedKVCache(num_pages, 4, events=log)
    live = []
    while len(log) < num_events:
        try:
            action = choose.random()
            if not live or action < 0.1:
                live.append(cache.sequence([choose.randrange(2) for _ in range(choose.randint(1, 14))]))
            sequence = choose.choice(live)
            if 0.1 < action < 0.6:
                sequence.append(choose.randrange(50))
            elif action < 0.8:
                sequence.mark_computed(choose.randint(0, len(sequence)))
            elif action < 0.87:
                live.append(sequence.fork())
            elif action < 0.93:
                sequence.truncate(choose.randint(0, len(sequence)))
            else:
                live.remove(sequence)
                sequence.release()
        except OutOfPages:
            live.pop(0).release()
    return log


def payload(player) -> dict:
    html = player._repr_html_()
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


def play(player) -> list[dict]:
    """Play a trace in Node with the player's own script: the state and the sentence after each event."""
    harness = """
        const { fresh, apply, teller } = require(process.argv[1]);
        const trace = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const full = ([k, s = null, p = [], t = [], n = 0]) => [trace.kinds[k], s, p || [], t || [], n];
        trace.events = trace.events.map(full);
        const tell = teller(trace), state = fresh(), shown = [];
        trace.events.forEach((event, index) => {
            const sentence = tell(state, index);
            apply(state, event, trace.size);
            shown.push(JSON.stringify({ sentence, ...state }));
        });
        console.log("[" + shown.join(",") + "]");
    """
    found = subprocess.run(
        ["node", "-e", harness, str(SCRIPT)],
        input=json.dumps(payload(player)),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def numbered(table: dict) -> dict:
    return {int(key): value for key, value in table.items()}


@NEEDS_NODE
@pytest.mark.parametrize("seed", range(3))
def test_the_script_agrees_with_replay_after_every_event(seed):
    log = random_log(seed, 300, num_pages=20)
    player = TracePlayer(log, page_size=4, num_pages=20)
    words = payload(player)["words"]
    replay = Replay(4)
    shown = play(player)
    assert len(shown) == len(log)
    for event, state in zip(log, shown, strict=True):
        replay.apply(event)
        assert numbered(state["refs"]) == dict(replay.ref_counts)
        assert numbered(state["cached"]) == replay.cached
        assert numbered(state["tables"]) == replay.tables
        assert numbered(state["computed"]) == replay.num_computed
        tokens = {key: [int(words[place]) for place in places] for key, places in numbered(state["tokens"]).items()}
        assert tokens == replay.tokens
        assert re.fullmatch(r"[A-Z].*[.”]", state["sentence"]), "every event has a sentence"
        assert not re.search(r"undefined|null|NaN|\?|  | ,", state["sentence"]), "and it has no holes"


@NEEDS_NODE
def test_a_window_gives_back_pages_while_its_sequence_lives():
    log = EventLog()
    cache = GroupedKVCache(group_layers([SlidingWindow(64, window=4)]), 8, 4, events=log)
    a = cache.sequence(range(12))
    for stop in (4, 8, 12):
        a.reserve(stop)
        a.mark_computed(stop)
    b = cache.sequence(range(10))
    player = TracePlayer(log, 4, 8)
    shown = play(player)
    replay = Replay(4).apply_all(log)
    assert numbered(shown[-1]["refs"]) == dict(replay.ref_counts)
    assert (
        numbered(shown[-1]["tables"]) == replay.tables == {0: a.tables[0], 1: b.tables[0]} == {0: [0, 0, 3], 1: [0, 2]}
    )
    told = [state["sentence"] for state in shown]
    assert told[0] == "Page 0 is set aside as the null page: it stands in a table where there is no page."
    assert any(
        "A lives on and gives back what it does not need: page 1 stays with the prefix cache." in each for each in told
    )
    assert any("A needs room for 4 tokens of its prompt: it becomes the first owner of page 2" in each for each in told)
    assert "B becomes one more owner of page 2, found in the prefix cache" in told[-1]
    assert not [each for each in told if re.search(r"undefined|null,|NaN|\?|  | ,", each)]
    assert [player.events[stop - 1].kind for stop in player.stops] == ["give back", "give back", "share"]


@NEEDS_NODE
def test_a_sentence_says_what_happened_and_why():
    log = EventLog()
    cache = PagedKVCache(num_pages=4, page_size=4, events=log)
    a = cache.sequence(range(6))
    a.mark_computed()
    b = a.fork()
    b.append(9)
    a.release()
    b.release()
    cache.sequence(range(20, 32)).append(1)
    log.add("preempt", 2, number=1)
    log.add("surprise", number=7)
    told = [state["sentence"] for state in play(TracePlayer(log, 4, 4, lambda token: f" word{token}"))]
    story = "\n".join(told)
    assert told[0] == (
        "A begins with a prompt of 6 tokens: “word0 word1 word2 word3 word4 word5”. "
        "Nothing of it is in the prefix cache: all must be computed."
    )
    assert "B must write to page 1, which has other owners: it becomes the first owner of page 2" in story
    assert "B writes to page 1, which A also owns, so B gets a copy: 2 slots go to page 2" in story
    assert "B has one more token, “word9”, in page 2, slot 2. Its K and V are not computed yet." in told
    assert "Pages are short. The prefix cache gives back what was not used for the longest time" in story
    assert "Pages are short: C is preempted." in story
    assert told[-1] == "surprise 7."


def test_the_player_is_the_same_text_each_time_and_has_no_ids():
    log = random_log(1, 200)
    first, second = (TracePlayer(log, 4, 40)._repr_html_() for _ in range(2))
    assert first == second
    assert not re.search(r'\sid="|url\(#|https?://(?!www.w3.org/2000/svg)|src="(?!data:)|@import', first)


def test_the_player_is_small():
    for num_events in (50, 2000):
        log = random_log(2, num_events)
        html = TracePlayer(log, 4, 40)._repr_html_()
        assert len(html.encode()) < 80_000 + 60 * len(log)
    large = EventLog()
    cache = PagedKVCache(num_pages=256, page_size=16, events=large)
    for start in range(60):
        cache.sequence([start, *range(63)]).mark_computed()
    html = TracePlayer(large, 16, 256)._repr_html_()
    assert len(html.encode()) < 80_000 + 60 * len(large)


def test_without_its_script_the_player_shows_the_end():
    log = EventLog()
    cache = PagedKVCache(num_pages=6, page_size=4, events=log)
    a = cache.sequence([0, 1, 2, 3, 4])
    a.mark_computed()
    b = a.fork()
    a.release()
    player = TracePlayer(log, 4, 6, decode=" zero one two <three> four".split(" ").__getitem__)
    html = player._repr_html_()
    before_script = html.split("<script")[0]
    assert "At the end, 2 pages are used, 4 free." in before_script
    assert "6 pages of 4 slots: 2 used, 4 free. B owns pages 0–1: 5 tokens." in before_script
    assert "<b>A</b> (ended): ␣ zero one two &lt;three&gt;" in before_script
    assert "<button" not in before_script
    assert repr(player).startswith("Trace player: ")
    assert b.tokens == a.tokens


def test_no_token_can_end_the_script_early():
    log = EventLog()
    PagedKVCache(4, 4, events=log).sequence([0])
    player = TracePlayer(log, 4, 4, decode=lambda token: "</script><b>")
    assert payload(player)["words"] == ["</script><b>"]
    assert player._repr_html_().count("</script>") == 2


def test_the_player_pauses_where_it_is_told():
    log = random_log(3, 120)
    kinds = [event.kind for event in log]
    assert payload(TracePlayer(log, 4, 40, stop_at=["copy"]))["stops"] == [
        index + 1 for index, kind in enumerate(kinds) if kind == "copy"
    ]
    assert TracePlayer(log, 4, 40, stop_at=[]).stops == []


def test_the_player_opens_at_the_fullest_of_its_marks():
    log = random_log(3, 120)
    player = TracePlayer(log, 4, 40)
    used = [Replay(4).apply_all(list(log)[:stop]).num_used for stop in player.stops]
    assert payload(player)["opening"] == player.opening == player.stops[used.index(max(used))]
    assert TracePlayer(log, 4, 40, stop_at=[]).opening > 0, "never on an empty pool"
    assert payload(ContiguousPlayer(STEPS, num_slots=64, page_size=4))["opening"] == 6, "where a request must wait"


def test_a_large_pool_is_drawn_as_far_as_it_was_ever_used():
    log = EventLog()
    PagedKVCache(num_pages=1_000_000, page_size=4, events=log).sequence(range(10))
    data = payload(TracePlayer(log, 4, 1_000_000))
    assert data["pages"] == [0, 1, 2]
    assert data["total"] == 1_000_000


def test_the_player_refuses_what_it_cannot_play():
    with pytest.raises(ValueError, match="the log is empty"):
        TracePlayer(EventLog(), 4, 8)
    with pytest.raises(ValueError, match="a pool of 3 pages ends at 2"):
        TracePlayer(random_log(1, 100), 4, 3)


STEPS = [
    Arrive("A", 6, 16),
    Arrive("B", 10, 24),
    Arrive("C", 5, 16),
    Grow("A", 4),
    Leave("B"),
    Arrive("D", 9, 28),
    Leave("A"),
]


def test_contiguous_memory_fails_where_pages_do_not():
    player = ContiguousPlayer(STEPS, num_slots=64, page_size=4)
    sentence, regions, tables, contiguous, paged = player.frames[6]
    assert "it needs 28 slots in one piece; 32 are free, but the largest gap has 24. D waits." in sentence
    assert "Paged: D takes pages 2–4." in sentence
    assert [owner for _, _, _, owner in regions] == ["A", "C"]
    assert [owner for owner, _, _ in tables] == ["A", "C", "D"]
    assert contiguous == "Contiguous: 32 of 64 slots reserved, 15 filled. D waits."
    assert "waits" not in paged
    assert player.stops == [6]


def test_who_waits_is_served_when_there_is_room():
    player = ContiguousPlayer(STEPS, num_slots=64, page_size=4)
    assert "Contiguous: D reserves slots 0–27." in player.frames[7][0]
    assert "D waits" not in player.frames[7][3]


def test_paging_waits_too_when_there_are_no_pages():
    player = ContiguousPlayer([Arrive("A", 6, 8), Arrive("B", 3, 4), Leave("A")], num_slots=8, page_size=4)
    assert "Paged: the free pages do not suffice. B waits." in player.frames[2][0]
    assert "Paged: B takes page 0." in player.frames[3][0]


def test_the_comparison_refuses_stories_that_make_no_sense():
    with pytest.raises(ValueError, match="no whole number of pages"):
        ContiguousPlayer([], num_slots=10, page_size=4)
    with pytest.raises(ValueError, match="B has not arrived"):
        ContiguousPlayer([Leave("B")], num_slots=8, page_size=4)
    with pytest.raises(ValueError, match="more than its 4"):
        ContiguousPlayer([Arrive("A", 4, 4), Grow("A", 1)], num_slots=8, page_size=4)
