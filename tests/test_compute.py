"""One sequence through the decoder: pages, contiguous caches and no cache give the same tokens."""

import random
from dataclasses import replace

import pytest
import torch

from kvpaged import PagedKVCache
from kvpaged.model import Decoder, ModelConfig, load_model
from kvpaged.model.compute import compute, generate_cached, generate_naive, generate_paged, open_storage
from kvpaged.naive_cache import GrowingCache, ReservedCache

MODEL = load_model("recall")
CONFIG = MODEL.config
SHAPE = (CONFIG.num_layers, CONFIG.num_kv_heads, CONFIG.head_dim)
NUM_PAGES = 128


def paged_cache(page_size: int) -> PagedKVCache:
    return PagedKVCache(NUM_PAGES, page_size, storage=open_storage(MODEL, NUM_PAGES, page_size))


def random_prompt(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1, CONFIG.vocab_size) for _ in range(length)]


def poisoned(cache: PagedKVCache) -> PagedKVCache:
    """Every slot that is read before it is written turns the logits into NaN."""
    for layer in range(CONFIG.num_layers):
        cache.storage.keys(layer).fill_(float("nan"))
        cache.storage.values(layer).fill_(float("nan"))
    return cache


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 16, 33, 64])
def test_pages_contiguous_caches_and_no_cache_give_the_same_tokens(page_size: int) -> None:
    cache = poisoned(paged_cache(page_size))
    for seed, length in enumerate((1, 15, 16, 17, 40)):
        prompt = random_prompt(seed, length)
        expected = generate_naive(MODEL, prompt, 20)
        assert generate_paged(MODEL, cache, prompt, 20) == expected
        assert generate_cached(MODEL, prompt, 20, GrowingCache(*SHAPE)) == expected
        assert generate_cached(MODEL, prompt, 20, ReservedCache(60, *SHAPE)) == expected
        cache.check()


def test_a_second_run_reuses_the_first_ones_pages_and_still_gives_the_same_tokens() -> None:
    cache = poisoned(paged_cache(4))
    prompt = random_prompt(0, 30)
    expected = generate_paged(MODEL, cache, prompt, 10)
    sequence = cache.sequence(prompt)
    assert sequence.num_cached_tokens == 29
    sequence.release()
    assert generate_paged(MODEL, cache, prompt, 10) == expected


def test_compute_runs_only_what_is_not_computed_yet() -> None:
    cache = poisoned(paged_cache(4))
    sequence = cache.sequence([5, 6, 7, 8, 9])
    lengths = []
    hook = MODEL.embed_tokens.register_forward_hook(lambda module, args, output: lengths.append(len(args[0])))
    try:
        logits = compute(MODEL, cache, sequence)
        sequence.append(10)
        compute(MODEL, cache, sequence)
    finally:
        hook.remove()
    assert lengths == [5, 1]
    assert logits.shape == (CONFIG.vocab_size,)
    assert logits.isfinite().all()
    with pytest.raises(ValueError, match="all 6 tokens of sequence 0 are computed: append the next token first"):
        compute(MODEL, cache, sequence)


def test_a_fork_that_goes_its_own_way_gets_the_tokens_it_would_get_alone() -> None:
    cache = poisoned(paged_cache(4))
    parent = cache.sequence(random_prompt(1, 10))
    compute(MODEL, cache, parent)
    child = parent.fork()
    for sequence, token in ((parent, 11), (child, 22)):
        sequence.append(token)
        logits = compute(MODEL, cache, sequence)
        alone = paged_cache(4)
        expected = compute(MODEL, alone, alone.sequence(sequence.tokens))
        assert (logits - expected).abs().max() < 1e-3
        assert logits.argmax() == expected.argmax()
    cache.check()


def test_generation_gives_its_pages_back_even_when_the_pool_runs_dry() -> None:
    cache = PagedKVCache(3, 4, prefix_caching=False, storage=open_storage(MODEL, 3, 4))
    with pytest.raises(RuntimeError, match="asked for 1 page"):
        generate_paged(MODEL, cache, random_prompt(3, 11), 300)
    assert cache.pool.num_used == 0


def test_generation_ends_at_eos_and_where_the_context_ends() -> None:
    config = ModelConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8,
        max_position_embeddings=24,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Decoder(config)
    prompt = [1, 2, 3, 4]
    endless = generate_naive(model, prompt, 100)
    assert len(endless) == 20
    eos = endless[7]
    model.config = replace(config, eos_token_id=eos)
    ended = endless[: endless.index(eos) + 1]
    cache = PagedKVCache(8, 4, storage=open_storage(model, 8, 4))
    assert generate_naive(model, prompt, 100) == ended
    assert generate_paged(model, cache, prompt, 100) == ended
    assert generate_naive(model, prompt, 0) == []


def test_a_cache_without_storage_computes_nothing() -> None:
    cache = PagedKVCache(8, 4)
    with pytest.raises(ValueError, match="open it with storage"):
        compute(MODEL, cache, cache.sequence([1, 2]))


def test_a_sequence_of_another_cache_or_one_that_is_released_is_refused() -> None:
    ours, other = (PagedKVCache(8, 4, storage=open_storage(MODEL, 8, 4)) for _ in range(2))
    compute(MODEL, ours, ours.sequence([3, 4, 5]))
    before, stranger = ours.storage.keys(0).clone(), other.sequence([1, 2])
    with pytest.raises(ValueError, match="is no live sequence of this cache: give the cache that began it"):
        compute(MODEL, ours, stranger)
    stranger.release()
    with pytest.raises(ValueError, match="is no live sequence"):
        compute(MODEL, other, stranger)
    assert torch.equal(ours.storage.keys(0), before)
