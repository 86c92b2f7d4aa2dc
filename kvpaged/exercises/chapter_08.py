"""Chapter 8, sharing with strangers: who shares with whom, and what a number does not prove."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.cache import PagedKVCache
from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen

# What Python takes for equal, and so does a dictionary; and two that have the same hash.
_EQUAL: list[list[Hashable]] = [
    [1, True, 1.0],
    [0, False, 0.0],
    [(1,), (True,)],
    [("a", 0), ("a", False)],
    [("a", (1,)), ("a", (True,))],
    [-1, -2],
]
_OTHERS: list[Hashable] = [None, "", "1", "0", "None", "a", ("1",), (), ("a", "0"), b"a", 2, ("a", ("b", 1))]


def _walls(chance: Random) -> Question:
    """Tokens that run for several tenants with a common beginning, behind walls and without them."""
    tenants, times = chance.randint(2, 12), chance.randint(1, 3)
    common = chance.randint(8, 40)
    length = common + chance.randint(4, 20)
    run = []
    for walled in (True, False):
        cache, ran = PagedKVCache(num_pages=1000, page_size=16), 0
        for tenant in range(tenants):
            for _ in range(times):
                prompt = [*range(common), *([1000 + tenant] * (length - common))]
                sequence = cache.sequence(prompt, cache_salt=tenant if walled else None)
                sequence.mark_computed()
                sequence.release()
                ran += length - sequence.num_cached_tokens
        run.append(ran)
    often = {1: "once", 2: "twice", 3: "three times"}[times]
    words = (
        f"Each of {tenants} tenants sends a prompt of {length} tokens {often}, one request after the other. The first "
        f"{common} tokens are the same for everybody; what follows, no two tenants have in common. How many tokens run "
        "if each tenant has a salt of its own, and how many without salts?"
    )
    return Question(words, tuple(run))


def _some_salts(chance: Random, number: int) -> list[Hashable]:
    """Salts of which some look alike."""
    alike = chance.choice(_EQUAL)
    return [chance.choice(alike if chance.random() < 0.6 else _OTHERS) for _ in range(number)]


def _who_shares(chance: Random) -> Question:
    """Which requests find the prompt of an earlier one, in the small engine as it stands."""
    alike = chance.choice(_EQUAL)
    salts = chance.sample(alike, 2) + chance.sample(_OTHERS, 2)
    salts.append(chance.choice(salts))
    chance.shuffle(salts)
    prompt, cache, found = [5, 3, 9, 7, 2], mini.Cache(20, 4), []
    for salt in salts:
        found.append(mini.match(cache, prompt[:-1], salt)[1])
        pages = [mini.allocate(cache.pool) for _ in range(2)]
        mini.insert(cache, prompt, pages, salt)
    shown = ", ".join(f"`{salt!r}`" for salt in salts)
    words = (
        "The small engine keeps its roots in a dictionary, by salt. A prompt of 5 tokens is sent five times, with the "
        f"salts {shown}, and computed each time. How many of its tokens does each request find?"
    )
    return Question(words, tuple(found))


def _salts(chance: Random, size: int) -> Case:
    """Salts, one after another, some of them twice."""
    salts = _some_salts(chance, size + 1)

    def run(root_of: Function) -> Seen:
        cache = mini.Cache(4, 2)
        roots = [root_of(cache, salt) for salt in salts]
        first = [next(index for index, other in enumerate(roots) if other is root) for root in roots]
        return {
            "each call returned a node": all(isinstance(root, mini.Node) for root in roots),
            "each call's root is that of call number": first,
            "roots in the cache": len(cache.roots),
            "children of the roots": [len(getattr(root, "children", ())) for root in roots],
        }

    return Case("one after another: " + ", ".join(f"`root_of(cache, {salt!r})`" for salt in salts), run)


def _root_of(cache: Any, cache_salt: Hashable) -> Any:
    return cache.roots.setdefault(repr(cache_salt), mini.Node())


def _sum(before: int, tokens: list[int]) -> int:
    """A number for a block that is easily the same for another."""
    return (2 * before + sum(tokens)) % 8 + 1


def _collisions(chance: Random, size: int) -> Case:
    """Blocks known by numbers, and a prompt some of whose numbers are those of others."""
    page_size = chance.randint(1, 2)
    texts = [[chance.randint(1, 4) for _ in range(page_size * chance.randint(1, size))] for _ in range(size)]
    prompt = [chance.randint(1, 4) for _ in range(page_size * chance.randint(1, size + 1))]
    if chance.random() < 0.6:
        known = chance.choice(texts)
        parting = chance.randint(1, len(known))
        prompt = known[:parting] + prompt[: len(known) - parting]
    blocks = _known(texts, page_size, _sum)

    def run(find: Function) -> Seen:
        given, tokens = dict(blocks), [*prompt]
        pages = find(given, tokens, page_size, _sum)
        return {"pages found": pages, "the blocks afterwards": given, "the prompt afterwards": tokens}

    told = "; ".join(f"number {number}: {block}" for number, block in blocks.items())
    return Case(f"`find(blocks, {prompt}, {page_size}, hash_of)`, where the blocks are {told}", run)


def _known(
    texts: list[list[int]], page_size: int, hash_of: Callable[[int, list[int]], int]
) -> dict[int, tuple[int, list[int], int | None]]:
    """Register each block of each text, as it is computed: page, tokens, and the page before it. The last one stays."""
    blocks: dict[int, tuple[int, list[int], int | None]] = {}
    page = 0
    for text in texts:
        number, before = 0, None
        for start in range(0, len(text), page_size):
            mine = text[start : start + page_size]
            number = hash_of(number, mine)
            known = blocks.get(number)
            if known and known[1:] == (mine, before):  # it is there already
                before = known[0]
                continue
            blocks[number] = page, mine, before
            before, page = page, page + 1
    return blocks


def _find(blocks: Any, tokens: list[int], page_size: int, hash_of: Function) -> list[int]:
    number, pages = 0, list[int]()
    for start in range(0, len(tokens) - page_size + 1, page_size):
        mine = tokens[start : start + page_size]
        number = hash_of(number, mine)
        page, *known = blocks.get(number, (None, None, None))
        if known != [mine, pages[-1] if pages else None]:
            break
        pages.append(page)
    return pages


EXERCISES = (
    Predict(
        number="8.1",
        title="what walls cost",
        instance=_walls,
        hints=(
            "What is not found must run. What can each request find with a salt for each tenant, and what without?",
            "Without salts, a tenant's first request finds the common beginning, unless it is the first of all.",
        ),
    ),
    Predict(
        number="8.3",
        title="who shares with whom",
        instance=_who_shares,
        hints=(
            "One token must run, so a prompt of 5 that was computed before is found to 4 tokens.",
            "A dictionary asks whether two keys are equal, and not whether they are of one type: ask Python for "
            "`True == 1`.",
        ),
    ),
    Build(
        number="8.4",
        name="root_of",
        title="a root for each salt, and none for two",
        cases=_salts,
        reference=_root_of,
        against="a few lines that cannot be wrong",
        hints=(
            "The type of a salt must be a part of the key.",
            "A tuple that holds 1 equals a tuple that holds True: the types within it count as well.",
            "Turn a salt into a key by a function that calls itself for each part of a tuple.",
        ),
    ),
    Build(
        number="8.5",
        kind="debug",
        name="find",
        title="do not believe a number",
        cases=_collisions,
        reference=_find,
        against="a few lines that cannot be wrong",
        hints=(
            "A block says which tokens are in it: compare them with `mine` before you take its page.",
            "The same tokens after another beginning have other keys and values. What else does a block say of itself?",
            "The block's page before it must be the one that you took last, and None for the first.",
        ),
    ),
)
