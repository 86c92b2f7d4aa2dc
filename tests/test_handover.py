"""Pages handed over from a machine that computes prompts to one that answers, and through a file: the same bits."""

import pickle
from pathlib import Path

import pytest
import torch

from kvpaged import PagedKVCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig, load_model
from kvpaged.model.compute import compute, open_storage
from kvpaged.page import PageStorage
from kvpaged.poison import PoisonedStorage, PoisonError
from kvpaged.quantised import TailStorage, TokenStorage
from kvpaged.tier import RecordFile, Tier, TieredKVCache, put_in, take_out
from kvpaged.tier.fingerprint import fingerprint
from support.faults import Countdown, InjectedError

SMALL = ModelConfig(
    vocab_size=97, hidden_size=40, intermediate_size=72, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    max_position_embeddings=512,
)  # fmt: skip
PROMPT = [(7 * token * token + 3) % 97 for token in range(45)]
PARAMS = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True, hash_logits=True)


def model(dtype: torch.dtype = torch.float32, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    return Decoder(SMALL).requires_grad_(False).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_page_that_was_dumped_is_loaded_with_the_same_bits(dtype: torch.dtype) -> None:
    storage = PageStorage(4, 8, 2, 3, 16, dtype)
    for layer in range(2):
        storage.keys(layer)[1] = torch.randn(3, 8, 16).to(dtype)
        storage.values(layer)[1] = torch.randn(3, 8, 16).to(dtype)
    data = storage.dump(1)
    assert len(data) == storage.bytes_per_page
    storage.load(3, data)
    assert torch.equal(storage[3].keys, storage[1].keys)
    assert torch.equal(storage[3].values, storage[1].values)
    assert not storage[2].keys.any()


def test_what_is_no_page_is_neither_dumped_nor_loaded() -> None:
    storage = PageStorage(4, 8, 2, 3, 16)
    with pytest.raises(IndexError, match="page 4 does not exist"):
        storage.dump(4)
    with pytest.raises(IndexError, match="page -1 does not exist"):
        storage.load(-1, bytes(storage.bytes_per_page))
    with pytest.raises(ValueError, match="6,143 bytes are given, and a page here has 6,144"):
        storage.load(0, bytes(storage.bytes_per_page - 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("poisoned", [False, True])
def test_one_engine_computes_the_prompt_another_answers_and_no_bit_differs(dtype: torch.dtype, poisoned: bool) -> None:
    weights = model(dtype)
    [alone] = Engine(weights, page_size=8).generate([PROMPT], PARAMS)
    first, second = (Engine(weights, page_size=8, poisoned=poisoned) for _ in range(2))
    first.generate([PROMPT], SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True))
    parcel = pickle.loads(pickle.dumps(take_out(first.cache, PROMPT)))
    assert put_in(second.cache, parcel) == len(PROMPT)
    for engine in (first, second):
        engine.cache.check()
        assert not len(engine.cache.transfers)
    [output] = second.generate([PROMPT], PARAMS)
    assert output.num_cached_tokens == len(PROMPT) - 1
    assert output.outputs[0].tokens == alone.outputs[0].tokens
    assert output.outputs[0].logits_hash == alone.outputs[0].logits_hash


def served(cache: PagedKVCache, weights: Decoder, prompt: list[int]) -> tuple[int, torch.Tensor]:
    """How much of a prompt was found, and the logits of its last token."""
    sequence = cache.sequence(prompt)
    logits = compute(weights, cache, sequence)
    sequence.release()
    cache.check()
    return sequence.num_cached_tokens, logits


def test_pages_that_went_through_a_file_give_the_same_bits(tmp_path: Path) -> None:
    weights = model()
    _, expected = served(PagedKVCache(40, 8, storage=open_storage(weights, 40, 8)), weights, PROMPT)
    for _ in range(2):  # the second time from what the first has left in the file
        storage = open_storage(weights, 6, 8)
        records = RecordFile(tmp_path / "tier", 20, 1000, storage.bytes_per_page)
        cache = TieredKVCache(6, 8, Tier(records, 8, fingerprint(weights, storage)), storage=storage)
        served(cache, weights, PROMPT)
        served(cache, weights, PROMPT[::-1])
        found, logits = served(cache, weights, PROMPT)
        assert found >= 40
        assert torch.equal(logits, expected)
        assert cache.tier.num_read >= 5


def test_a_fingerprint_tells_weights_apart_whatever_differs() -> None:
    page = PageStorage(1, 8, 2, 2, 16)
    names = {fingerprint(each, page) for each in (model(), model(seed=1), model(torch.bfloat16), load_model("recall"))}
    assert len(names) == 4
    assert fingerprint(model(), page) == fingerprint(model(), page)
    changed = model()
    changed.lm_head.weight[3, 3] += 1e-6
    assert fingerprint(changed, page) != fingerprint(model(), page)


def test_a_fingerprint_tells_kinds_of_pages_apart_and_a_poisoned_one_is_of_the_kind_that_it_watches() -> None:
    shape, weights = (1, 8, 2, 2, 16), model()
    kinds: list[PageStorage] = [PageStorage(*shape, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    for width in (8, 4, 2):
        kinds += [TokenStorage(*shape, bits=width), TailStorage(*shape, bits=width, keys="token")]
        kinds += [TailStorage(*shape, bits=width), TailStorage(*shape, bits=width, keys="token", values="channel")]
    assert len({fingerprint(weights, each) for each in kinds}) == len(kinds) == 15
    assert fingerprint(weights, PoisonedStorage(*shape)) == fingerprint(weights, kinds[0])


def computed(num_pages: int = 8) -> tuple[PagedKVCache, Decoder]:
    weights = model()
    cache = PagedKVCache(num_pages, 8, storage=open_storage(weights, num_pages, 8))
    served(cache, weights, PROMPT)
    return cache, weights


def test_a_parcel_of_other_weights_is_refused() -> None:
    cache, _ = computed()
    parcel = take_out(cache, PROMPT, computed_by=b"one")
    with pytest.raises(ValueError, match="of other weights or another kind: load the same on both sides"):
        put_in(cache, parcel, computed_by=b"other")


def test_a_parcel_for_other_pages_is_refused_and_every_page_given_back() -> None:
    cache, weights = computed()
    other = PagedKVCache(8, 16, storage=open_storage(weights, 8, 16))
    with pytest.raises(ValueError, match="bytes are given, and a page here has"):
        put_in(other, take_out(cache, PROMPT))
    other.check()
    assert other.pool.num_used == 0


def test_a_page_that_arrives_damaged_is_left_out_with_all_after_it() -> None:
    cache, weights = computed()
    parcel = take_out(cache, PROMPT)
    parcel.pages[2] = bytes([parcel.pages[2][0] ^ 1]) + parcel.pages[2][1:]
    other = PagedKVCache(8, 8, storage=open_storage(weights, 8, 8))
    assert put_in(other, parcel) == 16
    assert served(other, weights, PROMPT)[0] == 16


def test_books_alone_have_nothing_to_hand_over() -> None:
    with pytest.raises(ValueError, match="keeps books only: there are no bytes to hand over"):
        take_out(PagedKVCache(4, 4), [1, 2, 3])


def test_every_step_of_a_hand_over_fails_once_and_both_sides_keep_the_law() -> None:
    at = 0
    while True:
        at += 1
        cache, weights = computed()
        other = PagedKVCache(8, 8, storage=open_storage(weights, 8, 8))
        countdown = Countdown(at)
        for storage, name in ((cache.storage, "dump"), (other.storage, "load")):
            honest = getattr(storage, name)
            setattr(storage, name, lambda *args, honest=honest, c=countdown: (c.use(), honest(*args))[1])
        try:
            assert put_in(other, take_out(cache, PROMPT)) == len(PROMPT)
        except InjectedError:
            for each in (cache, other):
                each.check()
                assert not len(each.transfers)
            assert other.pool.num_used == 0
            assert put_in(other, take_out(cache, PROMPT)) == len(PROMPT)
            continue
        assert at == 13  # six pages out, six pages in, and none failed
        return


def test_a_poisoned_storage_catches_who_moves_a_page_that_is_not_his() -> None:
    storage = PoisonedStorage(4, 8, 2, 2, 16)
    cache = PagedKVCache(4, 8, storage=storage)
    storage.watch(cache)
    with pytest.raises(PoisonError, match="page 2 is read out, and it is free: use after release"):
        storage.dump(2)
    data = bytes(storage.bytes_per_page)
    with pytest.raises(PoisonError, match="page 2 is filled, but it is in use by nobody"):
        storage.load(2, data)
    sequence = cache.sequence([1, 2, 3])
    with pytest.raises(PoisonError, match="page 0 is filled, but it is in use by sequence 0"):
        storage.load(0, data)
    sequence.release()
