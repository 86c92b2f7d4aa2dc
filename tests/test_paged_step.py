"""A pass over tokens of many sequences, each attending to its own."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kvpaged import PagedKVCache
from kvpaged.attention import contiguous_attention
from kvpaged.page import PageStorage
from kvpaged.paged_step import PagedStep, Span

HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE = 4, 2, 16, 4
# (tokens computed before, tokens of this span): whole prompts, later parts of prompts, guesses, decodes
SPANS = [(0, 9), (0, 40), (8, 9), (30, 61), (0, 1), (17, 1), (5, 8), (40, 3), (1100, 2)]
Told = list[tuple[Span, Tensor, Tensor, Tensor]]  # each span, its query, and K and V of its whole sequence


class Attention(TorchDispatchMode):
    """Counts the calls of torch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += "scaled_dot_product" in str(function)
        return function(*args, **(kwargs or {}))


class Packed:
    """A pass over all spans, what was told to it, and its output."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.storage = PageStorage(512, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
        for pages in (self.storage.keys(0), self.storage.values(0)):
            pages.fill_(float("nan"))
        cache = PagedKVCache(512, PAGE_SIZE, prefix_caching=False, storage=self.storage)
        self.told: Told = []
        for start, count in SPANS:
            sequence = cache.sequence(range(start + count))
            keys, values = torch.randn(2, start + count, KV_HEADS, HEAD_DIM)
            self.storage.write(0, sequence.slot_mapping(0, start), keys[:start], values[:start])
            sequence.mark_computed(start)
            query = torch.randn(count, HEADS, HEAD_DIM)
            self.told.append((Span(sequence, start, start + count), query, keys, values))
        with Attention() as attention:
            self.output = self.attend(self.told)
        self.torch_calls = attention.calls

    def attend(self, told: Told) -> Tensor:
        spans, queries, keys, values = zip(*told, strict=True)
        new = zip(queries, keys, values, strict=True)
        parts = [(query, keys[-len(query) :], values[-len(query) :]) for query, keys, values in new]
        return PagedStep(self.storage, spans).attend(0, *(torch.cat(each) for each in zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def packed() -> Packed:
    return Packed()


def test_a_span_gets_bit_for_bit_what_it_gets_alone_and_each_of_its_tokens_too(packed: Packed) -> None:
    outputs = packed.output.split([len(query) for _, query, *_ in packed.told])
    for told, output in zip(packed.told, outputs, strict=True):
        assert torch.equal(packed.attend([told]), output)
        (sequence, start, stop), query, keys, values = told
        for index in range(stop - start):
            token = Span(sequence, start + index, start + index + 1)
            one = token, query[index : index + 1], keys[: token.stop], values[: token.stop]
            assert torch.equal(packed.attend([one])[0], output[index])


def test_prompts_decodes_and_guesses_see_their_own_sequence_up_to_themselves(packed: Packed) -> None:
    row = 0
    for _, query, keys, values in packed.told:
        expected = contiguous_attention(query.double(), keys.double(), values.double())
        assert (packed.output[row : row + len(query)] - expected).abs().max() < 1e-6
        row += len(query)
    assert row == len(packed.output)


def test_pages_are_read_in_place_whatever_a_span_brings(packed: Packed) -> None:
    assert packed.torch_calls == 0


def test_what_is_computed_already_is_not_written_again() -> None:
    storage = PageStorage(8, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
    sequence = PagedKVCache(8, PAGE_SIZE, storage=storage).sequence(range(7))
    sequence.mark_computed(5)
    ones = torch.ones(7, KV_HEADS, HEAD_DIM)
    PagedStep(storage, [Span(sequence, 0, 7)]).write(0, ones, ones)
    keys, _ = storage.read(0, sequence.table)
    assert keys[:, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_a_span_that_does_not_fit_is_refused_and_nothing_is_written() -> None:
    storage = PageStorage(8, PAGE_SIZE, 1, KV_HEADS, HEAD_DIM)
    cache = PagedKVCache(8, PAGE_SIZE, storage=storage)
    sequence = cache.sequence(range(6))
    for start, stop in ((0, 7), (-1, 2), (4, 4), (5, 2)):
        with pytest.raises(ValueError, match=f"a span has tokens {start} to {stop} of Sequence.id=0, .*: give"):
            PagedStep(storage, [Span(sequence, start, stop)])
    with pytest.raises(ValueError, match="pages of 4, the storage of 8"):
        PagedStep(PageStorage(8, 8, 1, KV_HEADS, HEAD_DIM), [Span(sequence, 0, 6)])
    sequence.mark_computed(2)
    rows = torch.ones(9, KV_HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match="keys and values have 9 and 9 rows, the spans 6"):
        PagedStep(storage, [Span(sequence, 0, 6)]).write(0, rows, rows)
    assert not storage.keys(0).any()
    sequence.release()
    with pytest.raises(ValueError, match="released"):
        PagedStep(storage, [Span(sequence, 0, 6)])
