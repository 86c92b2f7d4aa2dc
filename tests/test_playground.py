"""The live playgrounds, driven as a reader drives them: their buttons pressed, their fields filled in."""

import subprocess
import sys
from html import unescape

import pytest

from kvpaged.figures import page_map
from kvpaged.figures.playground import ForkPlayground, PoolPlayground, PrefixPlayground

WORDS: list[str] = []


def encode(text):
    for word in text.split():
        if word not in WORDS:
            WORDS.append(word)
    return [WORDS.index(word) for word in text.split()]


def decode(token):
    return f" {WORDS[token]}"


def press(playground, label):
    (button,) = (each for each in controls(playground) if each.description == label)
    button.click()
    return playground.sentence


def controls(playground):
    row, _, _ = playground.widget.children
    return row.children


def playgrounds():
    return [PoolPlayground(4), PrefixPlayground(encode, decode), ForkPlayground(encode, decode)]


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
    playground.page.value = 7
    assert press(playground, "share") == "ValueError: page 7 does not exist: this pool has pages 0 to 0"
    assert playground.pool.ref_counts == [1]


def test_the_picture_follows_the_pool():
    playground = PoolPlayground(num_pages=3)
    press(playground, "allocate")
    _, sentence, picture = playground.widget.children
    assert picture.value == page_map(playground.pool)._repr_html_()
    assert sentence.value == '<p role="status">allocate() returned page 0.</p>'


def test_two_prompts_show_what_the_second_finds():
    playground = PrefixPlayground(encode, decode, "Ada hid the coin in the attic", "Ada hid the coin under the bed")
    assert playground.sentence == "B finds 4 of its 7 tokens in the cache (“Ada hid the coin”), and computes 3."
    playground.second.value = "Ada hid the coin in the box"
    assert playground.sentence == "B finds 6 of its 7 tokens in the cache (“Ada hid the coin in the”), and computes 1."
    playground.first.value = "Bo"
    assert playground.sentence == "B finds nothing, and computes 7."
    assert "Bo" in repr(playground)


def test_an_empty_prompt_is_refused_and_the_last_picture_stays():
    playground = PrefixPlayground(encode, decode, "Ada hid", "Ada hid it")
    before = repr(playground.picture())
    playground.second.value = ""
    assert playground.sentence.startswith("ValueError: the prompt is empty")
    assert repr(playground.picture()) == before


def test_a_fork_copies_nothing_until_it_writes():
    playground = ForkPlayground(encode, decode, prompt="Ada hid the coin in the")
    assert press(playground, "fork") == "B is a fork of A: it owns 2 pages too, and none is copied."
    assert "A and B map 4 pages and own 2 between them." in repr(playground)
    playground.text.value = "box"
    assert press(playground, "write") == "B writes 1 token. Page 1 had other owners: 2 slots copied to page 2."
    assert press(playground, "write") == "B writes 1 token."
    playground.sequence.label = "A"
    assert press(playground, "write") == "A writes 1 token."
    playground.cache.check()


def test_a_fork_is_refused_pages_that_are_not_there():
    playground = ForkPlayground(encode, decode, prompt="Ada hid the coin in the", num_pages=2)
    press(playground, "fork")
    assert press(playground, "write").startswith("OutOfPages: asked for 1 page")


@pytest.mark.parametrize("number", range(3))
def test_a_page_without_a_kernel_shows_a_note_and_the_picture(number):
    playground, again = playgrounds()[number], playgrounds()[number]
    stored, other = playground._repr_mimebundle_(), again._repr_mimebundle_()
    view = "application/vnd.jupyter.widget-view+json"
    assert stored.pop(view) != other.pop(view)
    assert stored == other, "stored outputs are compared to the letter"
    assert set(stored) == {"text/plain", "text/html"}
    assert stored["text/html"].startswith(f"<p><strong>{playground.name}.</strong> In a running notebook, ")
    assert unescape(stored["text/html"]).endswith(
        f"{playground.sentence}</p>{unescape(playground.picture()._repr_html_())}"
    )
    assert not any(control in stored["text/html"] for control in ("<button", "<input", "<script"))
    assert unescape(stored["text/plain"]).startswith(f"{playground.name}, which needs a running notebook: ")


@pytest.mark.parametrize("number", range(3))
def test_every_control_has_a_label(number):
    assert all(control.description for control in controls(playgrounds()[number]))


def test_the_other_pictures_do_not_need_ipywidgets():
    script = "import sys, kvpaged.figures; assert not {'ipywidgets', 'IPython', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
