"""The compiled kernel: the same attention as ever, on the pages in place."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvpaged import kernel
from kvpaged.attention import (
    Backend,
    PackedAttention,
    contiguous_attention,
    default_backend,
    naive_attention,
    paged_attention,
    paged_attention_decode,
)
from kvpaged.kernel.compiled import SPLIT, TILE
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from support.float32 import allowance

LAYERS, LAYER = 2, 1
PAGE_SIZES = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32, 64])
HEADS = st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1), (6, 2), (7, 1), (8, 2)])
HEAD_DIMS = st.sampled_from([16, 32, 48, 64])
SEEDS = st.integers(0, 2**31)
BACKENDS: tuple[Backend, Backend] = ("kernel", "gather")
HALF = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


class Batch:
    """Random sequences, each on random pages of one storage in which every unwritten slot is poison."""

    def __init__(
        self,
        lengths: list[int],
        page_size: int = 16,
        heads: tuple[int, int] = (4, 2),
        head_dim: int = 32,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        counts = [pages_for(length, page_size) for length in lengths]
        num_pages = sum(counts) + 2
        self.storage = PageStorage(num_pages, page_size, LAYERS, heads[1], head_dim, dtype)
        for layer in range(LAYERS):
            self.storage.keys(layer).fill_(float("nan"))
            self.storage.values(layer).fill_(float("nan"))
        pages = torch.randperm(num_pages)[: sum(counts)].split(counts)
        self.tables = [PageTable(page_size, ids.tolist(), length) for ids, length in zip(pages, lengths, strict=True)]
        self.page_tables = torch.full((len(lengths), max(counts) + 1), -1, dtype=torch.int32)
        for row, ids in zip(self.page_tables, pages, strict=True):
            row[: len(ids)] = ids
        self.seq_lens = torch.tensor(lengths, dtype=torch.int32)
        self.query = torch.randn(len(lengths), heads[0], head_dim).to(dtype)
        self.keys, self.values = [], []
        for table in self.tables:
            keys, values = torch.randn(2, len(table), heads[1], head_dim).to(dtype)
            self.storage.write(LAYER, table.slot_mapping(0, len(table)), keys, values)
            self.keys.append(keys)
            self.values.append(values)

    def decode(self, backend: str = "kernel") -> Tensor:
        return paged_attention_decode(
            self.query,
            self.storage,
            self.page_tables,
            self.seq_lens,
            LAYER,
            backend,  # type: ignore[arg-type]
        )

    def alone(self, i: int) -> Tensor:
        row = slice(i, i + 1)
        return paged_attention_decode(
            self.query[row], self.storage, self.page_tables[row], self.seq_lens[row], LAYER, "kernel"
        )[0]

    def oracle(self) -> Tensor:
        each = zip(self.query, self.keys, self.values, strict=True)
        return torch.cat([naive_attention(q[None].double(), k.double(), v.double()) for q, k, v in each])


def error(output: Tensor, expected: Tensor) -> float:
    return float((output.double() - expected).abs().max())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# What it computes


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), PAGE_SIZES, HEADS, HEAD_DIMS, SEEDS)
def test_it_stays_within_a_millionth_of_the_oracle(
    lengths: list[int], page_size: int, heads: tuple[int, int], head_dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    batch = Batch(lengths, page_size, heads, head_dim)
    each = zip(batch.query.split(1), batch.keys, batch.values, strict=True)
    assert error(batch.decode(), batch.oracle()) < max(allowance(*parts) for parts in each)


@pytest.mark.parametrize("head_dim", [80, 96, 128, 256])
@pytest.mark.parametrize("heads", [(8, 8), (32, 8), (12, 2)])
def test_it_serves_the_head_sizes_of_real_models(head_dim: int, heads: tuple[int, int]) -> None:
    torch.manual_seed(head_dim)
    batch = Batch([1, 40, 333], 16, heads, head_dim)
    assert error(batch.decode(), batch.oracle()) < 1e-6


@pytest.mark.parametrize("length", [n + d for n in (TILE, SPLIT, 2 * SPLIT) for d in (-1, 0, 1)] + [4096, 5000])
@pytest.mark.parametrize("page_size", [1, 16, 256])
def test_it_stays_within_a_millionth_where_tiles_and_splits_end(length: int, page_size: int) -> None:
    torch.manual_seed(length)
    batch = Batch([length, 3], page_size)
    assert error(batch.decode(), batch.oracle()) < 1e-6


@pytest.mark.parametrize("dtype", list(HALF))
@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (3, 1)])
def test_half_precision_pages_lose_no_more_than_the_result_is_rounded(
    dtype: torch.dtype, heads: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    batch = Batch([1, 17, 500, SPLIT + 5], 16, heads, 64, dtype)
    output, expected = batch.decode(), batch.oracle()
    assert output.dtype == dtype
    assert torch.equal(output, expected.to(dtype)) or error(output, expected) < HALF[dtype]
    assert error(output, expected) <= 1.01 * error(expected.to(dtype), expected) + 1e-5


def test_bfloat16_and_float16_pages_are_told_apart() -> None:
    for dtype in HALF:
        batch = Batch([5], dtype=dtype)
        batch.storage.values(LAYER).fill_(1.5)
        assert batch.decode().eq(1.5).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 16), SEEDS)
def test_tables_may_share_pages_and_repeat_them(pages: list[int], filled: int, seed: int) -> None:
    torch.manual_seed(seed)
    storage = PageStorage(4, 16, 1, 2, 32)
    storage.keys(0).normal_()
    storage.values(0).normal_()
    tables = [PageTable(16, ids, 16 * len(ids) - 16 + filled) for ids in (pages, pages[::-1])]
    query = torch.randn(2, 4, 32)
    page_tables = torch.tensor([table.page_ids for table in tables], dtype=torch.int32)
    seq_lens = torch.tensor([len(table) for table in tables], dtype=torch.int32)
    output = paged_attention_decode(query, storage, page_tables, seq_lens, 0, "kernel")
    for i, table in enumerate(tables):
        where = [table.lookup(token) for token in range(len(table))]
        keys = torch.stack([storage.keys(0)[page_id, :, slot] for page_id, slot in where])
        values = torch.stack([storage.values(0)[page_id, :, slot] for page_id, slot in where])
        expected = naive_attention(query[i : i + 1].double(), keys.double(), values.double())
        assert error(output[i : i + 1], expected) < allowance(query[i : i + 1], keys, values)


@pytest.mark.parametrize("filled", [0.0, 30.0, 1000.0, -1000.0])
def test_scores_far_from_zero_neither_overflow_nor_vanish(filled: float) -> None:
    torch.manual_seed(0)
    batch = Batch([TILE + 30], heads=(2, 2))
    batch.query.fill_(1.0)
    for keys in (batch.storage.keys(LAYER), *batch.keys):
        keys.mul_(0.1).add_(filled)
    assert error(batch.decode(), batch.oracle()) < 1e-3


def test_a_nan_in_k_is_not_swallowed() -> None:
    batch = Batch([40])
    batch.storage.keys(LAYER)[batch.tables[0].page_ids[1], 0, 3] = float("nan")
    output = batch.decode()
    assert output[:, :2].isnan().all()
    assert not output[:, 2:].isnan().any()  # the heads of the other kv head


def test_padding_and_unmapped_pages_are_never_read() -> None:
    torch.manual_seed(0)
    batch = Batch([5, 20])
    batch.page_tables[0, 1:] = 2**31 - 1
    batch.page_tables[1, 2:] = -(2**31)
    assert error(batch.decode(), batch.oracle()) < 1e-6


def test_an_empty_batch_gives_an_empty_result() -> None:
    storage = Batch([5]).storage
    none = torch.zeros(0, dtype=torch.int32)
    assert paged_attention_decode(torch.zeros(0, 4, 32), storage, none.view(0, 1), none, LAYER).shape == (0, 4, 32)


# Bit for bit


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 9, 100, 700, SPLIT, SPLIT + 1, 3 * SPLIT]), min_size=1, max_size=5), SEEDS)
def test_a_sequence_gets_the_same_bits_alone_and_in_any_batch(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    batch = Batch(lengths)
    output = batch.decode()
    for i in range(len(lengths)):
        assert torch.equal(output[i], batch.alone(i))


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    batch = Batch([5000, 1, 300, 2500, 1024], heads=(8, 8), head_dim=64)
    torch.set_num_threads(1)
    one = batch.decode()
    for count in (2, 3, 8):
        torch.set_num_threads(count)
        assert torch.equal(batch.decode(), one)


def test_where_the_pages_lie_changes_no_bit() -> None:
    torch.manual_seed(0)
    batch = Batch([SPLIT + 100])
    before = batch.decode()
    moved = PageStorage(batch.storage.num_pages, 16, LAYERS, 2, 32)
    order = torch.randperm(moved.num_pages)
    moved.keys(LAYER)[order] = batch.storage.keys(LAYER)
    moved.values(LAYER)[order] = batch.storage.values(LAYER)
    used = len(batch.tables[0].page_ids)
    batch.page_tables[0, :used] = order[batch.page_tables[0, :used].long()]
    batch.storage = moved
    assert torch.equal(batch.decode(), before)


# Several queries of a sequence


class Prompts:
    """The last tokens of several sequences, packed: what prefill computes."""

    def __init__(
        self, lengths: list[int], query_lens: list[int], page_size: int, heads: tuple[int, int], head_dim: int
    ) -> None:
        self.batch = Batch(lengths, page_size, heads, head_dim)
        self.query_lens = query_lens
        self.query = torch.randn(sum(query_lens), heads[0], head_dim)

    def attend(self) -> Tensor:
        return self.part(slice(None), self.query_lens, self.batch.seq_lens, self.query)

    def part(self, rows: slice, query_lens: list[int], seq_lens: Tensor, query: Tensor) -> Tensor:
        counts = torch.tensor(query_lens, dtype=torch.int32)
        packed = PackedAttention(self.batch.storage, self.batch.page_tables[rows], seq_lens, counts, "kernel")
        return packed(LAYER, query)

    def alone(self) -> Iterator[Tensor]:
        """Each token as if it were the last of its sequence, and nobody else there."""
        row = 0
        for i, count in enumerate(self.query_lens):
            for length in range(int(self.batch.seq_lens[i]) - count + 1, int(self.batch.seq_lens[i]) + 1):
                one = torch.tensor([length], dtype=torch.int32)
                yield self.part(slice(i, i + 1), [1], one, self.query[row : row + 1])[0]
                row += 1

    def oracle(self) -> list[tuple[Tensor, float]]:
        parts = zip(self.query.split(self.query_lens), self.batch.keys, self.batch.values, strict=True)
        return [(naive_attention(q.double(), k.double(), v.double()), allowance(q, k, v)) for q, k, v in parts]


LENGTHS = st.sampled_from([1, 2, 15, 16, 17, 40, 100, TILE, TILE + 1, SPLIT - 1, SPLIT + 20])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LENGTHS, st.integers(1, 60)), min_size=1, max_size=4), PAGE_SIZES, HEADS, HEAD_DIMS, SEEDS)
def test_each_token_of_a_chunk_gets_the_bits_that_it_gets_alone(
    parts: list[tuple[int, int]], page_size: int, heads: tuple[int, int], head_dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    lengths = [length for length, _ in parts]
    prompts = Prompts(lengths, [min(part) for part in parts], page_size, heads, head_dim)
    output = prompts.attend()
    for got, expected in zip(output, prompts.alone(), strict=True):
        assert torch.equal(got, expected)
    for got, (exact, allowed) in zip(output.split(prompts.query_lens), prompts.oracle(), strict=True):
        assert error(got, exact) < allowed


def test_a_chunk_that_begins_in_one_split_and_ends_in_another_gets_the_bits_of_its_tokens_too() -> None:
    torch.manual_seed(0)
    prompts = Prompts([2 * SPLIT + 7, SPLIT + 3, 5], [SPLIT + 20, 8, 5], 16, (4, 2), 32)
    output = prompts.attend()
    alone = list(prompts.alone())
    assert torch.equal(output, torch.stack(alone))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_token_sees_nothing_of_those_behind_it_not_even_with_weight_zero(poison: float) -> None:
    torch.manual_seed(0)
    prompts = Prompts([50], [50], 16, (4, 2), 32)
    before = prompts.attend()
    page_id, slot = prompts.batch.tables[0].lookup(37)
    for pages in (prompts.batch.storage.keys(LAYER), prompts.batch.storage.values(LAYER)):
        pages[page_id, :, slot] = poison
    after = prompts.attend()
    assert torch.equal(after[:37], before[:37])
    assert not after[37:].isfinite().any(dim=-1).any()


def test_a_chunk_longer_than_its_sequence_and_a_query_of_another_length_are_refused() -> None:
    prompts = Prompts([50, 7], [50, 7], 16, (4, 2), 32)
    prompts.query_lens = [49, 8]
    with pytest.raises(ValueError, match="query has 8 tokens of sequence 1, of 7; it must have 1 to 7"):
        prompts.attend()
    prompts.query_lens = [49, 7]
    with pytest.raises(ValueError, match="query has 57 tokens; the sequences have 56 together"):
        prompts.attend()


# Pages that several sequences read


@pytest.mark.parametrize("page_size", [16, 48, 64])
def test_what_sequences_share_is_read_once_and_changes_no_bit(page_size: int) -> None:
    torch.manual_seed(0)
    lengths = [2 * SPLIT + 5, 2 * SPLIT + 40, 2 * SPLIT, SPLIT + 9, 30] + [2 * SPLIT + 1] * 20
    batch = Batch(lengths, page_size)
    common = batch.page_tables[0, : 2 * SPLIT // page_size].clone()
    for row, length in enumerate(lengths):
        batch.page_tables[row, : min(length // page_size, len(common))] = common[: length // page_size]
    ones = torch.ones_like(batch.seq_lens)
    plan = kernel.Plan(batch.page_tables, batch.seq_lens, ones, batch.storage.num_pages, page_size)
    splits = sum((length - 1) // SPLIT + 1 for length in lengths)
    assert plan.num_items < splits - 20
    assert sorted(plan.items[: plan.num_items, 1])[-1] == kernel.QUERIES
    output = batch.decode()
    for i in range(len(lengths)):
        assert torch.equal(output[i], batch.alone(i))


# Which backend


def test_the_kernel_is_the_default_and_gathering_is_what_it_is_compared_with() -> None:
    torch.manual_seed(0)
    batch = Batch([100])
    table = batch.tables[0]
    assert default_backend(head_dim=32) == "kernel"
    for query in (batch.query, torch.randn(30, 4, 32)):
        in_place, gathered = (paged_attention(query, batch.storage, table, LAYER, name) for name in BACKENDS)
        assert not torch.equal(in_place, gathered)  # they round differently, which is what tells them apart here
        assert error(in_place, gathered.double()) < 1e-6
        assert torch.equal(paged_attention(query, batch.storage, table, LAYER), in_place)
        assert torch.equal(contiguous_attention(query, batch.keys[0], batch.values[0]), gathered)


def test_a_head_dim_that_the_kernel_cannot_serve_is_gathered_or_refused() -> None:
    batch = Batch([20], head_dim=24)
    assert default_backend(head_dim=24) == "gather"
    assert error(paged_attention(batch.query, batch.storage, batch.tables[0], LAYER), batch.oracle()) < 1e-6
    with pytest.raises(ValueError, match="head_dim is 24; the kernel needs a multiple of 16"):
        batch.decode("kernel")


def test_an_unknown_backend_is_refused() -> None:
    batch = Batch([20])
    with pytest.raises(ValueError, match="backend is 'cuda'; give 'kernel', 'gather' or nothing"):
        batch.decode("cuda")


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import torch
from kvpaged.attention import contiguous_attention, default_backend, paged_attention
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable

assert default_backend(32) == "gather"
storage = PageStorage(4, 4, 1, 2, 32)
keys, values = torch.randn(2, 6, 2, 32)
table = PageTable(4, [2, 0], 6)
storage.write(0, table.slot_mapping(0, 6), keys, values)
query = torch.randn(1, 4, 32)
assert torch.equal(paged_attention(query, storage, table, 0), contiguous_attention(query, keys, values))
assert "kvpaged.kernel" not in sys.modules
"""


def test_without_numba_pages_are_written_and_read_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], check=True)


def test_neither_storage_nor_attention_imports_numba_before_it_is_needed() -> None:
    code = "import sys, kvpaged.attention, kvpaged.naive_cache; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# What does not fit


@pytest.mark.parametrize("backend", ["kernel", "gather"])
def test_a_page_that_does_not_exist_is_refused_wherever_it_stands(backend: str) -> None:
    batch = Batch([5, 40, 9])
    missing = batch.storage.num_pages
    for page_id in (missing, -1, 2**31 - 1, -(2**31)):
        for sequence, position in ((0, 0), (1, 2), (2, 0)):
            kept = batch.page_tables[sequence, position].item()
            batch.page_tables[sequence, position] = page_id
            message = f"sequence {sequence}: entry {position} of the page table names page {page_id}; the storage has "
            with pytest.raises(IndexError, match=message):
                batch.decode(backend)
            batch.page_tables[sequence, position] = kept


@pytest.mark.parametrize("backend", ["kernel", "gather"])
@pytest.mark.parametrize("length", [0, -1, 65, 2**31 - 1, -(2**31)])
def test_a_length_beyond_its_row_is_refused(backend: str, length: int) -> None:
    batch = Batch([5, 40])
    batch.seq_lens[1] = length
    with pytest.raises(ValueError, match=f"sequence 1 has {length} tokens; a row of page_tables maps 1 to 64"):
        batch.decode(backend)


# Writing


@settings(max_examples=40, deadline=None)
@given(st.data(), SEEDS)
def test_the_kernel_writes_what_torch_writes(data: st.DataObject, seed: int) -> None:
    torch.manual_seed(seed)
    page_size, head_dim = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    dtype = data.draw(st.sampled_from([torch.float32, *HALF]))
    storage = PageStorage(5, page_size, LAYERS, 3, head_dim, dtype)
    slots = data.draw(st.lists(st.integers(0, 5 * page_size - 1), unique=True))
    keys, values = torch.randn(2, 3, len(slots), head_dim).to(dtype).transpose(1, 2)
    expected_keys, expected_values = storage.keys(LAYER).clone(), storage.values(LAYER).clone()
    at = torch.tensor(slots, dtype=torch.int64)
    expected_keys[at // page_size, :, at % page_size] = keys
    expected_values[at // page_size, :, at % page_size] = values
    storage.write(LAYER, slots, keys, values)
    assert torch.equal(storage.keys(LAYER), expected_keys)
    assert torch.equal(storage.values(LAYER), expected_values)
    assert not storage.keys(0).any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 5 * 16 + 3), max_size=60), st.sampled_from([1, 16, 64]))
def test_slots_are_written_all_or_refused_all(slots: list[int], stride: int) -> None:
    storage = PageStorage(5 * stride, 16, LAYERS, 1, 16)
    slots = [slot * stride for slot in slots]  # a page, or several, apart: hard for a hash table
    rows = torch.ones(len(slots), 1, 16)
    if len(set(slots)) == len(slots) and all(0 <= slot < 5 * 16 * stride for slot in slots):
        storage.write(LAYER, slots, rows, rows)
        assert storage.keys(LAYER).transpose(1, 2).flatten(0, 2)[:, 0].nonzero().flatten().tolist() == sorted(slots)
    else:
        with pytest.raises((IndexError, ValueError), match="does not exist|named twice"):
            storage.write(LAYER, slots, rows, rows)
        assert not storage.keys(LAYER).any()
        assert not storage.values(LAYER).any()


def test_slots_and_rows_that_are_not_contiguous_are_written_like_any_other() -> None:
    storage = PageStorage(2, 4, LAYERS, 2, 16)
    slots, wide = torch.tensor([[7, 0], [2, 1], [4, 3]])[:, 0], torch.randn(3, 2, 32)
    keys, values = wide[..., :16], wide[..., 16:]
    assert not slots.is_contiguous()
    assert not keys.is_contiguous()
    storage.write(LAYER, slots, keys, values)
    for row, slot in enumerate([7, 2, 4]):
        assert torch.equal(storage.keys(LAYER)[slot // 4, :, slot % 4], keys[row])
        assert torch.equal(storage.values(LAYER)[slot // 4, :, slot % 4], values[row])
