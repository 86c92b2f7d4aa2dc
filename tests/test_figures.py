"""The static pictures: what they show is what is there, said in words too, the same at every drawing."""

import re
import subprocess
import sys
from html import unescape
from shutil import which
from textwrap import dedent
from types import SimpleNamespace

import pytest

from kvpaged import EventLog, PagedKVCache, PagePool, PageTable, PrefixCache, Replay, memory_over_time
from kvpaged.figures import (
    attention_on_pages,
    bar_chart,
    batch_chart,
    contiguous_map,
    legend,
    line_chart,
    memory_chart,
    page_map,
    prefix_trie,
    sequence_names,
    sharing_map,
    system_map,
    table_arrows,
    text_on_pages,
)
from kvpaged.figures.chart import written
from kvpaged.figures.language import COLOURS, listed, owner_colour, owner_name, ranges
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_view import PageView, Use
from kvpaged.figures.picture import inline_pictures, stylesheet
from kvpaged.figures.prefix_trie import Root, TriePage, draw_trie
from kvpaged.figures.svg import shortened, text_width
from kvpaged.lab.contiguous import ContiguousAllocator

WORDS = "Ada hid the coin in the attic . Bo hid the map under the bed <&>".split()


def decode(token: int) -> str:
    return f" {WORDS[token % len(WORDS)]}"


@pytest.fixture
def story():
    """A shares two pages with its fork C, and with B, which found them in the prefix cache, where D has left two."""
    cache = PagedKVCache(num_pages=12, page_size=4, events=EventLog())
    a = cache.sequence(range(9))
    a.mark_computed()
    b = cache.sequence([*range(8), 30, 31, 32])
    b.mark_computed(9)
    c = a.fork()
    c.append(33)
    d = cache.sequence(range(100, 108))
    d.mark_computed()
    d.release()
    return SimpleNamespace(cache=cache, a=a, b=b, c=c)


def all_pictures(story):
    cache, a, b, c = story.cache, story.a, story.b, story.c
    strip = ContiguousAllocator(32)
    strip.allocate(0, 8)
    strip.allocate("B", 12)
    strip.release(0)
    return {
        "page map": page_map(cache),
        "bare pool": page_map(cache.pool),
        "arrows": table_arrows([a, b, c], cache),
        "text": text_on_pages(cache, decode=decode),
        "strip": contiguous_map(strip, used={"B": 5}, wanted=14),
        "trie": prefix_trie(cache, decode),
        "bare trie": prefix_trie(cache.prefix),
        "sharing": sharing_map(cache, decode=decode),
        "attention": attention_on_pages([0.1] * 8 + [0.2], a, decode),
        "lines": line_chart({"n²": [(n, n * n) for n in range(1, 9)], "A": [1, 2, 3]}, "tokens", "cost"),
        "memory": memory_chart(memory_over_time(cache.events, 4)),
        "bars": bar_chart({"naive": 4096, "paged": 512.5}, unit=" B", bound=480),
        "map": system_map(4),
        "legend": legend(),
    }


def test_every_picture_says_in_its_alt_text_what_its_repr_says(story):
    for name, picture in all_pictures(story).items():
        assert len(repr(picture)) > 30, name
        shown, drawn = picture._repr_html_(), picture.inline()
        assert unescape(re.search(r'alt="([^"]*)"', shown)[1]) == repr(picture), name
        assert unescape(re.search(r'role="(?:img|group)" aria-label="([^"]*)" style', drawn)[1]) == repr(picture), name
        assert len(re.findall(r'<svg [^>]*role="(?:img|group)"', drawn)) == 1, name


def test_every_picture_is_the_same_text_at_every_drawing_and_has_no_ids(story):
    first, second = all_pictures(story), all_pictures(story)
    for name, picture in first.items():
        assert picture._repr_html_() == second[name]._repr_html_(), name
        html = picture.inline()
        assert not re.search(r'[\s"]id="|url\(#', html), name
        assert not re.search(r"\d\.\d{3}", html.split("aria-label")[0]), f"{name}: unrounded"
        assert len(picture._repr_html_()) < 30_000, name


def test_every_picture_is_well_formed(story):
    from xml.etree import ElementTree

    for picture in all_pictures(story).values():
        ElementTree.fromstring(picture._repr_html_())
        ElementTree.fromstring(picture.inline())
        ElementTree.fromstring(picture.standalone())


def test_a_notebook_gets_an_image_without_a_word_outside_it(story):
    # Jupyter strips drawings, styles and scripts from a notebook that nobody trusted yet, and leaves their words.
    for picture in all_pictures(story).values():
        assert re.fullmatch(r'<img [^<>]*src="data:image/svg\+xml,[^"<>#]*"/>', picture._repr_html_())


def test_the_book_puts_the_drawing_in_place_of_the_image(story):
    for name, picture in all_pictures(story).items():
        page = inline_pictures(f"<p>before</p>{picture._repr_html_()}<p>after</p>{picture._repr_html_()}")
        assert page.replace("'", '"').count(picture.inline().replace("'", '"')) == 2, name
        assert "<img" not in page


def test_no_word_is_smaller_than_ten_pixels(story):
    for name, picture in all_pictures(story).items():
        assert f'style="width:{picture.width}px"' in picture.inline(), f"{name} is never shrunk"
        sizes = re.findall(r"font(?:-size=\W|-size:|: ?)([\d.]+)", picture.drawing + stylesheet("picture.css"))
        assert sizes, name
        assert min(map(float, sizes)) >= 10, name


def test_a_sequence_has_one_letter_and_one_colour():
    assert [owner_name(number) for number in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
    assert owner_colour("C") == owner_colour("C2") == owner_colour(2)
    assert owner_colour("AB") == owner_colour(27)
    assert len({owner_colour(number) for number in range(len(COLOURS))}) == len(COLOURS)


def test_owners_colours_carry_dark_ink():
    def luminance(colour):
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS:
        assert (luminance(colour) + 0.05) / (luminance("#111111") + 0.05) > 4.5


def test_words_for_lists_and_ranges():
    assert listed(["A"]) == "A"
    assert listed(["A", "B", "C"]) == "A, B and C"
    assert ranges([7, 0, 1, 2]) == "0–2, 7"


def test_the_page_map_shows_owners_sharing_and_what_only_the_prefix_cache_keeps(story):
    cache = story.cache
    shown = repr(page_map(cache))
    assert "12 pages of 4 slots: 7 used, 5 free." in shown
    assert "A owns pages 0–2: 9 tokens." in shown
    assert "B owns pages 0–1, 3: 11 tokens, 2 not computed yet." in shown
    assert "Page 0 is shared by A, B and C." in shown
    assert f"The prefix cache alone owns pages {ranges(cache.prefix.match(range(100, 108)).page_ids)}." in shown
    assert "Free: pages 7–11." in shown


def test_the_page_map_draws_a_mark_for_each_state_of_a_page(story):
    html = page_map(story.cache).inline()
    assert html.count('class="f"') == 5  # free pages recede
    assert html.count('class="p"') == 7
    assert html.count('class="h"') == 2  # hatched: only the prefix cache's
    assert html.count('class="r"') == 2  # reserved, not computed: B's and C's last pages


def test_the_page_map_of_a_bare_pool_counts_owners_and_names_those_it_is_told():
    pool = PagePool(6)
    pool.allocate_many(2)
    pool.share(1)
    assert "Page 1 has 2 references without a name." in repr(page_map(pool))
    named = repr(page_map(pool, holders={"Ada": [0, 1], "Bo": [1]}))
    assert "Ada owns pages 0–1." in named
    assert "Page 1 is shared by Ada and Bo." in named
    assert "fewer than owners" not in named
    assert "Page 0 has 1 reference, fewer than owners." in repr(page_map(pool, holders={"Ada": [0], "Bo": [0]}))


def test_a_table_that_names_a_page_twice_is_drawn_with_two_owners_of_it():
    pages = [PageView(0, {"B": Use(4, 4, times=2)}, ref_count=1), PageView(1, {"B": Use(4, 4)}, ref_count=1)]
    drawn = draw_pages(pages, 4, counting_tokens=False)
    assert "B names page 0 twice or more. Page 0 has 1 reference, fewer than owners." in repr(drawn)
    assert "names page 1" not in repr(drawn)
    assert drawn.inline().count(">B</text>") == 3


def test_a_free_page_that_somebody_still_owns_is_counted_as_free_and_said_to_be_owned():
    pages = [PageView(0, {"A": Use(4, 4)}, ref_count=1), PageView(1, {"B": Use(4, 4)}, ref_count=0), PageView(2)]
    said = repr(draw_pages(pages, 4, counting_tokens=False))
    assert "3 pages of 4 slots: 1 used, 2 free." in said
    assert "B owns page 1. Free in the pool, and yet owned: page 1. Free: page 2." in said


def test_the_page_map_of_a_replay_is_the_one_of_the_cache(story):
    cache = story.cache
    replay = Replay(4).apply_all(cache.events)
    assert page_map(replay, num_pages=12).inline() == page_map(cache).inline()
    with pytest.raises(ValueError, match="num_pages="):
        page_map(replay)


def test_a_pool_too_large_to_be_seen_is_refused():
    with pytest.raises(ValueError, match="1,000,000 pages"):
        page_map(PagePool(1_000_000))


def test_table_arrows_name_each_entry(story):
    a, c = story.a, story.c
    shown = repr(table_arrows([a, c]))
    assert f"A's page table maps 9 tokens in 3 pages: logical page 0 to page {a.table.page_ids[0]}" in shown
    assert f"2 to page {c.table.page_ids[2]}" in shown
    assert "Page 0 is in the tables of A and C." in shown
    assert table_arrows([a, c]).inline().count('class="u"') == 6  # arrow heads
    assert "logical page 0 to page 5, 1 to page 2" in repr(table_arrows(PageTable(4, [5, 2], 7)))


def test_text_on_pages_puts_every_word_in_its_page(story):
    cache, a = story.cache, story.a
    picture = text_on_pages(cache, [a], decode)
    assert repr(picture) == (
        "A has 9 tokens in 3 pages. In order, page 0: Ada hid the coin; page 1: in the attic .; page 2: Bo."
    )
    assert [word for word in WORDS[:9] if f">{word}<" not in picture.inline()] == []
    assert "page 0: 0 1 2 3" in repr(text_on_pages(cache, a))


def test_a_released_sequence_has_no_picture(story):
    cache, a = story.cache, story.a
    a.release()
    with pytest.raises(ValueError, match="sequence A is released"):
        text_on_pages(cache, a)


def test_the_strip_says_whether_a_request_fits():
    strip = ContiguousAllocator(32)
    for owner in range(4):
        strip.allocate(owner, 8)
    strip.release(0)
    strip.release(2)
    shown = repr(contiguous_map(strip, used={1: 3}, wanted=12))
    assert "B has 8 slots from slot 8, 5 of them reserved and empty" in shown
    assert "A request for 12 slots fits nowhere: 16 free, 8 in the largest gap." in shown
    assert "A request for 8 slots fits:" in repr(contiguous_map(strip, wanted=8))


def test_the_trie_shows_paths_words_and_other_owners(story):
    cache = story.cache
    shown = repr(prefix_trie(cache, decode))
    assert "Under the root, page 0: Ada hid the coin, also owned by A, B and C." in shown
    assert "Under page 0, page 1: in the attic ." in shown
    assert "also owned by 3 more" in repr(prefix_trie(cache.prefix, decode))
    assert "empty" in repr(prefix_trie(PrefixCache(PagePool(2), 4)))


def test_the_trie_shows_each_salt_at_its_own_root():
    cache = PagedKVCache(8, 4)
    for salt in (None, "tenant"):
        cache.sequence(range(4), salt).mark_computed()
    assert "salt tenant" in prefix_trie(cache).inline()


def test_a_trie_can_be_drawn_of_a_list_of_pages_with_twins_in_it():
    pages = [TriePage(PageView(number, cached=1, ref_count=1), [7], Root(None)) for number in (4, 5)]
    pages.append(TriePage(PageView(6, cached=1, ref_count=1), [8], 1))
    shown = draw_trie(pages, page_size=1)
    assert repr(shown).endswith("Under the root, page 4: 7. Under the root, page 5: 7. Under page 5, page 6: 8.")
    assert shown.inline().count(">root<") == 1


def test_a_map_can_show_what_stands_in_the_slots():
    views = [PageView(0, {"A": Use(1, 1)}, ref_count=1), PageView(1)]
    shown = draw_pages(views, page_size=2, words={0: ["12", ""]})
    assert repr(shown).endswith("Page 0 holds 12.")
    assert ">12<" in shown.inline()
    assert shown.width > draw_pages(views, page_size=2).width


def test_the_sharing_map_draws_a_shared_page_once(story):
    cache, a = story.cache, story.a
    picture = sharing_map(cache)
    shared = a.table.page_ids[:2]
    assert f"A, B and C share pages {shared[0]} and {shared[1]}." in repr(picture)
    assert picture.inline().count('class="p"') == 5
    assert "A, B and C map 9 pages and own 5 between them." in repr(picture)


def test_attention_adds_weights_up_by_page(story):
    a = story.a
    shown = repr(attention_on_pages([0, 0, 0, 0.5, 0.1, 0.1, 0.1, 0, 0.2], a, decode))
    assert "Most weight: coin (page 0, slot 3) 50%; Bo (page 2, slot 0) 20%" in shown
    assert "page 0 50%, page 1 30%, page 2 20%" in shown
    with pytest.raises(ValueError, match="10 weights for 9 tokens"):
        attention_on_pages([0.1] * 10, a)
    with pytest.raises(ValueError, match="several dimensions"):
        attention_on_pages([[0.5, 0.5]], a)


def test_the_map_lights_one_room_and_knows_what_is_built():
    shown = repr(system_map("page table"))
    assert "Here: chapter 5, Page table" in shown
    assert "Built already: Attention, Naive cache, Pages and Page pool." in shown
    assert system_map(5).inline() == system_map("Page table").inline()
    assert system_map(5).inline().count('class="t"') == 1
    with pytest.raises(ValueError, match="no room 18"):
        system_map(18)


def test_a_picture_is_written_as_a_file_of_its_own(tmp_path):
    system_map().write(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text(encoding="utf-8").startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    with pytest.raises(ValueError, match=r"map\.gif"):
        system_map().write(tmp_path / "map.gif")


@pytest.mark.skipif(not (which("chromium") or which("google-chrome")), reason="needs Chromium")
def test_a_picture_is_photographed_at_twice_its_size(tmp_path):
    picture = system_map()
    picture.write(tmp_path / "map.png")
    header = (tmp_path / "map.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = (int.from_bytes(header[start : start + 4]) for start in (16, 20))
    assert (width, height) == (2 * picture.width, 2 * picture.height)


def test_without_chromium_a_photograph_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(RuntimeError, match=r"no Chromium found to write map\.png; install it, or write an \.svg file"):
        system_map().write(tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_the_map_of_the_first_and_of_the_last_room_leaves_out_what_is_not_there():
    first, last = repr(system_map(1)), repr(system_map(17))
    assert "To come:" in first
    assert "Built already:" not in first
    assert "Built already:" in last
    assert "To come:" not in last


def test_a_text_that_does_not_fit_is_cut_visibly():
    assert shortened("attic", 100) == "attic"
    cut = shortened("in the attic", 40)
    assert cut.endswith("…")
    assert "in the attic".startswith(cut[:-1])
    assert text_width(cut) <= 40 < text_width("in the attic"[: len(cut)] + "…")
    assert shortened("attic", 1) == "…"


def test_arrows_into_a_bare_pool_show_the_pages_that_nobody_listed_maps():
    pool = PagePool(4)
    table = PageTable(4, pool.allocate_many(2), 7)
    pool.allocate()
    shown = repr(table_arrows([table], pool))
    assert "logical page 0 to page 0, 1 to page 1" in shown
    assert "2 other pages of the pool are shown below." in shown


def test_memory_over_time_shows_a_series_only_where_there_is_something_to_show():
    cache = PagedKVCache(8, 4, events=EventLog())
    cache.sequence(range(5))
    alone = repr(memory_chart(memory_over_time(cache.events, 4)))
    assert "in use" in alone
    assert "shared" not in alone
    assert "prefix cache" not in alone
    named = repr(memory_chart({"mine": [1, 2, 3]}, x_label="steps"))
    assert named.startswith("1 line of pages over steps. mine:")


def test_a_strip_writes_no_name_where_there_is_no_room():
    strip = ContiguousAllocator(4096)
    strip.allocate("B", 1)
    strip.allocate("C", 4094)
    drawn = contiguous_map(strip, used={"B": 1}).inline()
    assert ">C<" in drawn
    assert ">B<" not in drawn
    assert ">1<" not in drawn


def test_billions_are_written_briefly():
    assert [written(2.5e9, " B"), written(3.2e6, " B"), written(1500), written(0.25, "%")] == [
        "2.5 GB",
        "3.2 MB",
        "1,500",
        "0.25%",
    ]


def test_line_charts_carry_names_round_ticks_and_extremes():
    picture = line_chart({"recompute": [(1, 1), (10, 100)], "cached": [(1, 1), (10, 10)]}, "tokens", "cost", unit="%")
    html = picture.inline()
    assert all(f">{tick}<" in html for tick in ("0%", "20%", "100%", "recompute", "cached", "tokens", "cost"))
    assert repr(picture) == ("2 lines of cost over tokens. recompute: from 1% to 100%. cached: from 1% to 10%.")
    assert "at most 9 (at 1)" in repr(line_chart({"bump": [1, 9, 2]}, "x", "y"))


def test_a_long_series_is_simplified_and_keeps_its_extremes():
    values = [5.0] * 10_000
    values[4321] = 99.0
    picture = line_chart({"spike": values}, "x", "y")
    assert len(picture.inline()) < 6_000
    assert "at most 99 (at 4,321)" in repr(picture)
    saw = line_chart({"saw": [number % 97 for number in range(2_000)]}, "x", "y", steps=True)
    assert len(saw.inline()) < 20_000


def test_the_key_of_a_chart_is_in_sight_on_a_phone():
    names = ["in use", "if nothing were shared", "kept by the prefix cache alone", "A"]
    html = line_chart({name: [1, 5] for name in names}, "x", "y").inline()
    for name in names:
        start = re.search(rf'<text x="([^"]*)"[^>]*>{name}<', html)[1]
        assert float(start) + text_width(name) < 328
    assert len(set(re.findall(rf'y="([^"]*)"[^>]*>(?:{"|".join(names)})<', html))) == 4, "each has a row of its own"


def test_logarithmic_axes_mark_powers_of_two_where_the_values_are_such():
    halving = {"left": [(2**power, 10 ** (3 - power / 2)) for power in range(9)]}
    html = line_chart(halving, "size", "left", log_x=True, log_y=True).inline()
    assert all(f">{tick}<" in html for tick in ("1", "2", "4", "128", "256", "10", "100", "1,000"))


def test_charts_are_the_same_in_another_process_and_load_matplotlib_only_to_draw():
    script = """
        import sys
        from kvpaged.figures import bar_chart, line_chart
        assert "matplotlib" not in sys.modules
        chart = line_chart({"n²": [1, 4, 9], "A": [1, 2, 3]}, "n", "cost $", steps=True)
        sys.stdout.buffer.write((chart.inline() + bar_chart({"a": 1}, bound=2).inline()).encode())
        assert "matplotlib.pyplot" not in sys.modules
    """
    drawn = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, check=True)
    chart = line_chart({"n²": [1, 4, 9], "A": [1, 2, 3]}, "n", "cost $", steps=True)
    assert drawn.stdout.decode() == chart.inline() + bar_chart({"a": 1}, bound=2).inline()
    assert drawn.stderr == b""


def test_a_readers_own_matplotlib_settings_do_not_change_a_chart():
    import matplotlib

    plain = bar_chart({"a": 1}).inline()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        assert bar_chart({"a": 1}).inline() == plain


def test_charts_refuse_what_they_cannot_show():
    with pytest.raises(ValueError, match="no series"):
        line_chart({}, "x", "y")
    with pytest.raises(ValueError, match="'a' is empty"):
        line_chart({"a": []}, "x", "y")
    with pytest.raises(ValueError, match="logarithmic axis cannot show 0"):
        line_chart({"a": [0, 1]}, "x", "y", log_y=True)
    with pytest.raises(ValueError, match="none below 0"):
        bar_chart({"a": -1})


def test_memory_over_time_is_drawn_from_the_log(story):
    cache = story.cache
    shown = repr(memory_chart(memory_over_time(cache.events, 4)))
    assert f"in use: from 0 to {cache.pool.num_used}" in shown
    assert "if nothing were shared" in shown


def engine_log():
    """Two requests, the second preempted, and back with another sequence, which then forks."""
    log = EventLog()
    log.add("queue", tokens=(1, 2, 3), number=0)
    log.add("queue", tokens=(4, 5), number=1)
    for sequence, pages, tokens in ((0, (0,), (1, 2, 3)), (1, (1,), (4, 5))):
        log.add("begin", sequence, (), tokens)
        log.add("allocate", sequence, pages)
        log.add("admit", sequence, number=sequence)
        log.add("compute", sequence, number=len(tokens))
    log.add("step", number=5)
    log.add("preempt", 1, number=1)
    log.add("release", 1, (1,))
    log.add("append", 0, (), (6,))
    log.add("compute", 0, number=4)
    log.add("step", number=1)
    log.add("begin", 2, (), (4, 5))
    log.add("allocate", 2, (1,))
    log.add("admit", 2, number=1)
    log.add("compute", 2, number=2)
    log.add("fork", 2, (1,), number=3)
    log.add("admit", 3, number=1)
    log.add("step", number=2)
    return log


def test_a_sequence_of_an_engine_has_the_letter_of_its_request():
    assert sequence_names(engine_log()) == {0: "A", 1: "B", 2: "B", 3: "B2"}
    cache = PagedKVCache(4, 4, events=EventLog())
    cache.sequence([1]).fork()
    assert sequence_names(cache.events) == {0: "A", 1: "B"}


def test_the_batch_chart_shows_who_runs_waits_and_is_preempted():
    shown = repr(batch_chart(engine_log()))
    assert "2 requests over 3 steps" in shown
    assert "A computes 4 tokens in steps 1–2." in shown
    assert "B computes 4 tokens in steps 1, 3, waits in 2, is preempted in 2." in shown
    with pytest.raises(ValueError, match="no forward passes"):
        batch_chart(EventLog())


def test_each_room_of_the_map_says_its_chapter_to_whoever_links_it():
    shown = system_map("kernel").inline()
    assert shown.count('<a data-chapter="') == 17
    assert '<a data-chapter="12" aria-current="page">' in shown
    assert '<svg viewBox="0 0 754 460" role="group"' in shown
    assert "href" not in shown


def test_a_page_that_somebody_without_a_name_owns_too_does_not_belong_to_the_prefix_cache_alone():
    shown = repr(draw_pages([PageView(3, cached=4, ref_count=2), PageView(4, cached=4, ref_count=1)], 4))
    assert "The prefix cache owns page 3 too." in shown
    assert "The prefix cache alone owns page 4." in shown


@pytest.mark.parametrize("page_size", [1, 2, 4])
@pytest.mark.parametrize("number", [0, 42])
def test_a_small_page_keeps_its_number_beside_a_bookmark_and_a_count_of_owners(page_size, number):
    many = {"A": Use(1, 1), "B": Use(1, 1), "C": Use(1, 1)}
    shown = draw_pages([PageView(number, many, cached=1, ref_count=4)], page_size).inline()
    [end_of_number] = [
        float(x) + text_width(str(number), 10) for x in re.findall(rf'<text x="([\d.]+)".*?>{number}<', shown)
    ]
    chips = [float(x) for x in re.findall(r'<rect x="([\d.]+)"[^>]* rx="3"', shown)]
    assert chips
    assert min(chips) > end_of_number


def test_a_page_that_an_owner_holds_uncounted_is_drawn_as_his_and_not_as_free():
    shown = draw_pages([PageView(0, {"B": Use(1, 1)}), PageView(1, cached=1), PageView(2)], 1, counting_tokens=False)
    assert "3 pages of 1 slot: 0 used, 3 free. B owns page 0." in repr(shown)
    assert "The prefix cache alone owns page 1." in repr(shown)
    assert "Free in the pool, and yet owned: pages 0–1. Free: page 2." in repr(shown)
    assert shown.inline().count('class="f"') == 1
