"""A pass over tokens of many sequences, each attending to its own."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kvpaged import PagedKVCache
from kvpaged.attention import contiguous_attention
from kvpaged.page import PageStorage
from kvpaged.paged_step import SHORT, PagedStep, Span

HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE = 4, 2, 16, 4
Packed = tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor, int]
# (tokens computed before, tokens of this span): whole prompts, later parts of prompts, guesses, decodes
SPANS = [(0, 9), (0, 40), (8, 9), (30, 61), (0, 1), (17, 1), (5, SHORT), (40, 3)]


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
    """Of each span the query, and all K and V of its sequence; the output of all; and torch's calls."""
    torch.manual_seed(0)
    storage = PageStorage(128, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
    for pages in (storage.keys(0), storage.values(0)):
        pages.fill_(float("nan"))
    cache = PagedKVCache(128, PAGE_SIZE, prefix_caching=False, storage=storage)
    spans, parts = [], []
    for start, count in SPANS:
        sequence = cache.sequence(range(start + count))
        keys, values = torch.randn(2, start + count, KV_HEADS, HEAD_DIM)
        storage.write(0, sequence.slot_mapping(0, start), keys[:start], values[:start])
        sequence.mark_computed(start)
        spans.append(Span(sequence, start, start + count))
        parts.append((torch.randn(count, HEADS, HEAD_DIM), keys, values))
    query = torch.cat([part[0] for part in parts])
    keys, values = (torch.cat([part[i][-len(part[0]) :] for part in parts]) for i in (1, 2))
    with Attention() as attention:
        output = PagedStep(storage, spans).attend(0, query, keys, values)
    return parts, output, attention.calls


def test_prompts_of_different_lengths_get_bit_for_bit_what_contiguous_attention_gives(packed: Packed) -> None:
    parts, output, _ = packed
    row, compared = 0, 0
    for query, keys, values in parts:
        if len(query) > SHORT:
            assert torch.equal(output[row : row + len(query)], contiguous_attention(query, keys, values))
            compared += 1
        row += len(query)
    assert compared == sum(count > SHORT for _, count in SPANS) == 4


def test_decodes_and_guesses_see_their_own_sequence_up_to_themselves(packed: Packed) -> None:
    parts, output, _ = packed
    row = 0
    for query, keys, values in parts:
        expected = contiguous_attention(query.double(), keys.double(), values.double())
        assert (output[row : row + len(query)] - expected).abs().max() < 1e-6
        row += len(query)
    assert row == len(output)


def test_a_prompt_costs_one_call_of_attention_however_many_tokens_it_has(packed: Packed) -> None:
    *_, calls = packed
    assert calls == sum(count > SHORT for _, count in SPANS)


def test_what_is_computed_already_is_not_written_again() -> None:
    storage = PageStorage(8, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
    sequence = PagedKVCache(8, PAGE_SIZE, storage=storage).sequence(range(7))
    sequence.mark_computed(5)
    ones = torch.ones(7, KV_HEADS, HEAD_DIM)
    PagedStep(storage, [Span(sequence, 0, 7)]).write(0, ones, ones)
    keys, _ = storage.read(0, sequence.table)
    assert keys[:, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 1]
