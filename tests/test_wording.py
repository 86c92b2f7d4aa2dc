"""Numbers of things, in words: one is one, and no other number is."""

from kvpaged import PagedKVCache
from kvpaged.wording import count_of


def test_one_thing_is_said_in_the_singular_and_every_other_number_in_the_plural() -> None:
    said = [count_of(number, "page") for number in (0, 1, 2, 21, 1000)]
    assert said == ["0 pages", "1 page", "2 pages", "21 pages", "1,000 pages"]


def test_a_noun_that_takes_more_than_an_s_brings_its_plural() -> None:
    assert [count_of(number, "branch", "branches") for number in (0, 1, 2)] == ["0 branches", "1 branch", "2 branches"]


def test_what_holds_one_of_each_says_so() -> None:
    cache = PagedKVCache(4, 4)
    sequence = cache.sequence([5])
    assert repr(sequence) == "Sequence(id=0, 1 token, 0 computed, pages=[0])"
    assert repr(cache) == "PagedKVCache(num_pages=4, page_size=4, 1 sequence, 0 pages cached, 3 free)"
    sequence.mark_computed()
    sequence.release()
    assert repr(cache.prefix) == "PrefixCache(page_size=4, 1 page held)"
