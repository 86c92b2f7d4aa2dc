"""Hits of the grouped prefix cache against a brute-force oracle.

The oracle knows no tries and no runs of pages. It keeps a set of (group, salt, tokens up to the end of a page), and
asks of each possible end, token by token, whether all that the next token reads is in the set.
"""

import random
from collections import Counter

from kvpaged import PagePool
from kvpaged.hybrid import FullAttention, Kind, Recurrent, SlidingWindow, group_layers
from kvpaged.hybrid.prefix_cache import NULL_PAGE, GroupedPrefixCache
from kvpaged.tokens import pack

Cached = set[tuple[int, object, tuple[int, ...]]]
KINDS = [FullAttention(1), *(SlidingWindow(1, window) for window in (2, 3, 5, 9, 14)), Recurrent(1), Recurrent(2)]


def reads(kind: Kind, token: int) -> list[int]:
    """The tokens before `token` whose K and V, or state, it reads: the definition of each kind."""
    if isinstance(kind, SlidingWindow):
        return [earlier for earlier in range(token) if token - earlier < kind.window]
    if isinstance(kind, Recurrent):
        return [token - 1] if token else []
    return list(range(token))


def longest_hit(kinds: list[Kind], size: int, cached: Cached, tokens: list[int], salt: object, recomputed: int) -> int:
    """By brute force, in tokens."""
    ends = [
        end
        for end in range(0, len(tokens) + 1, size)
        if all(
            (group, salt, tuple(tokens[: (earlier // size + 1) * size])) in cached
            for group, kind in enumerate(kinds)
            for earlier in reads(kind, end)
        )
    ]
    return max([end for end in ends if end <= ends[-1] - recomputed * size], default=0)


def one_case(seed: int) -> tuple[int, int]:
    """Cache random pages of random groups, then look something up: the hit that we find, and the oracle's."""
    rng = random.Random(seed)
    kinds = rng.sample(KINDS, rng.randint(1, 4))
    size, recomputed = rng.randint(1, 4), rng.choice([0, 0, 0, 1, 2])
    pool = PagePool(700)
    prefix = GroupedPrefixCache(pool, group_layers(kinds), size, recomputed)
    pool.allocate()  # the null page
    cached: Cached = set()
    density = rng.choice([0.6, 0.9, 0.98, 1.0])

    def some_tokens() -> list[int]:
        return [int(rng.random() < 0.04) for _ in range(rng.randint(1, 32))]

    for _ in range(rng.randint(1, 5)):
        tokens, salt, path = some_tokens(), rng.choice([None, None, "salt"]), []
        for start in range(0, len(tokens) - size + 1, size):
            pages = [pool.allocate() if rng.random() < density else NULL_PAGE for _ in kinds]
            prefix.insert(path, pack(tokens[start : start + size]), pages, salt)
            cached |= {(g, salt, tuple(tokens[: start + size])) for g, page in enumerate(pages) if page != NULL_PAGE}
            pool.release_many(page for page in pages if page != NULL_PAGE)
    assert len(prefix) == len(cached) == pool.num_used - 1
    tokens, salt = some_tokens(), rng.choice([None, None, "salt"])
    return len(prefix.match(tokens, salt)) * size, longest_hit(kinds, size, cached, tokens, salt, recomputed)


def compare(num_cases: int, first: int = 0) -> Counter[int]:
    """How often each length was hit. Raises AssertionError, naming the seed, where the two differ."""
    found: Counter[int] = Counter()
    for seed in range(first, first + num_cases):
        ours, theirs = one_case(seed)
        assert ours == theirs, f"seed {seed}: we find {ours} tokens, the oracle {theirs}"
        found[ours] += 1
    return found
