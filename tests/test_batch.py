"""The packed batch: tokens of many sequences in one pass, each attending to its own."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kvpaged import PagedKVCache
from kvpaged.attention import contiguous_attention
from kvpaged.engine.batch import SHORT, Batch, Chunk, pack
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampling_params import SamplingParams
from kvpaged.page import PageStorage

HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE = 4, 2, 16, 4
Packed = tuple[Batch, list[tuple[Tensor, Tensor, Tensor]], Tensor, int]
# (tokens computed before, tokens of this chunk): whole prompts, later chunks of prompts, guesses, decodes
CHUNKS = [(0, 9), (0, 40), (8, 9), (30, 61), (0, 1), (17, 1), (5, SHORT), (40, 3)]


class Attention(TorchDispatchMode):
    """Counts the calls of torch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += "scaled_dot_product" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def packed() -> Packed:
    """A batch, each of its chunks' query with all K and V of the sequence, the output, and torch's calls."""
    torch.manual_seed(0)
    storage = PageStorage(128, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
    for pages in (storage.keys(0), storage.values(0)):
        pages.fill_(float("nan"))
    cache = PagedKVCache(128, PAGE_SIZE, prefix_caching=False, storage=storage)
    chunks, told = [], {}
    for index, (start, count) in enumerate(CHUNKS):
        branch = Branch(_request(index), 0)
        branch.sequence = cache.sequence(range(start + count))
        keys, values = torch.randn(2, start + count, KV_HEADS, HEAD_DIM)
        storage.write(0, branch.sequence.slot_mapping(0, start), keys[:start], values[:start])
        chunks.append(Chunk(branch, start, start + count))
        told[branch] = torch.randn(count, HEADS, HEAD_DIM), keys, values
    batch = pack(chunks, storage)
    parts = [told[chunk.branch] for chunk in batch.chunks]
    query = torch.cat([part[0] for part in parts])
    keys, values = (torch.cat([part[i][-len(part[0]) :] for part in parts]) for i in (1, 2))
    with Attention() as attention:
        output = batch.attend(0, query, keys, values)
    return batch, parts, output, attention.calls


def _request(index: int) -> Request:
    return Request(index, index, None, [0], SamplingParams(), frozenset(), 1, None, None)


def test_prompts_of_different_lengths_get_bit_for_bit_what_contiguous_attention_gives(packed: Packed) -> None:
    batch, parts, output, _ = packed
    row, compared = 0, 0
    for chunk, (query, keys, values) in zip(batch.chunks, parts, strict=True):
        if not chunk.is_short:
            assert torch.equal(output[row : row + len(query)], contiguous_attention(query, keys, values))
            compared += 1
        row += len(query)
    assert compared == sum(count > SHORT for _, count in CHUNKS) == 4


def test_decodes_and_guesses_see_their_own_sequence_up_to_themselves(packed: Packed) -> None:
    batch, parts, output, _ = packed
    row = 0
    for query, keys, values in parts:
        expected = contiguous_attention(query.double(), keys.double(), values.double())
        assert (output[row : row + len(query)] - expected).abs().max() < 1e-6
        row += len(query)
    assert row == len(output) == len(batch.tokens)


def test_a_prompt_costs_one_call_of_attention_however_many_tokens_it_has(packed: Packed) -> None:
    *_, calls = packed
    assert calls == sum(count > SHORT for _, count in CHUNKS)
