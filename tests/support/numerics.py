"""Attention on pages against attention in one piece, over random configurations.

Each configuration is made from its number alone: shapes, lengths, grouped heads, page sizes; pages that several
sequences share, or that one names twice; last pages filled from nothing to the brim. Every slot that no sequence may
see holds NaN. The ordinary tests check the first of them (tests/test_numerics.py), `tools/long_checks.py` many more.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kvpaged.attention import (
    Backend,
    contiguous_attention,
    default_backend,
    naive_attention,
    paged_attention,
    paged_attention_decode,
    streaming_attention,
)
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for

# How far float32 may be from float64, as a share of the largest value that attention averaged (of 1 at least).
TOLERANCE = 1e-6
LAYER = 1
PAGE_SIZES = (1, 2, 3, 4, 5, 8, 16, 17, 32, 64)
HEAD_DIMS = (4, 8, 16, 20, 32, 48, 64, 80, 128)
LONGEST, LONGEST_QUERY = 300, 32  # tokens


@dataclass
class Sequence:
    """One sequence behind its table, and the same K and V in one piece: [len(table), kv_heads, head_dim]."""

    table: PageTable
    keys: Tensor
    values: Tensor


class Configuration:
    """A storage and the sequences in it, made from a number: the same number makes the same, on any machine."""

    def __init__(self, number: int) -> None:
        self.number = number
        draw = random.Random(number)
        self.page_size = draw.choice(PAGE_SIZES)
        self.head_dim = draw.choice(HEAD_DIMS)
        self.kv_heads = draw.choice((1, 2, 3))
        self.heads = self.kv_heads * draw.choice((1, 2, 3, 4, 8))
        self.noise = torch.Generator().manual_seed(number)
        lengths = [round(LONGEST ** draw.random()) for _ in range(draw.randint(1, 4))]
        tables = _tables(draw, lengths, self.page_size)
        num_pages = 1 + max(page_id for table in tables for page_id in table.page_ids) + draw.randint(1, 3)
        self.storage = PageStorage(num_pages, self.page_size, 2, self.kv_heads, self.head_dim)
        for layer in range(self.storage.num_layers):
            self.storage.keys(layer).fill_(float("nan"))
            self.storage.values(layer).fill_(float("nan"))
        self._fill(tables)
        self.sequences = [Sequence(table, *self._in_one_piece(table)) for table in tables]
        # A row may go on behind the pages that its length needs: with pages of which it uses no slot, or with no page.
        width = max(len(table.page_ids) for table in tables) + 2
        self.page_tables = torch.full((len(tables), width), -1, dtype=torch.int32)
        for row, table in zip(self.page_tables, tables, strict=True):
            row[: len(table.page_ids)] = torch.tensor(table.page_ids)
            row[len(table.page_ids)] = draw.choice((-1, num_pages - 1))
        self.seq_lens = torch.tensor(lengths, dtype=torch.int32)
        self.order = draw.sample(range(len(tables)), len(tables))
        self.query_lens = [draw.randint(1, min(length, LONGEST_QUERY)) for length in lengths]

    def query(self, q_len: int) -> Tensor:
        """Random queries, [q_len, heads, head_dim]."""
        return torch.randn(q_len, self.heads, self.head_dim, generator=self.noise)

    def _fill(self, tables: list[PageTable]) -> None:
        """Write each slot that some sequence sees, once."""
        slots = sorted({slot for table in tables for slot in table.slot_mapping(0, len(table))})
        shape = (2, len(slots), self.kv_heads, self.head_dim)
        self.storage.write(LAYER, slots, *torch.randn(*shape, generator=self.noise))

    def _in_one_piece(self, table: PageTable) -> tuple[Tensor, Tensor]:
        """Fetch the slots token by token: what a table means, without the package's reader."""
        where = [table.lookup(index) for index in range(len(table))]
        keys, values = self.storage.keys(LAYER), self.storage.values(LAYER)
        return (
            torch.stack([keys[page_id, :, slot] for page_id, slot in where]),
            torch.stack([values[page_id, :, slot] for page_id, slot in where]),
        )

    def __str__(self) -> str:
        lengths = ", ".join(str(len(sequence.table)) for sequence in self.sequences)
        return (
            f"configuration {self.number} (pages of {self.page_size}, {self.heads} heads on {self.kv_heads} of "
            f"{self.head_dim}, lengths {lengths})"
        )


def _tables(draw: random.Random, lengths: list[int], page_size: int) -> list[PageTable]:
    """Tables on scattered pages, some of them shared between tables, or named twice in one."""
    fresh = draw.sample(range(1000 + sum(lengths)), sum(pages_for(length, page_size) for length in lengths))
    numbers = {page_id: number for number, page_id in enumerate(sorted(fresh))}  # scattered, yet without large gaps
    tables: list[PageTable] = []
    for length in lengths:
        pages = [numbers[fresh.pop()] for _ in range(pages_for(length, page_size))]
        if tables and draw.random() < 0.5:
            shared = draw.choice(tables).page_ids
            common = draw.randint(0, min(len(shared), len(pages)))
            pages[:common] = shared[:common]
        if draw.random() < 0.25:
            pages[draw.randrange(len(pages))] = draw.choice(pages)
        tables.append(PageTable(page_size, pages, length))
    return tables


@dataclass
class Findings:
    """What a run over configurations saw: the largest difference from float64 of each form, and how often what."""

    worst: dict[str, float]
    counts: Counter[str]


def check(numbers: range) -> Iterator[Findings]:
    """Check these configurations; yield the findings, which grow, after each. AssertionError names what fails."""
    findings = Findings({}, Counter())
    for number in numbers:
        configuration = Configuration(number)
        again = f"{configuration}; again: python tools/long_checks.py numbers --first {number} --configurations 1"
        for form, difference in _differences(configuration, again):
            assert difference <= TOLERANCE, f"{form} is {difference:.2e} from float64 in {again}"
            findings.worst[form] = max(findings.worst.get(form, 0.0), difference)
        _count(configuration, findings.counts)
        yield findings


def _differences(configuration: Configuration, again: str) -> Iterator[tuple[str, float]]:
    """The difference of each form from float64, for each sequence; AssertionError if bits differ that must not."""
    for sequence, q_len in zip(configuration.sequences, configuration.query_lens, strict=True):
        yield from _prefill(configuration, sequence, q_len, again)
    for backend in _backends(configuration):
        yield from _decode(configuration, backend, again)


def _prefill(configuration: Configuration, sequence: Sequence, q_len: int, again: str) -> Iterator[tuple[str, float]]:
    """The last `q_len` tokens at once: gathered, bit for bit the contiguous form; in place, bit for bit each alone."""
    storage, table, keys, values = configuration.storage, sequence.table, sequence.keys, sequence.values
    query = configuration.query(q_len)
    gathered = paged_attention(query, storage, table, LAYER, backend="gather")
    contiguous = contiguous_attention(query, keys, values)
    assert torch.equal(gathered, contiguous), f"the gathered and the contiguous form differ in {again}"
    outputs = {
        "gathered": gathered,
        "naive": naive_attention(query, keys, values),
        "streaming": streaming_attention(query, storage, table, LAYER),
    }
    if "kernel" in _backends(configuration):
        outputs["in place"] = paged_attention(query, storage, table, LAYER, backend="kernel")
        for row in range(q_len):
            seen = len(table) - q_len + row + 1
            lone = PageTable(table.page_size, table.page_ids[: pages_for(seen, table.page_size)], seen)
            one = paged_attention(query[row : row + 1], storage, lone, LAYER, backend="kernel")
            assert torch.equal(one[0], outputs["in place"][row]), f"a token alone gets other bits in {again}"
    exact = naive_attention(query.double(), keys.double(), values.double())
    for form, output in outputs.items():
        yield form, _difference(output, exact, values)


def _decode(configuration: Configuration, backend: Backend, again: str) -> Iterator[tuple[str, float]]:
    """One query each: a sequence gets the same bits in the batch, in another order, and alone."""
    storage, order = configuration.storage, configuration.order
    page_tables, seq_lens = configuration.page_tables, configuration.seq_lens
    query = configuration.query(len(seq_lens))
    together = paged_attention_decode(query, storage, page_tables, seq_lens, LAYER, backend)
    shuffled = paged_attention_decode(query[order], storage, page_tables[order], seq_lens[order], LAYER, backend)
    assert torch.equal(shuffled, together[order]), f"{backend}: the order of a batch makes a difference in {again}"
    for row, sequence in enumerate(configuration.sequences):
        one = slice(row, row + 1)
        pages = page_tables[one, : len(sequence.table.page_ids)]  # without the padding that the others brought
        alone = paged_attention_decode(query[one], storage, pages, seq_lens[one], LAYER, backend)
        assert torch.equal(together[one], alone), f"{backend}: sequence {row} alone gets other bits in {again}"
        exact = naive_attention(query[one].double(), sequence.keys.double(), sequence.values.double())
        yield f"decode, {backend}", _difference(alone, exact, sequence.values)


def _difference(output: Tensor, exact: Tensor, values: Tensor) -> float:
    return float((output.double() - exact).abs().max() / values.abs().max().clamp(min=1))


def _backends(configuration: Configuration) -> tuple[Backend, ...]:
    return ("gather", "kernel") if default_backend(configuration.head_dim) == "kernel" else ("gather",)


def _count(configuration: Configuration, counts: Counter[str]) -> None:
    tables = [sequence.table for sequence in configuration.sequences]
    owners = Counter(page_id for table in tables for page_id in set(table.page_ids))
    counts["configurations"] += 1
    counts["sequences"] += len(tables)
    counts["with shared pages"] += max(owners.values()) > 1
    counts["with a page named twice"] += any(len(set(table.page_ids)) < len(table.page_ids) for table in tables)
    counts["read by the kernel too"] += "kernel" in _backends(configuration)
    counts["full last pages"] += sum(len(table) % table.page_size == 0 for table in tables)
    counts["last pages of one token"] += sum(len(table) % table.page_size == 1 for table in tables)
