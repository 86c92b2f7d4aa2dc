"""Chapter 15, layers of several kinds: what each group owns, how large a page is, where a hit ends, what goes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.small import draw_pool, pool_of
from kvpaged.figures.picture import Picture
from kvpaged.hybrid import FullAttention, GroupedKVCache, Kind, Recurrent, SlidingWindow, group_layers, page_size_for
from kvpaged.hybrid.prefix_cache import NULL_PAGE, GroupedPrefixCache
from kvpaged.page_table import pages_for


def _a_mix(chance: Random) -> Question:
    """A sequence in three groups, and one that follows it."""
    size, window = 4, chance.choice([6, 7, 9, 10, 11])
    num_tokens = size * chance.randint(4, 6) + chance.randint(1, size - 1)
    groups = group_layers([FullAttention(64), SlidingWindow(64, window), Recurrent(256)])
    cache = GroupedKVCache(groups, 64, size)
    first = cache.sequence(range(num_tokens))
    first.reserve(num_tokens)
    first.mark_computed(num_tokens)
    owned = tuple(len(table) - table.count(NULL_PAGE) for table in first.tables)
    first.release()
    second = cache.sequence(range(num_tokens + 3))
    found = sum(len(table) - table.count(NULL_PAGE) for table in second.tables)
    words = (
        f"A sequence has a group of full attention, one with a window of {window} and a recurrent one; pages hold "
        f"{size} tokens. {num_tokens} tokens are computed. How many pages does it own in each of the three groups? It "
        f"is released, and a request begins with the same {num_tokens} tokens and goes on. How many tokens does it "
        "find, and how many pages does it own before it computes anything? Five numbers."
    )
    return Question(words, (*owned, second.num_cached_tokens, found))


class _AskingPrefixCache(GroupedPrefixCache):
    """Keeps what a function says."""

    kept: Function

    def insert(self, path: Any, edge: bytes, page_ids: Sequence[int], cache_salt: Any) -> None:
        kinds = [kind for kind, _ in self.groups]
        super().insert(path, edge, self.kept(kinds, len(path), [*page_ids]), cache_salt)


def _rare_states(chance: Random, size: int) -> Case:
    """A text, computed in a memory that asks which pages it is to keep, and two prompts that begin with it."""
    page_size, num_tokens = chance.randint(1, 3), 0
    while num_tokens < page_size:
        num_tokens = chance.randint(1, page_size * (1 + size))
    kinds: list[Kind] = [FullAttention(64), SlidingWindow(64, window=chance.randint(2, 6)), Recurrent(256)]
    kinds = chance.sample(kinds, chance.randint(1, 3))
    shorter = chance.randint(1, num_tokens)

    def run(kept: Function) -> Seen:
        cache = GroupedKVCache(group_layers(kinds), 100, page_size)
        cache.prefix = _AskingPrefixCache(cache.pool, cache.groups, page_size)
        cache.prefix.kept = kept
        first = cache.sequence(range(num_tokens))
        first.reserve(num_tokens)
        first.mark_computed(num_tokens)
        first.release()
        pages = [node.pages for node, _, _ in cache.prefix.nodes()]
        return {
            "pages cached, of each group": [sum(map(bool, group)) for group in zip(*pages, strict=True)],
            "tokens found by a longer prompt": cache.sequence(range(num_tokens + 1)).num_cached_tokens,
            f"tokens found by its first {shorter}": cache.sequence(range(shorter)).num_cached_tokens,
            "what check() says": outcome(cache.check, refusals=(AssertionError,)).get("it raised", "all is well"),
        }

    names = ", ".join(type(kind).__name__ for kind in kinds)
    return Case(f"`kept` is asked for each full page; groups {names}, page size {page_size}, tokens {num_tokens}", run)


def _kept(kinds: Sequence[Kind], index: int, page_ids: Sequence[int]) -> list[int]:
    rare = index % 4 != 3
    pairs = zip(kinds, page_ids, strict=True)
    return [NULL_PAGE if rare and isinstance(kind, Recurrent) else page_id for kind, page_id in pairs]


def _a_state(chance: Random) -> Question:
    """A layer of attention and one with a state, and a drafter or none."""
    token_bytes = chance.choice([1024, 2048, 4096])
    state_bytes = chance.choice([16, 32, 48]) * 128 * 128 * chance.choice([2, 4]) + 2048 * chance.randint(20, 90)
    drafter = chance.random() < 0.5
    size = page_size_for([FullAttention(token_bytes), Recurrent(state_bytes)])
    drafters = "A drafter has the last page of a hit computed again" if drafter else "There is no drafter"
    words = (
        f"K and V of a token take {token_bytes:,} bytes in a layer of attention, a state takes {state_bytes:,} bytes, "
        f"and a page must be a multiple of 16 tokens. {drafters}. How many tokens has a page? How many bytes of it "
        "stay empty when it holds a state? A prompt is sent a second time: from which length on can it find anything?"
    )
    return Question(words, (size, size * token_bytes - state_bytes, (1 + drafter) * size + 1))


def _a_chunk(chance: Random, size: int) -> Case:
    """Some computed tokens of a layer that looks back to the beginning of its chunk."""
    page_size, chunk = chance.randint(1, 1 + size // 2), chance.randint(1, 2 * size)
    num_computed = chance.randint(0, 4 * size)

    def run(pages_kept: Function) -> Seen:
        found = pages_kept(num_computed, chunk, page_size)
        return {"logical pages": [*found] if isinstance(found, Iterable) else found}

    return Case(f"`pages_kept(num_computed={num_computed}, chunk={chunk}, page_size={page_size})`", run)


def _pages_kept(num_computed: int, chunk: int, page_size: int) -> list[int]:
    read = {token for token in range(num_computed) if token // chunk == num_computed // chunk}
    begun = {num_computed} if num_computed % page_size else set()
    return sorted({token // page_size for token in read | begun})


def _gaps(chance: Random, size: int) -> Case:
    """Of each group, which pages of a text are cached, and how far back its tokens read."""
    page_size, num_pages = chance.randint(1, 4), 1 + size // 2
    reaches = [chance.choice([1, 1 + chance.randrange(page_size * 2), 1000]) for _ in range(chance.randint(1, 3))]
    cached = [sorted(chance.sample(range(num_pages), chance.randint(num_pages // 2, num_pages))) for _ in reaches]

    def run(longest_hit: Function) -> Seen:
        return {"tokens found": longest_hit([set(pages) for pages in cached], [*reaches], page_size)}

    sets = ", ".join("{" + ", ".join(map(str, pages)) + "}" if pages else "set()" for pages in cached)
    return Case(f"`longest_hit([{sets}], reaches={reaches}, page_size={page_size})`", run)


def _longest_hit(cached: Sequence[set[int]], reaches: Sequence[int], page_size: int) -> int:
    def can_go_on(num_tokens: int) -> bool:
        return all(
            token // page_size in pages
            for pages, reach in zip(cached, reaches, strict=True)
            for token in range(max(0, num_tokens - reach), num_tokens)
        )

    num_pages = max((1 + page for pages in cached for page in pages), default=0)
    return max(num * page_size for num in range(num_pages + 1) if can_go_on(num * page_size))


def _a_window_moves(chance: Random, size: int) -> Case:
    """A table of a group with a window, some of which is given back already, and more tokens that are computed now."""
    if size < 4:  # first what deceives: a window of whole pages
        page_size = chance.choice([3, 4])
        window = page_size * chance.randint(1, 2)
    else:
        page_size, window = chance.randint(1, 4), chance.randint(1, 3 + size)
    before, num_computed = sorted(chance.randint(0, size + window) for _ in range(2))
    num_pages = pages_for(num_computed, page_size) + chance.randint(0, 1)  # one may be reserved for what comes
    gone = max(0, before - window + 1) // page_size
    ids = chance.sample(range(1, num_pages + 2), num_pages)
    table = [NULL_PAGE] * gone + ids[gone:]
    cached = {page for page in ids if chance.random() < 0.4}
    counts = [1] + [(page in table) + (page in cached) for page in range(1, num_pages + 2)]

    def run(give_back: Function) -> Drawn:
        pool, mine = pool_of(counts), [*table]
        give_back(pool, mine, num_computed, window, page_size)

        def draw() -> dict[str, Picture]:
            return {
                "the pool before": draw_pool(pool_of(counts), page_size, _holders(table)),
                "the pool after": draw_pool(pool, page_size, _holders(mine)),
            }

        return Drawn({"table afterwards": mine, "owners of each page afterwards": pool.ref_counts}, draw)

    words = (
        f"`give_back(pool, {table}, num_computed={num_computed}, window={window}, page_size={page_size})`, where the "
        f"pages have {counts} owners"
    )
    return Case(words, run)


def _holders(table: list[int]) -> dict[str, list[int]]:
    return {"null": [NULL_PAGE], "A": [page for page in table if page != NULL_PAGE]}


def _give_back(pool: Any, table: list[int], num_computed: int, window: int, page_size: int) -> None:
    read = range(max(0, num_computed - window + 1), num_computed + 1)  # the next token reads itself, too
    for index in range(len(table)):
        if (index + 1) * page_size <= read.start and table[index] != NULL_PAGE:
            mini.release(pool, table[index])
            table[index] = NULL_PAGE


EXERCISES = (
    Predict(
        number="15.1",
        title="what a mix of layers owns and finds",
        instance=_a_mix,
        hints=(
            "`needed` says what is owned: the pages from that of the first token read. In a window of w the next "
            "token, number n, reads tokens n - w + 1 to n - 1 of those computed.",
            "A hit ends where a page ends. How many full pages are there?",
            "At the end of the hit ask `needed` again, for each group: the next token is another, and so is the first "
            "that it reads.",
        ),
    ),
    Build(
        number="15.2",
        name="kept",
        title="a state at every fourth page",
        cases=_rare_states,
        reference=_kept,
        against="a prefix cache that keeps what is asked for",
        cases_per_size=12,
        hints=(
            "Only states are rare. `isinstance(kind, Recurrent)` says which pages are states.",
            "Pages are counted from 0, so the fourth is page 3, and the eighth page 7.",
            "Where `(index + 1) % 4` is not zero, 0 stands in the place of each state; all other page ids stay.",
        ),
    ),
    Predict(
        number="15.4",
        title="how large a page is, and who can hit",
        instance=_a_state,
        hints=(
            "A page must have room for a state. How many tokens of K and V are as large?",
            "Round that up to a multiple of 16 tokens. What the state does not fill stays empty.",
            "One token of a prompt must run. What can be found are whole pages of the others, and with a drafter one "
            "page less.",
        ),
    ),
    Build(
        number="15.6",
        name="pages_kept",
        title="a layer that looks back to the beginning of its chunk",
        cases=_a_chunk,
        reference=_pages_kept,
        against="a look at each token",
        hints=(
            "The next token is number `num_computed`. In which chunk is it, and where does that begin?",
            "At the beginning of a chunk nothing is read. The page that is begun stays all the same: the next token "
            "goes there.",
            "`range(first // page_size, pages_for(num_computed, page_size))` is right if `first` is the first token of "
            "the chunk.",
        ),
    ),
    Build(
        number="15.7",
        name="longest_hit",
        title="the longest beginning that suits every group",
        cases=_gaps,
        reference=_longest_hit,
        against="every possible end, tried on every token",
        hints=(
            "Not the shortest of what the groups find each for itself: where one of them can go on, another may have a "
            "gap.",
            "Try the ends one after another, the longest first. A group can go on after n tokens if the pages of "
            "tokens n - reach to n - 1 are cached, as far as there are such tokens.",
            "No tokens at all are an end after which every group can go on: it needs nothing.",
        ),
    ),
    Build(
        number="15.8",
        name="give_back",
        title="a window that gives back a page too many",
        kind="debug",
        cases=_a_window_moves,
        reference=_give_back,
        against="a look at each page",
        hints=(
            "With pages of 4, on how many pages can 4 tokens be that follow one another?",
            "A page at the end of the table may be reserved, and hold no computed token yet. So counting from the end "
            "of the table is a mistake anyway.",
            "Begin with the first token that the next one reads, `num_computed - window + 1`. All pages before its "
            "page go back.",
        ),
    ),
)
