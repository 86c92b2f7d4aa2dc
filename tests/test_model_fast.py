"""The fast decoder: what the textbook's computes, with the same bits in whatever company."""

import ctypes
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvpaged.attention import contiguous_attention
from kvpaged.model import Decoder, ModelConfig, fast, large_pages, load_model
from kvpaged.model.fast import FastDecoder
from kvpaged.naive_cache import NoCache

# No size is a multiple of a vector's lanes, or of an item's outputs, but for the heads', which the kernel asks for.
ODD = ModelConfig(
    vocab_size=211, hidden_size=74, intermediate_size=101, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=16,
    max_position_embeddings=96,
)  # fmt: skip
ROWS = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 70]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 2e-1}


def decoder(config: ModelConfig = ODD, dtype: torch.dtype = torch.float32) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config).to(dtype).requires_grad_(False)


def made(model: Decoder) -> FastDecoder:
    found = fast.fast(model)
    assert isinstance(found, FastDecoder)
    return found


def tokens(count: int, vocab_size: int = ODD.vocab_size) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(vocab_size, (count,), generator=generator), torch.randperm(90, generator=generator)[:count]


def apart(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of tokens that see themselves alone: what is left are the layers."""
    return values.repeat_interleave(query.shape[1] // values.shape[1], dim=1) + query


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("count", [1, 4, 33])
def test_it_computes_what_the_textbooks_decoder_computes(count: int, dtype: torch.dtype) -> None:
    model = decoder(dtype=dtype)
    at = torch.arange(0, count, 3)
    ids, _ = tokens(count)
    positions = torch.arange(count)
    expected = model(ids, positions, NoCache().attend, at)
    found = made(model)(ids, positions, NoCache().attend, at)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert (found - expected.float()).abs().max() < TOLERANCE[dtype]
    exact = decoder().to(torch.float64)(ids, positions, _in_double, at)
    assert (found - exact).abs().max() < TOLERANCE[dtype]


def _in_double(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return contiguous_attention(query, keys, values)


def test_the_recall_model_has_a_fast_form_that_gives_its_logits() -> None:
    model = load_model("recall")
    ids, _ = tokens(60, model.config.vocab_size)
    expected = model(ids, torch.arange(60), NoCache().attend)
    found = made(model)(ids, torch.arange(60), NoCache().attend)
    assert (found - expected).abs().max() < 1e-3
    assert torch.equal(found.argmax(dim=-1), expected.argmax(dim=-1))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_row_gets_the_same_bits_wherever_it_stands_among_any_number_by_any_number_of_threads(
    dtype: torch.dtype,
) -> None:
    model = made(decoder(dtype=dtype))
    ids, positions = tokens(70)
    alone = torch.cat([model(ids[i : i + 1], positions[i : i + 1], apart) for i in range(70)])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        for rows in ROWS:
            for first in (0, 70 - rows):
                there = slice(first, first + rows)
                assert torch.equal(model(ids[there], positions[there], apart), alone[there])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 69), min_size=1, max_size=40), st.data())
def test_neither_neighbours_nor_the_rows_wanted_change_a_bit(order: list[int], data: st.DataObject) -> None:
    model = made(decoder())
    ids, positions = tokens(70)
    every = model(ids, positions, apart)
    wanted = torch.tensor(data.draw(st.lists(st.sampled_from(range(len(order))), min_size=1, unique=True)))
    at = torch.tensor(order)
    assert torch.equal(model(ids[at], positions[at], apart, wanted), every[at][wanted])


def test_a_number_that_is_none_stays_with_its_token() -> None:
    model = made(decoder())
    ids, positions = tokens(20)

    def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = apart(layer, query, keys, values)
        output[7] = float("nan")
        return output

    found, expected = model(ids, positions, attend), model(ids, positions, apart)
    others = torch.arange(20) != 7
    assert found[7].isnan().all()
    assert torch.equal(found[others], expected[others])


def test_it_reads_the_weights_where_they_are() -> None:
    model = decoder()
    ids, positions = tokens(5)
    quick = made(model)
    before = quick(ids, positions, apart)
    model.layers[0].mlp.down_proj.weight.mul_(3)
    after = quick(ids, positions, apart)
    assert not torch.equal(after, before)
    assert (after - model(ids, positions, apart)).abs().max() < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such call")
def test_weights_are_asked_into_large_pages_whole_and_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    honest = ctypes.CDLL(None).madvise

    def noted(first: int, size: int, advice: int) -> int:
        asked.append((first, first + size, advice))
        return int(honest(ctypes.c_void_p(first), ctypes.c_size_t(size), advice))

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(madvise=noted))
    weights = [torch.randn(rows, 1000) for rows in (2000, 100, 3000)]
    before = [(weight.data_ptr(), weight.clone()) for weight in weights]
    monkeypatch.setattr(large_pages.sys, "platform", "elsewhere")
    large_pages.ask_for_large_pages(weights)
    assert not asked
    monkeypatch.setattr(large_pages.sys, "platform", "linux")
    large_pages.ask_for_large_pages(weights)
    assert [advice for *_, advice in asked] == [large_pages.WANTED] * 3 + [large_pages.NOW] * 3
    for (first, stop, _), weight in zip(asked, weights * 2, strict=True):
        assert first % large_pages.LARGE == stop % large_pages.LARGE == 0
        assert 0 <= weight.data_ptr() - first < large_pages.LARGE
        assert 0 <= stop - weight.data_ptr() - weight.nbytes < large_pages.LARGE
    for weight, (address, numbers) in zip(weights, before, strict=True):
        assert weight.data_ptr() == address
        assert torch.equal(weight, numbers)


def test_a_decoder_has_one_fast_form_and_another_model_none() -> None:
    model = decoder()
    assert fast.fast(model) is fast.fast(model)
    assert fast.fast(fast.fast(model)) is fast.fast(model)

    class Mine(Decoder):
        pass

    mine = Mine(ODD)
    assert fast.fast(mine) is mine


def test_a_decoder_that_cannot_have_one_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast._say.cache_clear()
    small = decoder(replace(ODD, head_dim=8))
    with caplog.at_level(logging.WARNING):
        assert fast.fast(small) is small
        assert fast.fast(decoder(replace(ODD, head_dim=8))) is not None
    assert [record.getMessage() for record in caplog.records] == [
        "this decoder has no fast form (head_dim is 8, and the kernel serves multiples of 16): "
        "the last bits of its results may depend on what else a batch holds"
    ]
    monkeypatch.setattr(fast, "has_numba", lambda: False)
    plain, double = decoder(), decoder().double()
    assert fast.fast(plain) is plain
    monkeypatch.undo()
    assert fast.fast(double) is double
    assert len(caplog.records) == 2  # that there is no kernel is said by the room that looks for one
    assert "its weights are torch.float64" in caplog.text


def test_the_room_imports_numba_no_sooner_than_it_computes() -> None:
    code = "import sys, kvpaged.model.fast, kvpaged.engine; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_kernel_does_not_serve_is_refused_and_so_are_tokens_without_positions() -> None:
    with pytest.raises(ValueError, match="has no fast form: call fast"):
        FastDecoder(decoder(replace(ODD, head_dim=8)))
    with pytest.raises(ValueError, match="tokens: 2, positions: 1: give each token its own"):
        made(decoder())(torch.tensor([1, 2]), torch.tensor([0]), NoCache().attend)
