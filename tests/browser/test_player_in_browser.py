"""The players in a real browser. Each test is one short visit of headless Chromium, with time of its own."""

import json
import shutil
import subprocess
from html import unescape

import pytest

from kvpaged import EventLog, PagedKVCache, Replay
from kvpaged.engine import Engine, SamplingParams
from kvpaged.figures import Arrive, ContiguousPlayer, Leave, TracePlayer, page_map
from kvpaged.figures.picture import inline_pictures, stylesheet
from kvpaged.model import load_model
from kvpaged.recall.text import make_story

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
OPTIONS += [
    "--disable-background-networking",
    "--disable-component-update",
    "--virtual-time-budget=60000",
    "--dump-dom",
]

# What a test may do on its page; whatever it puts in `report` comes back to it.
TOOLS = """
    const report = { errors: [], requests: [] };
    addEventListener("error", (event) => report.errors.push(event.message));
    const players = () => [...document.querySelectorAll(".kvt")];
    const press = (player, key, more = {}) =>
        player.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
    const click = (player, action) => player.querySelector(`[data-do="${action}"]`).click();
    const at = (player) => +player.dataset.event;
    const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
"""


def visit(tmp_path, pictures, script: str, width: int = 1280) -> dict:
    """Open a page with these pictures, run the script in it, return its report."""
    page = tmp_path / "page.html"
    html = f"<style>{stylesheet('picture.css')}</style>"
    html += inline_pictures("".join(picture._repr_html_() for picture in pictures))
    page.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>t</title><script>{TOOLS}</script>"
        f'<body style="margin:0"><main style="width:{width}px">{html}</main><pre></pre><script>(async () => {{{script}'
        'report.requests = performance.getEntriesByType("resource").map((entry) => entry.name);'
        'document.querySelector("pre").textContent = JSON.stringify(report)})()</script>',
        encoding="utf-8",
    )
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path}/profile", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    report = json.loads(unescape(shown.rpartition("<pre>")[2].partition("</pre>")[0]))
    assert report["errors"] == []
    assert report["requests"] == [], "a picture needs nothing from elsewhere"
    return report


def short_log() -> EventLog:
    log = EventLog()
    cache = PagedKVCache(num_pages=8, page_size=4, events=log)
    a = cache.sequence(range(10))
    a.mark_computed()
    b = a.fork()
    b.append(3)
    b.append(4)
    a.release()
    cache.sequence(range(9)).mark_computed()
    return log


def long_log(num_events: int = 2000) -> EventLog:
    log = EventLog()
    cache = PagedKVCache(num_pages=50, page_size=4, events=log)
    turn = 0
    while len(log) < num_events:
        turn += 1
        sequence = cache.sequence([turn % 7, turn % 3, *range(20)])
        sequence.mark_computed()
        for token in range(20):
            sequence.append(token)
            sequence.mark_computed()
        sequence.release()
    return log


def test_the_last_step_shows_the_state_of_the_real_pool(tmp_path):
    log = short_log()
    first = TracePlayer(log, 4, 8)
    second = TracePlayer(long_log(60), 4, 50)
    report = visit(
        tmp_path,
        [first, second],
        """
        report.starts = players().map(at);
        press(players()[0], "End");
        report.ends = players().map(at);
        report.state = JSON.parse(players()[0].dataset.state);
        report.tiles = [...players()[0].querySelectorAll(".pool svg")].map((tile) => tile.textContent);
        report.rows = [...players()[0].querySelectorAll("li")].map((row) => row.textContent);
        report.said = players()[0].querySelector(".say").textContent;
        """,
    )
    replay = Replay(4).apply_all(log)
    assert report["starts"] == [first.opening, second.opening]
    assert report["ends"] == [len(log), second.opening], "players on one page keep to themselves"
    state = {name: {int(key): value for key, value in table.items()} for name, table in report["state"].items()}
    assert state["ref_counts"] == dict(replay.ref_counts)
    assert state["tables"] == replay.tables
    assert state["cached"] == replay.cached
    assert state["lengths"] == {sequence: len(replay.tokens[sequence]) for sequence in replay.tables}
    assert len(report["tiles"]) == 8
    assert sorted(report["tiles"][0]) == ["0", "B", "C"]
    assert report["rows"][0].startswith("B 0 0 1 2 3 1 4 5 6 7 3 8 9 3 4")
    assert report["said"] == "K and V of 1 token of C are computed and stored in page 4."


def test_the_last_step_of_a_run_that_ran_short_is_what_pool_and_tables_say(tmp_path):
    log = EventLog()
    engine = Engine(load_model("recall"), num_pages=11, page_size=8, events=log)
    for seed in range(4):
        story = make_story(num_facts=4, seed=seed)
        engine.submit(story.text + story.questions[0].prompt, SamplingParams(max_tokens=12, ignore_eos=True))
    while not any(event.kind == "preempt" for event in log):
        assert engine.num_unfinished
        engine.step()
    report = visit(
        tmp_path,
        [TracePlayer(log, 8, 11)],
        """
        const [player] = players();
        press(player, "End");
        report.state = JSON.parse(player.dataset.state);
        report.told = [];
        for (press(player, "Home"); at(player) < +player.querySelector("[data-do=scrub]").max; ) {
            press(player, "n");
            report.told.push(player.dataset.sentence);
        }
        """,
    )
    pool, live = engine.cache.pool, engine.cache.sequences
    counts = {page_id: pool.ref_count(page_id) for page_id in range(11) if pool.ref_count(page_id)}
    state = {name: {int(key): value for key, value in table.items()} for name, table in report["state"].items()}
    assert state["ref_counts"] == counts
    assert state["tables"] == {sequence.id: sequence.table.page_ids for sequence in live}
    assert state["lengths"] == {sequence.id: len(sequence) for sequence in live}
    assert state["num_computed"] == {sequence.id: sequence.num_computed for sequence in live}
    assert len(state["cached"]) == len(engine.cache.prefix)
    assert any("is preempted" in sentence for sentence in report["told"]), "it pauses where a request makes way"


def test_it_steps_scrubs_plays_and_answers_the_keyboard(tmp_path):
    log = short_log()
    player = TracePlayer(log, 4, 8)
    report = visit(
        tmp_path,
        [player],
        """
        const [player] = players();
        report.seen = [];
        const see = (what) => report.seen.push([what, at(player)]);
        see("open");
        click(player, "step"); see("step after opening");
        press(player, "Home");
        click(player, "step"); see("step");
        press(player, "ArrowRight"); see("right");
        press(player, "ArrowLeft"); see("left");
        press(player, "n"); see("next");
        press(player, "ArrowRight", { shiftKey: true }); see("shift right");
        press(player, "p"); see("previous");
        press(player, "Home"); see("home");
        press(player, "ArrowLeft"); see("before the start");
        press(player, "End"); see("end");
        press(player, "ArrowRight"); see("after the end");
        const slider = player.querySelector("input[type=range]");
        slider.value = 4;
        slider.dispatchEvent(new Event("input")); see("scrub");
        report.text = slider.getAttribute("aria-valuetext");
        press(player, "Home");
        press(player, " ");
        report.live = [player.querySelector(".say").getAttribute("aria-live")];
        await wait(20000); see("played to the first mark");
        report.live.push(player.querySelector(".say").getAttribute("aria-live"));
        player.querySelector("[data-do=stop]").checked = false;
        click(player, "play");
        await wait(40000); see("played to the end");
        const right = new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true });
        let heard = false;
        document.body.addEventListener("keydown", () => (heard = true));
        slider.dispatchEvent(right);
        report.kept = right.defaultPrevented && !heard;
        """,
    )
    stops, last = player.stops, len(log)
    assert dict(report["seen"]) == {
        "open": player.opening,
        "step after opening": player.opening + 1,
        "step": 1,
        "right": 2,
        "left": 1,
        "next": stops[0],
        "shift right": stops[1],
        "previous": stops[0],
        "home": 0,
        "before the start": 0,
        "end": last,
        "after the end": last,
        "scrub": 4,
        "played to the first mark": stops[0],
        "played to the end": last,
    }
    assert report["text"] == f"event 4 of {last}"
    assert report["live"] == ["off", "polite"]
    assert report["kept"], "a notebook must not hear the keys that the player answers"


def test_it_begins_at_the_beginning_when_it_is_played_first(tmp_path):
    report = visit(
        tmp_path,
        [TracePlayer(short_log(), 4, 8)],
        """
        const [player] = players();
        player.querySelector("[data-do=stop]").checked = false;
        click(player, "play");
        await wait(350);
        report.at = at(player);
        """,
    )
    assert report["at"] == 1


@pytest.mark.parametrize("width", [328, 848])
def test_nothing_below_a_player_moves_while_it_plays(tmp_path, width):
    log = long_log(200)
    steps = [Arrive("A", 6, 16), Arrive("B", 10, 24), Arrive("C", 5, 16), Leave("B"), Arrive("D", 9, 28)]
    report = visit(
        tmp_path,
        [TracePlayer(short_log(), 4, 8), TracePlayer(log, 4, 50), ContiguousPlayer(steps, 64, 4)],
        """
        report.heights = players().map((player) => {
            const heights = new Set([player.offsetHeight]), last = +player.querySelector("[data-do=scrub]").max;
            press(player, "Home");
            for (; at(player) < last; press(player, "ArrowRight")) heights.add(player.offsetHeight);
            return [...heights.add(player.offsetHeight)];
        });
        """,
        width,
    )
    for heights in report["heights"]:
        assert len(heights) == 1


def test_two_thousand_events_stay_smooth_and_going_back_is_like_never_having_gone(tmp_path):
    log = long_log()
    report = visit(
        tmp_path,
        [TracePlayer(log, 4, 50)],
        """
        const [player] = players();
        const states = {}, show = (position) => {
            const slider = player.querySelector("input[type=range]");
            slider.value = position;
            slider.dispatchEvent(new Event("input"));
            return player.querySelector(".frame").innerHTML + player.dataset.state;
        };
        for (let position = 0; position <= 2000; position += 100) states[position] = show(position);
        report.same = Object.keys(states).reverse().every((position) => show(+position) === states[position]);
        report.last = at(player);
        """,
    )
    assert report["same"]
    assert report["last"] == 0


def test_nothing_scrolls_the_page_sideways_on_a_phone(tmp_path):
    cache = PagedKVCache(num_pages=40, page_size=4)
    cache.sequence(range(50))
    steps = [Arrive("A", 6, 16), Arrive("B", 10, 24), Leave("A")]
    report = visit(
        tmp_path,
        [TracePlayer(long_log(300), 4, 50), ContiguousPlayer(steps, 64, 4), page_map(cache)],
        """
        players().forEach((player) => press(player, "End"));
        report.widest = Math.max(...[...document.querySelectorAll(".kvf")].map((each) => each.scrollWidth));
        report.narrow = document.querySelector("main").scrollWidth;
        """,
        width=328,
    )
    assert report["narrow"] <= 328


def test_the_comparison_shows_both_memories(tmp_path):
    steps = [Arrive("A", 6, 16), Arrive("B", 10, 24), Arrive("C", 5, 16), Leave("B"), Arrive("D", 9, 28)]
    report = visit(
        tmp_path,
        [ContiguousPlayer(steps, 64, 4)],
        """
        const [player] = players();
        press(player, "n");
        report.at = at(player);
        report.strip = [...player.querySelectorAll(".strip > div")].map((piece) => piece.textContent);
        report.tiles = [...player.querySelectorAll(".pool svg")].map((tile) => tile.textContent);
        """,
    )
    assert report["at"] == 5
    assert report["strip"] == ["A", "24", "C", "8"]
    assert report["tiles"][:7] == ["0A", "1A", "2D", "3D", "4D", "5C", "6C"]
