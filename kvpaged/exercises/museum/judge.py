"""The judge of the small engine: the laws of ownership, and that everybody reads and writes what is theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from kvpaged import mini
from kvpaged.exercises.museum.text import Text
from kvpaged.exercises.small_cache import Slots, nodes
from kvpaged.laws import Claim, check_contents, check_references
from kvpaged.page_pool import PagePool

Live = Mapping[str, mini.Sequence]
_Numbers = dict[Any, int]  # one for each text that ends with a page


def judge(cache: mini.Cache, live: Live) -> None:
    """Raise AssertionError, naming the page, if a law is broken or a sequence would read what is not its own.

    cache: a small engine's memory whose storage is `Slots`. live: its sequences, by name.
    """
    numbers: _Numbers = {}
    claims = [claim for name, each in live.items() for claim in _claims_of(name, each, numbers)]
    claims += _claims_of_trie(cache, numbers)
    check_references(cast(PagePool, _Counts(cache.pool)), [(claim.owner, claim.page_id) for claim in claims])
    check_contents(claims)
    _check_trie(cache)
    for name, sequence in live.items():
        check_read(cache, name, sequence)


def check_read(cache: mini.Cache, name: str, sequence: mini.Sequence) -> None:
    """Each computed token's slot must hold that token's K and V. Raises AssertionError, naming slot and page."""
    for index in range(sequence.num_computed):
        page, slot = divmod(index, cache.page_size)
        page = sequence.page_table[page]
        held, mine = cast(Slots, cache.storage).pages[page][slot], text_up_to(sequence, index)
        if held != mine:
            there = f"holds {held}" if held else "nobody has computed"
            raise AssertionError(f"{name} reads its token {index} in slot {slot} of page {page}, which {there}")


def check_write(cache: mini.Cache, name: str, sequence: mini.Sequence, slot: int) -> None:
    """Only the sole owner of a page writes to it. Raises AssertionError, naming slot and page.

    slot: as in a slot mapping, page id * page size + slot.
    """
    page, at = divmod(slot, cache.page_size)
    what = f"slot {at} of page {page} is written for {name}"
    if page not in sequence.page_table:
        raise AssertionError(f"law 2: {what}, whose pages are {sequence.page_table}")
    if (owners := cache.pool.ref_counts[page]) != 1:
        raise AssertionError(f"law 2: {what}, but the page has {owners} owners; only a sole owner writes")


def text_up_to(sequence: mini.Sequence, index: int) -> Text:
    """What K and V of a sequence's token depend on."""
    return Text(sequence.cache_salt, tuple(sequence.tokens[: index + 1]))


class _Counts:
    """A small engine's pool, asked in the words of the package's."""

    def __init__(self, pool: mini.Pool) -> None:
        self.num_pages, self.num_free = len(pool.ref_counts), len(pool.free)
        self.ref_count = pool.ref_counts.__getitem__


def _claims_of(name: str, sequence: mini.Sequence, numbers: _Numbers) -> Iterator[Claim]:
    size, pages = sequence.cache.page_size, sequence.page_table
    if len(pages) != mini.pages_for(len(sequence.tokens), size):
        raise AssertionError(f"{name} has {len(sequence.tokens)} tokens in pages of {size}, and its table is {pages}")
    before = 0
    for index, page in enumerate(pages):
        tokens = tuple(sequence.tokens[index * size : (index + 1) * size])
        yield Claim(page, name, before, tokens)
        before = _number(numbers, before, tokens)


def _claims_of_trie(cache: mini.Cache, numbers: _Numbers) -> Iterator[Claim]:
    number_of: dict[mini.Node, int] = {}
    for _, node in nodes(cache):
        before = number_of.get(node.parent, 0)
        yield Claim(node.page, "the prefix cache", before, node.tokens)
        number_of[node] = _number(numbers, before, node.tokens)


def _check_trie(cache: mini.Cache) -> None:
    for _, node in nodes(cache):
        offered = f"law 3: the prefix cache offers page {node.page}"
        if node.children and len(node.tokens) < cache.page_size:
            raise AssertionError(f"{offered} as full, which has room for more than {node.tokens}")
        for slot in range(len(node.tokens)):
            if cast(Slots, cache.storage).pages[node.page][slot] is None:
                raise AssertionError(f"{offered}, slot {slot} of which nobody has computed")


def _number(numbers: _Numbers, *key: Any) -> int:
    return numbers.setdefault(key, len(numbers) + 1)
