"""The contiguous caches: all compute the same attention, and pay for it differently."""

from collections.abc import Callable

import pytest
import torch

from kvpaged.attention import naive_attention
from kvpaged.naive_cache import GrowingCache, NoCache, ReservedCache

LAYERS, KV_HEADS, HEADS, DIM = 2, 2, 4, 8
TOKEN_BYTES = 2 * LAYERS * KV_HEADS * DIM * 4

Cache = GrowingCache | ReservedCache


def growing() -> GrowingCache:
    return GrowingCache(LAYERS, KV_HEADS, DIM)


def reserved() -> ReservedCache:
    return ReservedCache(32, LAYERS, KV_HEADS, DIM)


def tokens(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(count, HEADS, DIM), torch.randn(count, KV_HEADS, DIM), torch.randn(count, KV_HEADS, DIM)


def feed(cache: Cache, count: int) -> None:
    for layer in range(LAYERS):
        cache.attend(layer, *tokens(count))


@pytest.mark.parametrize("make", [growing, reserved])
def test_attending_in_steps_gives_what_attending_at_once_gives(make: Callable[[], Cache]) -> None:
    torch.manual_seed(0)
    whole = [tokens(20) for _ in range(LAYERS)]
    expected = [naive_attention(*(x.double() for x in layer)) for layer in whole]
    cache = make()
    for start, stop in ((0, 7), (7, 8), (8, 12), (12, 20)):
        for layer, (query, keys, values) in enumerate(whole):
            output = cache.attend(layer, query[start:stop], keys[start:stop], values[start:stop])
            assert (output - expected[layer][start:stop]).abs().max() < 1e-6
        assert len(cache) == stop


def test_no_cache_attends_among_the_tokens_it_is_given_and_keeps_nothing() -> None:
    cache = NoCache()
    query, keys, values = tokens(9)
    output = cache.attend(0, query, keys, values)
    assert (output - naive_attention(query.double(), keys.double(), values.double())).abs().max() < 1e-6
    assert len(cache) == cache.num_bytes == cache.bytes_copied == 0
    assert cache.clone().bytes_copied == 0


def test_a_growing_cache_holds_what_it_stores_and_copies_it_all_at_each_step() -> None:
    cache = growing()
    for _ in range(5):
        feed(cache, 1)
    assert len(cache) == 5
    assert cache.num_bytes == 5 * TOKEN_BYTES
    assert cache.bytes_copied == (0 + 1 + 2 + 3 + 4) * TOKEN_BYTES


def test_a_reserved_cache_holds_its_reservation_from_the_start_and_never_moves_it() -> None:
    cache = reserved()
    assert (len(cache), cache.num_bytes) == (0, 32 * TOKEN_BYTES)
    for _ in range(5):
        feed(cache, 1)
    assert (len(cache), cache.num_bytes, cache.bytes_copied) == (5, 32 * TOKEN_BYTES, 0)


def test_a_full_reservation_refuses_more_and_stays_as_it_was() -> None:
    cache = reserved()
    feed(cache, 30)
    with pytest.raises(ValueError, match="room for 32 tokens and holds 30: 3 more do not fit; reserve at least 33"):
        feed(cache, 3)
    feed(cache, 2)
    assert len(cache) == 32


@pytest.mark.parametrize("make", [growing, reserved])
def test_a_branch_copies_every_token_and_then_goes_its_own_way(make: Callable[[], Cache]) -> None:
    cache = make()
    feed(cache, 6)
    branch = cache.clone()
    assert len(branch) == 6
    assert branch.num_bytes == cache.num_bytes
    assert branch.bytes_copied == 6 * TOKEN_BYTES
    feed(cache, 1)
    assert (len(cache), len(branch)) == (7, 6)


@pytest.mark.parametrize("make", [growing, reserved])
def test_what_a_branch_stores_is_not_seen_by_its_parent(make: Callable[[], Cache]) -> None:
    cache = make()
    feed(cache, 6)
    branch, twin = cache.clone(), cache.clone()
    feed(branch, 3)
    query, keys, values = tokens(1)
    assert torch.equal(cache.attend(0, query, keys, values), twin.attend(0, query, keys, values))


@pytest.mark.parametrize("make", [growing, reserved])
def test_tokens_that_do_not_fit_are_refused_and_nothing_is_stored(make: Callable[[], Cache]) -> None:
    cache = make()
    feed(cache, 2)
    query, keys, values = tokens(1)
    copied = cache.bytes_copied
    with pytest.raises(ValueError, match=r"keys have shape \(1, 1, 8\), expected \(n, 2, 8\)"):
        cache.attend(0, query, keys[:, :1], values)
    with pytest.raises(ValueError, match=r"values have shape \(1, 2, 4\), expected \(n, 2, 8\)"):
        cache.attend(0, query, keys, values[:, :, :4])
    with pytest.raises(TypeError, match=r"values are torch.float16, the cache holds torch.float32"):
        cache.attend(0, query, keys, values.half())
    with pytest.raises(ValueError, match="query has 3 heads"):
        cache.attend(0, query[:, :3], keys, values)
    assert (len(cache), cache.bytes_copied) == (2, copied)
    feed(cache, 1)
    assert len(cache) == 3
