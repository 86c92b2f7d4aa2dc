"""Pages of fewer bits: what stands in them, what is read back, and which answer keeps the laws."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvpaged import PagedKVCache, PageTable
from kvpaged.attention import contiguous_attention, paged_attention, paged_attention_decode
from kvpaged.page import PageStorage
from kvpaged.quantised import QuantisedStorage, RewritingStorage, TailStorage, TokenStorage
from kvpaged.quantised.codes import pack, quantise, unpack

LAYERS, HEADS, DIM, SIZE, PAGES = 2, 2, 32, 16, 8
SHAPE = (PAGES, SIZE, LAYERS, HEADS, DIM)
ANSWERS = [TokenStorage, TailStorage, functools.partial(TailStorage, keys="token", values="channel")]
Open = Callable[..., QuantisedStorage]


def some_rows(num_tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, num_tokens, HEADS, DIM, generator=generator)
    return keys, values


def write(storage: PageStorage, table: PageTable, start: int, stop: int, rows: tuple[Tensor, Tensor]) -> None:
    for layer in range(LAYERS):
        storage.write(layer, table.slot_mapping(start, stop), rows[0][start:stop] + layer, rows[1][start:stop] + layer)


def filled(storage: QuantisedStorage, num_tokens: int, pages: tuple[int, ...] = (5, 2, 7, 1)) -> PageTable:
    """Tokens written one by one, as decoding does."""
    table, rows = PageTable(SIZE, pages[: -(-num_tokens // SIZE)], num_tokens), some_rows(num_tokens)
    for token in range(num_tokens):
        write(storage, table, token, token + 1, rows)
    return table


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_are_unpacked_as_they_were_packed(bits: int) -> None:
    most = 2 ** (bits - 1) - 1
    whole = torch.randint(-most, most + 1, (5, 3, 16), dtype=torch.int8)
    codes = pack(whole, bits)
    assert codes.dtype == torch.uint8
    assert codes.shape == (5, 3, 16 * bits // 8)
    assert torch.equal(unpack(codes, bits), whole)


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_what_is_read_back_is_within_half_a_step(bits: int, dim: int) -> None:
    numbers = torch.randn(4, 16, 32) * torch.logspace(-3, 3, 32)
    codes, scales = quantise(numbers, bits, dim)
    error = (unpack(codes, bits) * scales.unsqueeze(dim) - numbers).abs()
    assert (error <= scales.unsqueeze(dim) * (0.5 + 1e-5)).all()
    assert (scales.unsqueeze(dim) * (2 ** (bits - 1) - 1)).allclose(numbers.abs().amax(dim, keepdim=True))


def test_zeros_are_read_back_as_zeros_and_what_is_not_a_number_stays_visible() -> None:
    codes, scales = quantise(torch.zeros(3, 8), 4, -1)
    assert (unpack(codes, 4) * scales[:, None] == 0).all()
    spoiled = torch.tensor([[1.0, float("nan")], [1.0, float("inf")]])
    codes, scales = quantise(spoiled, 8, -1)
    assert not (unpack(codes, 8) * scales[:, None])[:, 1].isfinite().any()


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("sharing", [("token", "token"), ("channel", "token"), ("token", "channel")])
def test_bytes_are_what_the_tensors_take(bits: int, sharing: tuple[str, str]) -> None:
    storage = TailStorage(*SHAPE, bits=bits, keys=sharing[0], values=sharing[1])
    codes = 2 * SIZE * DIM * bits // 8
    scales = sum(4 * (SIZE if each == "token" else DIM) for each in sharing)
    assert storage.bytes_per_page == LAYERS * HEADS * (codes + scales)
    assert storage.num_bytes == sum(tensor.nbytes for tensor in storage.codes + storage.scales)
    filled(storage, 20)
    assert (storage.num_tails, storage.tails.shape[2]) == (2, 2)
    assert storage.num_bytes == sum(tensor.nbytes for tensor in [*storage.codes, *storage.scales, storage.tails])


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("page_size", [16, 4, 32])
def test_the_kernel_gives_the_bits_that_the_float_kernel_gives_on_what_is_read_back(
    answer: Open, bits: int, page_size: int
) -> None:
    """One query, which stands in a tail, and long ones: several splits."""
    num_pages = 2304 // page_size
    storage = answer(num_pages, page_size, 1, HEADS, DIM, bits=bits)
    exact = PageStorage(num_pages, page_size, 1, HEADS, DIM)
    for num_tokens in (1, page_size, 37, 2185):
        table = PageTable(page_size, torch.randperm(num_pages)[: -(-num_tokens // page_size)].tolist(), num_tokens)
        keys, values = torch.randn(2, num_tokens, HEADS, DIM)
        storage.write(0, table.slot_mapping(0, num_tokens), keys, values)
        exact.write(0, table.slot_mapping(0, num_tokens), *storage.read(0, table))
        query = torch.randn(1, 4, DIM)
        got, expected = (paged_attention(query, each, table, 0, "kernel") for each in (storage, exact))
        assert torch.equal(got, expected)
        gathered = paged_attention(query, storage, table, 0, "gather")
        torch.testing.assert_close(got, gathered, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_prompt_reads_what_it_reads_token_by_token(answer: Open) -> None:
    """Whatever the chunks: a query reads its own page as it stands, and those before it packed."""
    rows, query = some_rows(61), torch.randn(61, 4, DIM)
    outputs = []
    for chunk in (1, 7, 16, 61):
        storage = answer(*SHAPE, bits=4)
        table, parts = PageTable(SIZE, [5, 2, 7, 1], 61), []
        for start in range(0, 61, chunk):
            stop = min(start + chunk, 61)
            seen = PageTable(SIZE, table.page_ids[: -(-stop // SIZE)], stop)
            write(storage, table, start, stop, rows)
            parts.append(paged_attention(query[start:stop], storage, seen, 1, "kernel"))
            gathered = paged_attention(query[start:stop], storage, seen, 1, "gather")
            torch.testing.assert_close(parts[-1], gathered, atol=1e-5, rtol=1e-5)
        outputs.append(torch.cat(parts))
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


@pytest.mark.parametrize("answer", ANSWERS)
def test_sequences_that_share_pages_get_what_they_get_alone(answer: Open) -> None:
    """A long shared beginning is read once for all; one of them still stands in its last page."""
    shared = 1024 // SIZE
    storage = answer(shared + 3, SIZE, 1, HEADS, DIM, bits=4)
    keys, values = torch.randn(2, storage.num_pages * SIZE, HEADS, DIM)
    storage.write(0, range(len(keys)), keys, values)
    tables = torch.tensor([[*range(shared), shared + i] for i in range(3)], dtype=torch.int32)
    lengths = torch.tensor([1024, 1030, 1040], dtype=torch.int32)
    query = torch.randn(3, 4, DIM)
    together = paged_attention_decode(query, storage, tables, lengths, 0, "kernel")
    for i in range(3):
        alone = paged_attention_decode(query[i : i + 1], storage, tables[i : i + 1], lengths[i : i + 1], 0, "kernel")
        assert torch.equal(together[i : i + 1], alone)


def test_the_newest_tokens_are_read_exact_until_a_query_stands_behind_their_page() -> None:
    storage = TailStorage(*SHAPE, bits=4)
    table, (keys, values) = filled(storage, 20), some_rows(20)
    found = storage.read(0, table)
    assert torch.equal(found[0][16:], keys[16:])
    assert torch.equal(found[1][16:], values[16:])
    assert not torch.equal(found[0][:16], keys[:16])
    inside = PageTable(SIZE, table.page_ids[:1], 16)
    assert torch.equal(storage.read(0, inside)[0], keys[:16])
    before = storage.num_tails
    paged_attention(torch.randn(1, 4, DIM), storage, table, 0)
    assert (before, storage.num_tails) == (2, 1)
    assert not torch.equal(storage.read(0, inside)[0], keys[:16])


@pytest.mark.parametrize("chunk", [1, 7, 16, 20, 61])
def test_there_is_a_tail_for_each_page_that_a_query_of_the_chunk_stands_in_and_for_no_other(chunk: int) -> None:
    """Those queries read their page exact; and a guess that filled it may be taken back before the next step."""
    storage, rows = TailStorage(*SHAPE, bits=4), some_rows(61)
    for start in range(0, 61, chunk):
        stop = min(start + chunk, 61)
        seen = PageTable(SIZE, [5, 2, 7, 1][: -(-stop // SIZE)], stop)
        write(storage, seen, start, stop, rows)
        paged_attention(torch.randn(stop - start, 4, DIM), storage, seen, 0)
        own = set(seen.page_ids[start // SIZE :])
        assert {page for page in range(PAGES) if storage.tail_of[page] >= 0} == own
        assert storage.num_bytes == PAGES * storage.bytes_per_page + len(own) * storage.bytes_per_tail


def test_tails_are_used_again() -> None:
    storage = TailStorage(*SHAPE, bits=8)
    for start in range(0, 100, 20):
        table = filled(storage, 17, (start % 7, start % 7 + 1))
        paged_attention(torch.randn(1, 4, DIM), storage, table, 0)
    assert storage.tails.shape[2] <= 8


def test_a_step_for_each_token_does_not_depend_on_its_neighbours() -> None:
    keys, values = some_rows(16)
    alone, together = TokenStorage(*SHAPE, bits=4), TokenStorage(*SHAPE, bits=4)
    alone.write(0, [3], keys[3:4], values[3:4])
    together.write(0, range(16), keys, values)
    for ours, theirs in zip(alone.codes + alone.scales, together.codes + together.scales, strict=True):
        assert torch.equal(ours[0, 0, :, 3], theirs[0, 0, :, 3])


def open_cache(answer: Open, **options: object) -> tuple[PagedKVCache, QuantisedStorage]:
    storage = answer(*SHAPE, bits=4, **options)
    return PagedKVCache(PAGES, SIZE, storage=storage), storage


def decode(cache: PagedKVCache, storage: QuantisedStorage, num_tokens: int, rows: tuple[Tensor, Tensor]) -> None:
    sequence = cache.sequence([0])
    for token in range(num_tokens):
        if token:
            sequence.append(token)
        write(storage, sequence.table, token, token + 1, rows)
        sequence.mark_computed()
        cache.check()


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_laws_hold_after_each_token(answer: Open) -> None:
    decode(*open_cache(answer), num_tokens=40, rows=some_rows(40))


@pytest.mark.parametrize("sharing", [("channel", "token"), ("token", "channel")])
def test_who_rewrites_a_page_is_convicted_by_name(sharing: tuple[str, str]) -> None:
    cache, storage = open_cache(RewritingStorage, keys=sharing[0], values=sharing[1])
    with pytest.raises(AssertionError, match=r"law 3: slot 0 of page 0 reads otherwise than when it was computed"):
        decode(cache, storage, num_tokens=2, rows=some_rows(2))


def test_a_page_that_is_filled_at_once_is_not_rewritten() -> None:
    cache, storage = open_cache(RewritingStorage)
    sequence = cache.sequence(range(SIZE))
    write(storage, sequence.table, 0, SIZE, some_rows(SIZE))
    sequence.mark_computed()
    cache.check()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_flipped_bit_is_found_where_it_is(answer: Open) -> None:
    cache, storage = open_cache(answer)
    sequence = cache.sequence(range(20))
    write(storage, sequence.table, 0, 20, some_rows(20))
    sequence.mark_computed()
    storage.finish(torch.tensor(sequence.table.page_ids[:1]))
    cache.check()
    page_id = sequence.table.page_ids[0]
    storage.codes[1][1, page_id, 0, 9, 3] ^= 1
    with pytest.raises(AssertionError, match=rf"law 3: slot 9 of page {page_id} .*layer 1"):
        cache.check()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_page_that_was_truncated_and_a_page_that_was_freed_may_be_written_again(answer: Open) -> None:
    cache, storage = open_cache(answer)
    for seed in range(2):
        sequence = cache.sequence(range(seed * 100, seed * 100 + 24))
        write(storage, sequence.table, 0, 24, some_rows(24, seed))
        sequence.truncate(18)
        for token in range(18, 22):
            sequence.append(token)
        write(storage, sequence.table, 18, 22, some_rows(22, seed + 7))
        sequence.mark_computed()
        cache.check()
        sequence.release()
        cache.prefix.clear()
        cache.check()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_copied_beginning_reads_like_its_source(answer: Open) -> None:
    storage = answer(*SHAPE, bits=4)
    table = filled(storage, 21)
    before = storage.read(0, table)
    storage.copy(table.page_ids[1], 6, 5)
    after = storage.read(0, PageTable(SIZE, [table.page_ids[0], 6], 21))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before, after, strict=True))
    storage.check()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_full_page_is_copied_whole(answer: Open) -> None:
    storage = answer(*SHAPE, bits=4)
    table = filled(storage, 40)
    storage.copy(table.page_ids[0], 6, SIZE)
    copied = PageTable(SIZE, [6, *table.page_ids[1:]], 40)
    for ours, theirs in zip(storage.read(1, table), storage.read(1, copied), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_full_page_can_be_dumped_and_loaded_elsewhere(answer: Open) -> None:
    storage, other = answer(*SHAPE, bits=4), answer(*SHAPE, bits=4)
    table = filled(storage, 40)
    filled(other, 5, (6,))
    data = storage.dump(table.page_ids[0])
    assert len(data) == storage.bytes_per_page
    other.load(6, data)
    storage.finish(torch.tensor(table.page_ids[:1]))
    assert torch.equal(other[6].keys, storage[table.page_ids[0]].keys)
    assert torch.equal(other[6].values, storage[table.page_ids[0]].values)
    other.check()
    with pytest.raises(ValueError, match="1 bytes are given, and a page here has"):
        other.load(6, b"x")


def test_a_page_that_stands_exact_cannot_be_dumped() -> None:
    storage = TailStorage(*SHAPE, bits=4)
    table = filled(storage, 20)
    with pytest.raises(ValueError, match=f"page {table.page_ids[1]} is not full"):
        storage.dump(table.page_ids[1])


def test_pages_are_seen_as_copies() -> None:
    storage = TokenStorage(*SHAPE, bits=8)
    table, (keys, _) = filled(storage, 16), some_rows(16)
    page = storage[table.page_ids[0]]
    assert page.keys.shape == page.values.shape == (LAYERS, HEADS, SIZE, DIM)
    torch.testing.assert_close(page.keys[0], keys.transpose(0, 1), atol=0.02, rtol=0)
    assert torch.equal(storage.keys(1)[table.page_ids[0]], page.keys[1])
    assert torch.equal(storage.values(1)[table.page_ids[0]], page.values[1])


def test_what_does_not_fit_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="bits is 3; a number takes 8, 4, 2"):
        TokenStorage(*SHAPE, bits=3)
    with pytest.raises(ValueError, match="head_dim is 3: so many numbers of 4 bits do not fill whole bytes"):
        TokenStorage(4, 4, 1, 1, 3, bits=4)
    storage = TokenStorage(*SHAPE, bits=4)
    keys, values = some_rows(2)
    with pytest.raises(ValueError, match="slot 3 is named twice"):
        storage.write(0, [3, 3], keys, values)
    with pytest.raises(IndexError, match="layer 2 does not exist"):
        storage.write(2, [3, 4], keys, values)
    assert not storage.codes[0].any()


def test_attention_on_pages_of_few_bits_is_near_exact_attention() -> None:
    (keys, values), query = some_rows(50), torch.randn(1, 4, DIM)
    exact = contiguous_attention(query, keys, values)
    errors = []
    for bits in (8, 4, 2):
        storage = TailStorage(*SHAPE, bits=bits)
        table = PageTable(SIZE, [5, 2, 7, 1], 50)
        write(storage, table, 0, 50, (keys, values))
        errors.append(float((paged_attention(query, storage, table, 0) - exact).abs().max()))
    assert errors[0] < 0.02 < errors[1] < errors[2]
