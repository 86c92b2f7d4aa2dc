"""Chapter 7, the prefix cache: what is found, what comes in, and what goes when pages are short."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.cache import PagedKVCache
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.small_cache import draw_small_trie, keep, keep_alone, nodes, see_pool, see_trie


def _listed(tokens: list[int]) -> str:
    return f"`{' '.join(map(str, tokens))}`"


def _found(chance: Random) -> Question:
    """Four prompts after one or two requests: the same, longer, parting inside, and without its beginning."""
    first = [chance.randint(1, 9) for _ in range(chance.randint(6, 10))]
    texts = [first]
    if chance.random() < 0.5:
        common = chance.randint(2, len(first) - 1)
        texts.append(first[:common] + [chance.randint(1, 9) for _ in range(chance.randint(2, 5))])
    cache = PagedKVCache(num_pages=32, page_size=4)
    for each in texts:
        sequence = cache.sequence(each)
        sequence.mark_computed()
        sequence.release()
    known = chance.choice(texts)
    parting = chance.randint(1, len(known) - 1)
    other = known[parting] % 9 + 1
    prompts = [[*known], [*known, chance.randint(1, 9)], [*known[:parting], other, *known[parting + 1 :]], known[1:]]
    chance.shuffle(prompts)
    found = []
    for each in prompts:
        sequence = cache.sequence(each)
        found.append(sequence.num_cached_tokens)
        sequence.release()
    come = f"A request of {_listed(texts[0])} is computed and released"
    if len(texts) == 2:
        come += f", and then another of {_listed(texts[1])}"
    asked = ", ".join(map(_listed, prompts))
    words = f"Pages of 4. {come}. How many tokens of each of these prompts are found, if each comes alone: {asked}?"
    return Question(words, tuple(found))


def _whole_blocks(chance: Random) -> Question:
    """Tokens found of one prompt: to the token, and in whole blocks."""
    size, first = 16, chance.randint(20, 80)
    kind = chance.choice(["the same", "longer", "parting"])
    if kind == "parting":
        common = chance.randint(5, first - 1)
        second = common + chance.randint(1, 30)
        told = f"Another has {second} tokens, of which the first {common} are the same"
    else:
        common, second = first, first + (chance.randint(1, 20) if kind == "longer" else 0)
        longer = f"Another goes on from there, to {second} tokens"
        told = "The same prompt comes again" if kind == "the same" else longer
    cache = PagedKVCache(num_pages=32, page_size=size)
    sequence = cache.sequence(range(first))
    sequence.mark_computed()
    sequence.release()
    found = cache.sequence([*range(common), *range(1000, 1000 + second - common)]).num_cached_tokens
    words = (
        f"Pages of {size}. A prompt of {first} tokens is computed and released. {told}. How many of its tokens are "
        f"found to the token, and how many by an engine that finds whole blocks of {size}?"
    )
    return Question(words, (found, min(common, second - 1) // size * size))


def _some_text(chance: Random, longest: int) -> list[int]:
    return [chance.randint(1, 2) for _ in range(chance.randint(1, longest))]


def _a_cache(page_size: int, texts: list[list[int]]) -> mini.Cache:
    """A memory without a storage, in which each text is cached; nobody but the trie owns a page."""
    cache = mini.Cache(sum(mini.pages_for(len(each), page_size) for each in texts) + 1, page_size)
    for each in texts:
        keep_alone(cache, each)
    return cache


def _matches(chance: Random, size: int) -> Case:
    """A prompt, and a trie of texts like it."""
    page_size = chance.randint(1, min(4, size + 1))
    texts = [_some_text(chance, size + 2) for _ in range(chance.randint(0, min(size, 4)))]
    prompt = _some_text(chance, size + 2)
    if texts and chance.random() < 0.5:
        known = chance.choice(texts)
        prompt = known[: chance.randint(1, len(known))] + prompt[: size // 2]

    def run(match: Function) -> Drawn:
        return Drawn(see(match), lambda: {"the trie": draw_small_trie(_a_cache(page_size, texts))})

    def see(match: Function) -> Seen:
        cache = _a_cache(page_size, texts)
        tokens = [*prompt]
        returned = match(cache, tokens)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            return {"it returned": returned}
        nodes_found, found = returned
        above = [None, *nodes_found]
        return {
            "tokens found": found,
            "pages on the path": len(nodes_found),
            "the path begins with": [token for node in nodes_found for token in node.tokens][: len(prompt)][:found],
            "each node hangs under the one before": all(
                (node.parent is before) if before else not node.parent.parent
                for before, node in zip(above, nodes_found, strict=False)
            ),
            "the prompt afterwards": tokens,
            "pages, the oldest use first": [node.page for node in cache.by_use],
            "roots in the cache": [*cache.roots],
        } | see_trie(cache)

    return Case(f"`match(cache, {prompt})`, with pages of {page_size}", run)


def _match(cache: Any, tokens: list[int]) -> tuple[list[Any], int]:
    return mini.match(cache, tokens)  # type: ignore[no-any-return]


def _insertions(chance: Random, size: int) -> Case:
    """Texts that have much in common, each on pages of its own, or one of them twice on the same pages."""
    page_size = chance.randint(1, min(3, size + 1))
    given: list[tuple[list[int], list[int]]] = []
    num_pages = 0
    for _ in range(chance.randint(2, 2 + size // 3)):
        tokens = _some_text(chance, size + 1)
        if given and chance.random() < 0.4:
            tokens = chance.choice(given)[0][:] + tokens[: size // 3]
        num = mini.pages_for(len(tokens), page_size)
        given.append((tokens, [*range(num_pages, num_pages + num)]))
        num_pages += num
    if chance.random() < 0.3:
        given.append(chance.choice(given))

    def run(insert: Function) -> Drawn:
        cache = mini.Cache(num_pages, page_size)
        for _ in range(num_pages):
            mini.allocate(cache.pool)
        for tokens, pages in given:
            insert(cache, [*tokens], [*pages])
        seen = see_trie(cache) | {
            "owners of each page": cache.pool.ref_counts,
            "pages, the oldest use first": [node.page for node in cache.by_use],
        }
        return Drawn(seen, lambda: {"the trie": draw_small_trie(cache)})

    calls = ", then ".join(f"`insert(cache, {tokens}, {pages})`" for tokens, pages in given)
    return Case(f"{calls}, with pages of {page_size}", run)


def _insert(cache: Any, tokens: list[int], pages: list[int]) -> None:
    mini.insert(cache, tokens, pages)


def _evictions(chance: Random, size: int) -> Case:
    """A trie, some pages of which are in use, and how many pages are missing."""
    page_size = chance.randint(1, min(3, size + 1))
    texts = [_some_text(chance, size + 1) for _ in range(chance.randint(1, min(size, 5)))]
    in_use = {tuple(each) for each in texts if chance.random() < 0.3}
    missing = chance.randint(-1, size)

    def build() -> mini.Cache:
        cache = mini.Cache(sum(mini.pages_for(len(each), page_size) for each in texts) + 1, page_size)
        for each in texts:
            (keep if tuple(each) in in_use else keep_alone)(cache, each)
        return cache

    def run(evict: Function) -> Drawn:
        cache = build()
        came = outcome(evict, cache, missing, refusals=(mini.OutOfPages,))
        seen = (
            {"asked to evict": came.get("it raised", "it did")}
            | see_trie(cache)
            | see_pool(cache)
            | {"pages, the oldest use first": [node.page for node in cache.by_use]}
        )
        return Drawn(
            seen, lambda: {"the trie before": draw_small_trie(build()), "the trie after": draw_small_trie(cache)}
        )

    cache = build()
    used = [node.page for _, node in nodes(cache) if cache.pool.ref_counts[node.page] > 1]
    order = [node.page for node in cache.by_use]
    busy = f"{used} are in use" if used else "none is in use"
    return Case(f"`evict(cache, {missing})`; cached, the least recently used first, are {order}; {busy}", run)


def _evict(cache: Any, num_pages: int) -> None:
    mini.evict(cache, num_pages)


EXERCISES = (
    Predict(
        number="7.1",
        title="tokens found, to the token",
        instance=_found,
        hints=(
            "Count only from the beginning, and remember which token must always run.",
            "The release brings in the last page as well, with the few tokens in it; and of a page that agrees in its "
            "first slots only, those count.",
        ),
    ),
    Build(
        number="7.3",
        kind="debug",
        name="insert",
        title="keep no page whose tokens the cache has",
        cases=_insertions,
        reference=_insert,
        hints=(
            "The number of a page says who computed it. What may be found again is what stands in it.",
            "Two requests that computed the same tokens have them in two pages. Look among the children for one that "
            "has `mine`, or more than `mine`.",
            "Then the other direction: when `mine` is kept, a child that holds only a part of it must go, by "
            "`forget(cache, child)`.",
        ),
    ),
    Build(
        number="7.4",
        name="match",
        title="the longest cached beginning, to the token",
        cases=_matches,
        reference=_match,
        hints=(
            "Walk down from `cache.roots.get(None)`, which may be None, and go at each step to the child that has most "
            "in common with what is left of the prompt.",
            "Go on below a child only if the whole page agreed. Of a page that agrees in its first slots, those are "
            "found, and the walk ends with it; one that agrees in none is not on the path.",
            "A partly filled page can agree to its end and still be no whole page: compare what agreed with "
            "`cache.page_size`.",
        ),
    ),
    Build(
        number="7.5",
        name="evict",
        title="the least recently used leaves, all or nothing",
        cases=_evictions,
        reference=_evict,
        hints=(
            "First choose, then forget: as long as you only choose, there is nothing to undo.",
            "`cache.by_use` has the least recently used node first. A node may be chosen if nobody else owns its page "
            "and all its children have been chosen already.",
            "`num_pages` may be 0 or less: then nothing goes. And stop choosing when there are enough.",
        ),
    ),
    Predict(
        number="7.6",
        title="tokens found, in whole blocks",
        instance=_whole_blocks,
        hints=(
            "One token at least must run, so at most all but the last can be found.",
            "In whole blocks: round that down to a multiple of 16.",
        ),
    ),
)
