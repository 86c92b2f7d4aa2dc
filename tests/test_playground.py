"""The live playgrounds, driven as a reader drives them: their buttons pressed, their fields filled in."""

import subprocess
import sys
from html import unescape

import pytest

from kvpaged.figures import page_map
from kvpaged.figures.playground import ForkPlayground, PoolPlayground, PrefixPlayground
from kvpaged.figures.playground.widgets import widget
from kvpaged.figures.playground.words import Words
from kvpaged.model import load_tokenizer
from kvpaged.recall.text import make_story


def press(playground, label):
    playground.press(label)
    return playground.sentence


def fill(playground, label, value):
    playground.fill(label, value)
    return playground.sentence


def playgrounds():
    return [PoolPlayground(4), PrefixPlayground(), ForkPlayground()]


def test_a_pool_is_allocated_from_shared_and_released_by_hand():
    playground = PoolPlayground(num_pages=2)
    assert press(playground, "allocate") == "allocate() returned page 0."
    assert press(playground, "share") == "share(0): page 0 has 2 owners."
    assert press(playground, "release") == "release(0): page 0 has 1 owner."
    assert press(playground, "release") == "release(0): page 0 is free."


def test_what_the_pool_refuses_is_said_as_the_pool_says_it_and_changes_nothing():
    playground = PoolPlayground(num_pages=1)
    press(playground, "allocate")
    assert press(playground, "allocate").startswith("OutOfPages: asked for 1 page, but 0 of 1 are free;")
    playground.fill("page", 7)
    assert press(playground, "share") == "ValueError: page 7 does not exist: this pool has pages 0 to 0"
    assert playground.pool.ref_counts == [1]


def test_two_prompts_show_what_the_second_finds():
    playground = PrefixPlayground("Ada hid the coin in the attic", "Ada hid the coin under the bed")
    assert playground.sentence == "B finds 4 of its 7 tokens in the cache (“Ada hid the coin”), and computes 3."
    said = fill(playground, "second prompt (B)", "Ada hid the coin in the box")
    assert said == "B finds 6 of its 7 tokens in the cache (“Ada hid the coin in the”), and computes 1."
    assert fill(playground, "first prompt (A)", "Bo") == "B finds nothing, and computes 7."
    assert "Bo" in repr(playground)


def test_an_empty_prompt_is_refused_and_the_last_picture_stays():
    playground = PrefixPlayground("Ada hid", "Ada hid it")
    before = repr(playground.picture())
    assert fill(playground, "second prompt (B)", "").startswith("ValueError: the prompt is empty")
    assert repr(playground.picture()) == before


def test_a_fork_copies_nothing_until_it_writes():
    playground = ForkPlayground(prompt="Ada hid the coin in the")
    assert press(playground, "fork") == "B is a fork of A: it owns 2 pages too, and none is copied."
    assert "A and B map 4 pages and own 2 between them." in repr(playground)
    playground.fill("text", " box")
    assert press(playground, "write") == "B writes 1 token. Page 1 had other owners: 2 slots copied to page 2."
    assert press(playground, "write") == "B writes 1 token."
    playground.fill("sequence", "A")
    assert press(playground, "write") == "A writes 1 token."
    playground.cache.check()


def test_a_fork_is_refused_pages_that_are_not_there():
    playground = ForkPlayground(prompt="Ada hid the coin in the", num_pages=2)
    press(playground, "fork")
    assert press(playground, "write").startswith("OutOfPages: asked for 1 page")


def test_words_are_cut_where_the_tokenizer_of_the_recall_model_cuts_them():
    tokenizer, words = load_tokenizer("recall"), Words()
    for seed in range(100):
        text = make_story(3, seed=seed).text
        assert [words.decode(token) for token in words.encode(text)] == [
            tokenizer.decode([token]) for token in tokenizer.encode(text).ids
        ]


def test_widgets_work_a_playground_and_show_what_came_of_it():
    playground = ForkPlayground()
    row, sentence, picture = widget(playground).children
    sequence, fork, text, write = row.children
    fork.click()
    assert (sequence.options, sequence.value) == (("A", "B"), "B")
    text.value = " box"
    write.click()
    assert sentence.value == f'<p role="status">{playground.sentence}</p>'
    assert "2 slots copied" in sentence.value
    assert picture.value == playground.picture()._repr_html_()
    sequence.value = "A"
    write.click()
    assert sentence.value == '<p role="status">A writes 1 token.</p>'


def test_a_widget_shows_the_number_that_an_action_chose():
    playground = PoolPlayground(num_pages=3)
    row, _, picture = widget(playground).children
    allocate, page, share, _ = row.children
    allocate.click()
    allocate.click()
    assert page.value == 1
    page.value = 0
    share.click()
    assert playground.pool.ref_counts == [2, 1]
    assert picture.value == page_map(playground.pool)._repr_html_()


@pytest.mark.parametrize("number", range(3))
def test_where_nothing_answers_stand_a_note_and_the_picture(number):
    playground, again = playgrounds()[number], playgrounds()[number]
    stored, other = playground._repr_mimebundle_(), again._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert stored.pop(view) != other.pop(view)
    assert stored == other, "stored outputs are compared to the letter"
    assert set(stored) == {"text/plain", "text/html"}
    assert stored["text/html"].startswith(f"<p><strong>{playground.name}.</strong> Run the cell, and ")
    assert unescape(stored["text/html"]).endswith(
        f"{playground.sentence}</p>{unescape(playground.picture()._repr_html_())}"
    )
    assert not any(control in stored["text/html"] for control in ("<button", "<input", "<script"))
    assert unescape(stored["text/plain"]).startswith(f"{playground.name}. Run the cell, and ")


@pytest.mark.parametrize("number", range(3))
def test_every_control_has_a_label(number):
    row, *_ = widget(playgrounds()[number]).children
    assert all(control.description for control in row.children)


def test_pictures_and_playgrounds_do_not_need_ipywidgets():
    script = "import sys, kvpaged.figures.playground as rooms; rooms.PoolPlayground().press('allocate');"
    script += "assert not {'ipywidgets', 'IPython', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
