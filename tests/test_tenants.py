"""Requests with different salts share nothing; and no tokens, however chosen, pass for other tokens."""

import random
from collections.abc import Callable
from fractions import Fraction
from zlib import crc32

import numpy as np
import pytest

from kvpaged import PagedKVCache, PagePool, PrefixCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model
from kvpaged.prefix_cache import PrefixMatch
from kvpaged.recall.text import PLACES
from kvpaged.tokens import pack, unpack

MODEL = load_model("recall")
SECRET = "Ada hid the coin in the attic."


def serve(cache: PagedKVCache, tokens: list[int], salt: object = None) -> int:
    sequence = cache.sequence(tokens, salt)
    sequence.mark_computed()
    sequence.release()
    return sequence.num_cached_tokens


# --- salts ------------------------------------------------------------------------------------------------------


def test_no_page_is_ever_in_the_tables_of_two_tenants_at_once_or_found_by_another() -> None:
    choose = random.Random(3)
    cache, salts = PagedKVCache(60, 4), [None, "", "a", "b", ("a", 1), 0]
    live: list[tuple[object, object]] = []
    said: dict[object, set[tuple[int, ...]]] = {salt: set() for salt in salts}
    for _ in range(600):
        salt, prompt = choose.choice(salts), [choose.randrange(2) for _ in range(choose.randint(1, 12))]
        sequence = cache.sequence(prompt, salt)
        found = tuple(prompt[: sequence.num_cached_tokens])
        assert any(each[: len(found)] == found for each in said[salt]) or not found
        sequence.mark_computed()
        said[salt].add(tuple(prompt))
        live.append((salt, sequence))
        tenant_of: dict[int, object] = {}
        for owner, each in live:
            assert all(tenant_of.setdefault(page_id, owner) == owner for page_id in each.table.page_ids)
        while len(live) > choose.randint(0, 8):
            live.pop(choose.randrange(len(live)))[1].release()
        cache.check()


class Changing:
    """A salt whose hash is another each time, so that what was cached under it can never be found again."""

    def __hash__(self) -> int:
        self.times = getattr(self, "times", 0) + 1
        return self.times

    def __repr__(self) -> str:
        return "Changing()"


SALTS = [None, "", "1", b"", b"1", 0, 1, -1, (), (1,), ("1",), (b"1",), ((1,),), (1, None), (None, 1), 10**5000]
NO_SALTS = [True, 1.0, -0.0, Fraction(1), np.int64(1), np.str_("1"), Changing(), [1], (1, True), (("a", 1.0),)]


def test_no_two_salts_share() -> None:
    cache, prefix = PagedKVCache(64, 4), PrefixCache(PagePool(64), 4)
    for salt in SALTS:
        sequence = cache.sequence(range(6), salt)
        assert sequence.num_cached_tokens == prefix.match(range(4), salt).num_tokens == 0
        sequence.mark_computed()
        sequence.release()
        [page] = prefix.pool.allocate_many(1)
        prefix.insert(range(4), [page], salt)
    for salt in SALTS:
        assert cache.sequence(range(6), salt).num_cached_tokens == 5
        assert prefix.match(range(4), salt).num_tokens == 4
    cache.check()


@pytest.mark.parametrize("salt", NO_SALTS, ids=repr)
def test_what_could_equal_another_salt_or_change_is_none(salt: object) -> None:
    cache = PagedKVCache(16, 4)
    sequence = cache.sequence(range(6), 1)
    sequence.mark_computed()
    message = r"^cache_salt has .*, an? \w+, which may equal another; give None, a str, bytes, an int, or a tuple of th"
    for ask in (
        lambda: cache.sequence(range(6), salt),
        lambda: cache.prefix.match(range(6), salt),
        lambda: cache.prefix.insert(range(6), sequence.table.page_ids, salt),
        lambda: Engine(MODEL, 16, 4).submit([1, 2, 3], cache_salt=salt),
    ):
        with pytest.raises(TypeError, match=message):
            ask()
    assert (len(cache.sequences), len(cache.prefix), cache.pool.num_used) == (1, 1, 2)
    cache.check()


def tokens_run(engine: Engine, text: str, salt: object) -> int:
    """What an attacker feels as time: the tokens that a guess made the engine compute."""
    request = engine.submit(text, SamplingParams(temperature=0, max_tokens=1), cache_salt=salt)
    while not request.finished:
        engine.step()
    return request.metrics.computed_tokens


@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_whoever_shares_a_salt_learns_from_what_runs_and_whoever_does_not_learns_nothing(page_size: int) -> None:
    guesses = [f"Ada hid the coin in the {place}." for place in PLACES]
    engine = Engine(MODEL, 512, page_size)
    tokens_run(engine, SECRET, "hers")
    inside = {guess: tokens_run(engine, guess, "hers") for guess in guesses}
    assert inside.pop(SECRET) == 1
    assert set(inside.values()) == {2}  # the wrong word and the full stop
    engine = Engine(MODEL, 512, page_size)
    tokens_run(engine, SECRET, "hers")
    assert {tokens_run(engine, guess, f"mine {guess}") for guess in guesses} == {len(engine.tokenizer.encode(SECRET))}


def test_a_salt_hides_what_others_say_and_not_how_much_room_they_take() -> None:
    cache = PagedKVCache(8, 4)
    serve(cache, [1] * 16, "mine")
    assert serve(cache, [1] * 16, "mine") == 15
    serve(cache, [2] * 32, "hers")
    assert serve(cache, [1] * 16, "mine") == 0  # evicted, to make room for somebody


# --- crafted tokens ---------------------------------------------------------------------------------------------


def by_crc32(parent: int, page: bytes) -> int:
    return crc32(page, parent)


def by_polynomial(parent: int, page: bytes) -> int:
    """The hash that Java has for strings, and Megatron-LM had for blocks."""
    for token in unpack(page):
        parent = (31 * parent + token) % 2**64
    return parent


def by_half_of_pythons_hash(parent: int, page: bytes) -> int:
    """What a dictionary may use, since it compares the keys afterwards (CVE-2025-25183 is about who does not)."""
    return hash((parent, *unpack(page))) & 0xFFFFFFFF


def collide_crc32() -> tuple[list[int], list[int]]:
    """CRC-32 is linear: whatever is xored with its polynomial keeps its number. No search at all."""
    generator = 0x1DB710641
    tokens = [7, 3, 9, 5]
    return tokens, [tokens[0] ^ generator & 0xFFFFFFFF, tokens[1] ^ generator >> 32, *tokens[2:]]


def collide_polynomial() -> tuple[list[int], list[int]]:
    return [7, 33, 9, 5], [8, 2, 9, 5]


def collide_half_of_pythons_hash() -> tuple[list[int], list[int]]:
    """Some eighty thousand pages, until two agree: the birthday paradox."""
    seen: dict[int, list[int]] = {}
    choose = random.Random(0)
    while True:
        tokens = [choose.randrange(2**32) for _ in range(4)]
        other = seen.setdefault(by_half_of_pythons_hash(0, pack(tokens)), tokens)
        if other != tokens:
            return other, tokens


def hash_keyed(chain: Callable[[int, bytes], int]) -> type[PrefixCache]:
    """A cache that finds whole pages by a chain of hashes, and does not look at the tokens."""

    class HashKeyed(PrefixCache):
        def match_packed(self, packed: bytes, cache_salt: object) -> PrefixMatch:
            keys: dict[object, int] = {}
            for node in self.nodes():  # each after the page that it continues
                keys[node] = chain(keys.get(node.parent, 0), node.edge)
            page_of = {key: node.page_id for node, key in keys.items()}
            key, found, width = 0, [], 4 * self.page_size
            for start in range(0, len(packed) - width + 1, width):
                key = chain(key, packed[start : start + width])
                if key not in page_of:
                    break
                found.append(page_of[key])
            return PrefixMatch(found, len(found) * self.page_size)

    return HashKeyed


@pytest.mark.parametrize(
    ("chain", "collide"),
    [
        (by_crc32, collide_crc32),
        (by_polynomial, collide_polynomial),
        (by_half_of_pythons_hash, collide_half_of_pythons_hash),
    ],
    ids=lambda each: each.__name__,
)
def test_tokens_that_collide_under_a_weak_hash_fool_a_cache_of_hashes_and_hit_nothing_here(
    chain: Callable[[int, bytes], int], collide: Callable[[], tuple[list[int], list[int]]]
) -> None:
    hers, crafted = collide()
    assert hers != crafted
    assert chain(0, pack(hers)) == chain(0, pack(crafted))
    found = {}
    for kind in (hash_keyed(chain), PrefixCache):
        cache = PagedKVCache(16, 4)
        cache.prefix = kind(cache.pool, 4)
        serve(cache, [*hers, 1, 2, 3, 4, 5])
        found[kind] = serve(cache, [*crafted, 1, 2, 3, 4, 5])  # what follows the collision collides as well
    assert list(found.values()) == [8, 0]
