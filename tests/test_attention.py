"""Attention: contiguous, through a page table, and page by page, all against a float64 oracle."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvpaged.attention import (
    Backend,
    PackedAttention,
    contiguous_attention,
    naive_attention,
    paged_attention,
    paged_attention_decode,
    streaming_attention,
)
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.reader import PagedKVReader
from support.float32 import allowance

LAYERS, LAYER = 2, 1
# Heads of 8 are too small for the kernel, which has tests of its own: here a lone query is gathered for, like several.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
PAGE_SIZES = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32, 64])
HEADS = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (8, 1)])
SEEDS = st.integers(0, 2**31)


def poisoned(
    num_pages: int, page_size: int, kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32
) -> PageStorage:
    """A storage where a read of an unwritten slot cannot go unnoticed."""
    storage = PageStorage(num_pages, page_size, LAYERS, kv_heads, head_dim, dtype)
    for layer in range(LAYERS):
        storage.keys(layer).fill_(float("nan"))
        storage.values(layer).fill_(float("nan"))
    return storage


def stored(storage: PageStorage, pages: list[int], num_tokens: int) -> tuple[PageTable, Tensor, Tensor]:
    """Write one sequence of random tokens behind a table; return the table and the same tokens in one piece."""
    table = PageTable(storage.page_size, pages, num_tokens)
    keys, values = torch.randn(2, num_tokens, storage.num_kv_heads, storage.head_dim).to(storage.dtype)
    storage.write(LAYER, table.slot_mapping(0, num_tokens), keys, values)
    return table, keys, values


def scattered(
    num_tokens: int, page_size: int, kv_heads: int, head_dim: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[PageStorage, PageTable, Tensor, Tensor]:
    """One sequence on randomly chosen pages of a larger storage."""
    needed = pages_for(num_tokens, page_size)
    storage = poisoned(needed + 3, page_size, kv_heads, head_dim, dtype)
    table, keys, values = stored(storage, torch.randperm(needed + 3)[:needed].tolist(), num_tokens)
    return storage, table, keys, values


def oracle(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """float64, one query and one head at a time."""
    q_len, heads, head_dim = query.shape
    kv_len, kv_heads, _ = keys.shape
    output = torch.empty(query.shape, dtype=torch.float64)
    for i in range(q_len):
        seen = kv_len - q_len + i + 1
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            scores = keys[:seen, kv_head].double() @ query[i, head].double() / head_dim**0.5
            output[i, head] = scores.softmax(0) @ values[:seen, kv_head].double()
    return output


def error(output: Tensor, expected: Tensor) -> float:
    return float((output.double() - expected).abs().max())


# Contiguous


@settings(max_examples=30, deadline=None)
@given(heads=HEADS, kv_len=st.integers(1, 40), data=st.data(), seed=SEEDS)
def test_naive_and_contiguous_attention_agree_with_the_oracle(
    heads: tuple[int, int], kv_len: int, data: st.DataObject, seed: int
) -> None:
    torch.manual_seed(seed)
    q_len = data.draw(st.integers(1, kv_len))
    query = torch.randn(q_len, heads[0], 8)
    keys, values = torch.randn(2, kv_len, heads[1], 8)
    expected = oracle(query, keys, values)
    assert error(naive_attention(query, keys, values), expected) < allowance(query, keys, values)
    assert error(contiguous_attention(query, keys, values), expected) < allowance(query, keys, values)
    assert error(naive_attention(query.double(), keys.double(), values.double()), expected) < 1e-14


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_naive_attention_agrees_with_torch_on_a_whole_sequence(heads: tuple[int, int]) -> None:
    query = torch.randn(50, heads[0], 32)
    keys, values = torch.randn(2, 50, heads[1], 32)
    theirs = F.scaled_dot_product_attention(
        *(x.transpose(0, 1)[None].double() for x in (query, keys, values)), is_causal=True, enable_gqa=True
    )
    assert error(naive_attention(query, keys, values), theirs[0].transpose(0, 1)) < 1e-6


def test_the_last_queries_alone_get_what_they_get_among_all() -> None:
    query = torch.randn(20, 4, 8)
    keys, values = torch.randn(2, 20, 2, 8)
    whole = naive_attention(query, keys, values)
    assert error(naive_attention(query[13:], keys, values), whole[13:].double()) < 1e-6


def test_no_query_sees_a_later_token() -> None:
    query = torch.randn(6, 4, 8)
    keys, values = torch.randn(2, 9, 2, 8)
    before = naive_attention(query, keys, values)
    keys[7:], values[7:] = 100.0, 100.0
    after = naive_attention(query, keys, values)
    assert torch.equal(before[:4], after[:4])  # queries 3..6
    assert not torch.isclose(before[4:], after[4:]).any()  # queries 7 and 8


# The reader


@settings(max_examples=30, deadline=None)
@given(page_size=PAGE_SIZES, num_tokens=st.integers(0, 150), seed=SEEDS)
def test_the_reader_gathers_the_tokens_in_logical_order(page_size: int, num_tokens: int, seed: int) -> None:
    torch.manual_seed(seed)
    storage, table, keys, values = scattered(num_tokens, page_size, kv_heads=2)
    reader = PagedKVReader(storage, table)
    assert torch.equal(reader.keys(LAYER), keys)
    assert torch.equal(reader.values(LAYER), values)
    assert reader.keys(LAYER).is_contiguous()


def test_the_reader_counts_the_pages_it_reads() -> None:
    storage, table, *_ = scattered(9, page_size=4, kv_heads=2)
    reader = PagedKVReader(storage, table)
    assert reader.pages_read == 0
    reader.keys(LAYER)
    assert reader.pages_read == 3
    reader.values(LAYER)
    assert reader.pages_read == 6


def test_what_the_reader_returned_stays_valid_when_the_pages_change() -> None:
    storage, table, keys, _ = scattered(9, page_size=4, kv_heads=2)
    gathered = PagedKVReader(storage, table).keys(LAYER)
    storage.keys(LAYER).fill_(0.0)
    assert torch.equal(gathered, keys)


def test_the_reader_sees_tokens_mapped_after_it_was_made() -> None:
    storage, table, *_ = scattered(7, page_size=4, kv_heads=2)
    reader = PagedKVReader(storage, table)
    table.extend([], 1)
    assert reader.keys(LAYER).shape == (8, 2, 8)


# Through the page table


@settings(max_examples=60, deadline=None)
@given(page_size=PAGE_SIZES, heads=HEADS, num_tokens=st.integers(1, 130), data=st.data(), seed=SEEDS)
def test_pages_change_nothing(
    page_size: int, heads: tuple[int, int], num_tokens: int, data: st.DataObject, seed: int
) -> None:
    torch.manual_seed(seed)
    q_len = data.draw(st.sampled_from([1, num_tokens, (num_tokens + 1) // 2]))
    storage, table, keys, values = scattered(num_tokens, page_size, heads[1])
    query = torch.randn(q_len, heads[0], 8)
    expected = naive_attention(query.double(), keys.double(), values.double())
    assert torch.equal(paged_attention(query, storage, table, LAYER), contiguous_attention(query, keys, values))
    assert error(streaming_attention(query, storage, table, LAYER), expected) < allowance(query, keys, values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("q_len", [1, 30])
def test_half_precision_pages_give_half_precision_results(dtype: torch.dtype, q_len: int) -> None:
    storage, table, keys, values = scattered(100, 16, kv_heads=2, dtype=dtype)
    query = torch.randn(q_len, 4, 8).to(dtype)
    expected = naive_attention(query.double(), keys.double(), values.double())
    for attention in (paged_attention, streaming_attention):
        output = attention(query, storage, table, LAYER)
        assert output.dtype == dtype
        assert error(output, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("num_tokens", [1000, 4096])
@pytest.mark.parametrize("page_size", [16, 64])
def test_streaming_stays_within_a_millionth_over_long_contexts(num_tokens: int, page_size: int) -> None:
    torch.manual_seed(num_tokens)
    storage, table, keys, values = scattered(num_tokens, page_size, kv_heads=2, head_dim=64)
    query = torch.randn(2, 8, 64)
    expected = naive_attention(query.double(), keys.double(), values.double())
    assert error(streaming_attention(query, storage, table, LAYER), expected) < 1e-6


def test_streaming_survives_scores_that_overflow_a_plain_softmax() -> None:
    storage, table, keys, values = scattered(40, 4, kv_heads=2)
    query = 1000 * torch.randn(3, 4, 8)
    output = streaming_attention(query, storage, table, LAYER)
    assert error(output, naive_attention(query.double(), keys.double(), values.double())) < 1e-3


def test_two_sequences_share_pages_and_each_sees_its_own_continuation() -> None:
    storage = poisoned(8, 4, 2, 8)
    first, keys, values = stored(storage, [5, 2, 7], 11)
    second = PageTable(4, [5, 2, 0], 10)
    tail_keys, tail_values = torch.randn(2, 2, 2, 8)
    storage.write(LAYER, second.slot_mapping(8, 10), tail_keys, tail_values)
    query = torch.randn(1, 4, 8)
    second_keys, second_values = torch.cat((keys[:8], tail_keys)), torch.cat((values[:8], tail_values))
    assert torch.equal(paged_attention(query, storage, first, LAYER), contiguous_attention(query, keys, values))
    assert torch.equal(
        paged_attention(query, storage, second, LAYER), contiguous_attention(query, second_keys, second_values)
    )


# Batches


def batch_of(lengths: list[int], page_size: int, kv_heads: int) -> tuple[PageStorage, list[PageTable], Tensor, Tensor]:
    """Sequences of the given lengths in one storage, and their page table and length tensors, padded with page -1."""
    counts = [pages_for(length, page_size) for length in lengths]
    storage = poisoned(sum(counts) + 2, page_size, kv_heads, 8)
    ids = torch.randperm(sum(counts) + 2)[: sum(counts)].split(counts)
    tables = [stored(storage, row.tolist(), length)[0] for row, length in zip(ids, lengths, strict=True)]
    page_tables = torch.full((len(lengths), max(counts) + 1), -1, dtype=torch.int32)
    for row, table in zip(page_tables, tables, strict=True):
        row[: len(table.page_ids)] = torch.tensor(table.page_ids)
    return storage, tables, page_tables, torch.tensor(lengths, dtype=torch.int32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), PAGE_SIZES, HEADS, SEEDS)
def test_each_sequence_of_a_decode_batch_gets_bit_for_bit_what_it_gets_alone(
    lengths: list[int], page_size: int, heads: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    storage, tables, page_tables, seq_lens = batch_of(lengths, page_size, heads[1])
    query = torch.randn(len(lengths), heads[0], 8)
    output = paged_attention_decode(query, storage, page_tables, seq_lens, LAYER)
    for row, table in enumerate(tables):
        assert torch.equal(output[row], paged_attention(query[row : row + 1], storage, table, LAYER)[0])


# What does not fit


@pytest.mark.parametrize(
    ("query", "keys", "values", "error", "message"),
    [
        ((3, 2, 8), (2, 2, 8), (2, 2, 8), ValueError, "query has 3 tokens of a sequence of 2; it must have 1 to 2"),
        ((0, 2, 8), (2, 2, 8), (2, 2, 8), ValueError, "query has 0 tokens"),
        ((1, 3, 8), (2, 2, 8), (2, 2, 8), ValueError, "query has 3 heads; they must be a multiple of the 2 kv heads"),
        ((1, 2, 4), (2, 2, 8), (2, 2, 8), ValueError, r"query has shape \(1, 2, 4\), expected \(tokens, heads, 8\)"),
        ((2, 8), (2, 2, 8), (2, 2, 8), ValueError, r"query has shape \(2, 8\)"),
        ((1, 2, 8), (2, 2, 8), (3, 2, 8), ValueError, r"keys have shape \(2, 2, 8\) and values \(3, 2, 8\)"),
        ((1, 2, 8), (2, 16), (2, 16), ValueError, r"keys have shape \(2, 16\)"),
    ],
)
@pytest.mark.parametrize("attention", [naive_attention, contiguous_attention])
def test_contiguous_tensors_that_do_not_fit_are_refused(
    attention: object, query: tuple[int], keys: tuple[int], values: tuple[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        attention(torch.zeros(query), torch.zeros(keys), torch.zeros(values))  # type: ignore[operator]


def test_mixed_dtypes_are_refused() -> None:
    query, keys = torch.zeros(1, 2, 8), torch.zeros(4, 2, 8)
    with pytest.raises(TypeError, match="query is torch.float16, keys and values are torch.float32"):
        naive_attention(query.half(), keys, keys)
    with pytest.raises(TypeError, match="keys are torch.float32, values torch.bfloat16"):
        naive_attention(query, keys, keys.bfloat16())


@pytest.mark.parametrize("attention", [paged_attention, streaming_attention])
def test_a_query_table_or_layer_that_does_not_fit_the_storage_is_refused(attention: object) -> None:
    storage, table, *_ = scattered(9, page_size=4, kv_heads=2)
    query = torch.zeros(1, 4, 8)

    def refuses(error: type[Exception], message: str, query: Tensor, table: PageTable, layer: int = LAYER) -> None:
        with pytest.raises(error, match=message):
            attention(query, storage, table, layer)  # type: ignore[operator]

    refuses(IndexError, r"layer 2 does not exist; the storage has layers 0\.\.1", query, table, layer=2)
    refuses(
        IndexError,
        r"entry 1 of the page table names page 6; the storage has pages 0\.\.5",
        query,
        PageTable(4, [0, 6], 8),
    )
    refuses(IndexError, "entry 0 of the page table names page -1", query, PageTable(4, [-1, 0], 8))
    refuses(ValueError, "pages of 8 slots, the storage pages of 4", query, PageTable(8, [0], 8))
    refuses(ValueError, "query has 3 heads", query[:, :3], table)
    refuses(ValueError, r"query has shape \(1, 4, 4\)", query[:, :, :4], table)
    refuses(TypeError, "query is torch.float16", query.half(), table)
    refuses(ValueError, "query has 10 tokens of a sequence of 9", torch.zeros(10, 4, 8), table)
    refuses(ValueError, "query has 1 tokens of a sequence of 0", query, PageTable(4))
    beyond = PageTable(4, [0], 4)
    beyond.num_tokens = 5
    refuses(IndexError, "the table maps 5 tokens to 1 pages of 4 slots", query, beyond)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    storage, _, page_tables, seq_lens = batch_of([5, 9], 4, 2)
    query = torch.zeros(2, 4, 8)

    def refuses(error: type[Exception], message: str, **changed: Tensor) -> None:
        given = {"query": query, "page_tables": page_tables, "seq_lens": seq_lens} | changed
        with pytest.raises(error, match=message):
            paged_attention_decode(storage=storage, layer=LAYER, **given)

    refuses(ValueError, r"query has shape \(2, 4, 4\), expected \(tokens, heads, 8\)", query=query[:, :, :4])
    refuses(ValueError, "query has 3 heads", query=query[:, :3])
    refuses(TypeError, "query is torch.bfloat16", query=query.bfloat16())
    refuses(ValueError, r"page_tables has shape \(2, 4\), expected \(1, max_pages\)", seq_lens=seq_lens[:1])
    refuses(ValueError, "query has 1 tokens; the sequences have 2 together", query=query[:1])
    refuses(ValueError, r"page_tables has shape \(1, 4\), expected \(2, max_pages\)", page_tables=page_tables[:1])
    refuses(ValueError, r"page_tables has shape \(2,\)", page_tables=page_tables[:, 0])
    refuses(TypeError, r"seq_lens is torch.int64; convert with .to\(torch.int32\)", seq_lens=seq_lens.long())
    refuses(TypeError, "page_tables is torch.float32", page_tables=page_tables.float())
    refuses(
        ValueError, "sequence 1 has 17 tokens; a row of page_tables maps 1 to 16", seq_lens=torch.tensor([5, 17]).int()
    )
    refuses(ValueError, "sequence 0 has 0 tokens", seq_lens=seq_lens - 5)
    wrong = page_tables.clone()
    wrong[1, 2] = storage.num_pages
    refuses(IndexError, "sequence 1: entry 2 of the page table names page 7", page_tables=wrong)


@pytest.mark.parametrize("backend", ["kernel", "gather"])
def test_packed_attention_refuses_rows_and_lengths_that_do_not_match(backend: Backend) -> None:
    storage = PageStorage(8, 4, 1, 2, 16)
    given = {"page_tables": torch.zeros(2, 3).int(), "seq_lens": torch.ones(2).int(), "query_lens": torch.ones(2).int()}

    def refuses(error: type[Exception], message: str, **changed: Tensor) -> None:
        with pytest.raises(error, match=message):
            PackedAttention(storage, **given | changed, backend=backend)  # type: ignore[arg-type]

    PackedAttention(storage, **given, backend=backend)
    one_row = torch.zeros(1, 3).int()
    refuses(ValueError, r"page_tables has shape \(1, 3\), expected \(2, max_pages\)", page_tables=one_row)
    refuses(ValueError, r"query_lens has shape \(3,\), expected \(2,\)", query_lens=torch.ones(3).int())
    refuses(ValueError, r"seq_lens has shape \(2, 1\)", seq_lens=torch.ones(2, 1).int())
    refuses(TypeError, "page_tables is torch.float32; convert", page_tables=torch.zeros(2, 3))


def test_a_kernel_that_cannot_be_had_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvpaged.attention.has_numba", lambda: False)
    with pytest.raises(ModuleNotFoundError, match="numba cannot be used here: install it, or say 'gather'"):
        paged_attention(torch.zeros(1, 2, 16), PageStorage(8, 4, 1, 2, 16), PageTable(4, [0], 1), 0, "kernel")
