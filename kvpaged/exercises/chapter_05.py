"""Chapter 5, the page table: where a token is, when a page must be taken, and what must be refused."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged import OutOfPages, PageTable, mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.small import draw_pool, pool_of, random_counts
from kvpaged.figures.picture import Picture
from kvpaged.page_table import pages_for


def _table(chance: Random) -> Question:
    """A table, and what three of its verbs answer."""
    page_size, num_pages = chance.choice([3, 4, 5]), chance.choice([3, 4])
    pages = chance.sample(range(9), num_pages)
    num_tokens = (num_pages - 1) * page_size + chance.randint(1, page_size)
    table = PageTable(page_size, pages, num_tokens)
    index, boundary = chance.randrange(num_tokens), chance.randint(1, num_pages - 1) * page_size
    start, stop = boundary - chance.randint(1, 2), boundary + 1
    length = chance.randint(1, num_tokens - 1)
    words = (
        f"`table = PageTable(page_size={page_size}, page_ids={pages}, num_tokens={num_tokens})`. What do "
        f"`table.lookup({index})`, `table.slot_mapping({start}, {stop})` and then `table.truncate({length})` return?"
    )
    return Question(words, (table.lookup(index), table.slot_mapping(start, stop), table.truncate(length)))


def _new_tokens(chance: Random, size: int) -> Case:
    """Several sequences, and new tokens somewhere in them."""
    page_size, width = chance.randint(1, size), chance.randint(1, 3)
    far = chance.choice([0, 2**29]) if size > 5 else 0  # a pool so large that its slots are no int32
    lengths = [chance.randint(1, width * page_size) for _ in range(chance.randint(1, size))]
    tables = [[far + page for page in chance.sample(range(20, 60), pages_for(length, page_size))] for length in lengths]
    rows = [table + [-1] * (width - len(table)) for table in tables]
    tokens = [(row := chance.randrange(len(lengths)), chance.randrange(lengths[row])) for _ in range(size)]

    def run(slots: Function) -> Seen:
        import torch

        sequence_of, positions = torch.tensor(tokens).T
        found = slots(torch.tensor(rows, dtype=torch.int32), sequence_of, positions, page_size)
        return {"slots": found.tolist() if isinstance(found, torch.Tensor) else found}

    named = f"sequence_of={[row for row, _ in tokens]}, positions={[position for _, position in tokens]}"
    return Case(f"`slots({rows}, {named}, page_size={page_size})`, each of them as a tensor", run)


def _slots(page_tables: Any, sequence_of: Any, positions: Any, page_size: int) -> list[int]:
    rows, pairs = page_tables.tolist(), zip(sequence_of.tolist(), positions.tolist(), strict=True)
    return [rows[row][at // page_size] * page_size + at % page_size for row, at in pairs]


def _a_counted_token(chance: Random, size: int) -> Case:
    """A sequence that has so many tokens, the newest counted."""
    page_size = chance.randint(1, size)
    num_tokens = chance.randint(1, 3 * page_size)

    def run(takes_a_page: Function) -> Seen:
        return {"it takes a page": bool(takes_a_page(num_tokens, page_size))}

    return Case(f"`takes_a_page({num_tokens}, page_size={page_size})`", run)


def _takes_a_page(num_tokens: int, page_size: int) -> bool:
    return pages_for(num_tokens, page_size) > pages_for(num_tokens - 1, page_size)


def _a_growing_table(chance: Random, size: int) -> Case:
    """A pool in use, and a sequence on some of its pages that is to have more tokens."""
    page_size = chance.randint(1, 4)
    counts = random_counts(chance, size + 1)
    owned = [page for page, count in enumerate(counts) if count]
    table = chance.sample(owned, chance.randint(0, len(owned)))
    least = max(0, (len(table) - 1) * page_size + 1)
    num_tokens = chance.randint(least, (len(table) + counts.count(0) + 1) * page_size)

    def run(grow: Function) -> Drawn:
        pool, mine = pool_of(counts), [*table]
        came = outcome(grow, pool, mine, page_size, num_tokens, refusals=(mini.OutOfPages, OutOfPages))
        seen = {
            "asked for pages": "OutOfPages" if "it raised" in came else "it went well",
            "page table afterwards": mine,
            "reference counts afterwards": pool.ref_counts,
            "free pages afterwards": pool.free if "it raised" in came else sorted(pool.free),
        }

        def draw() -> dict[str, Picture]:
            before = draw_pool(pool_of(counts), page_size, {"A": table})
            return {"the pool before": before, "the pool after": draw_pool(pool, page_size, {"A": mine})}

        return Drawn(seen, draw)

    words = (
        f"`grow(pool, {table}, page_size={page_size}, num_tokens={num_tokens})`, where the pages have {counts} owners"
    )
    return Case(words, run)


def _grow(pool: Any, page_table: list[int], page_size: int, num_tokens: int) -> None:
    missing = pages_for(num_tokens, page_size) - len(page_table)
    if missing > len(pool.free):
        raise mini.OutOfPages(f"{missing} pages missing, {len(pool.free)} are free")
    page_table += [mini.allocate(pool) for _ in range(missing)]


def _an_index(chance: Random, size: int) -> Case:
    """A page table, and an index that may be outside of it."""
    page_size, num_tokens = chance.randint(1, 1 + size // 2), chance.randint(0, 2 * size)
    pages = chance.sample(range(30), pages_for(num_tokens, page_size))
    index = chance.randint(-2, num_tokens + 2)

    def run(lookup: Function) -> Seen:
        came = outcome(lookup, [*pages], page_size, num_tokens, index, refusals=(IndexError,))
        return {what: tuple(found) if isinstance(found, list) else found for what, found in came.items()}

    return Case(f"`lookup({pages}, page_size={page_size}, num_tokens={num_tokens}, index={index})`", run)


def _lookup(page_table: list[int], page_size: int, num_tokens: int, index: int) -> tuple[int, int]:
    return PageTable(page_size, page_table, num_tokens).lookup(index)


EXERCISES = (
    Predict(
        number="5.1",
        title="what a table answers",
        instance=_table,
        hints=(
            "`divmod(index, page_size)`: the quotient says which of `page_ids`, the remainder is the slot.",
            "A flat slot is page id * page size + slot. Where a stretch of tokens crosses a boundary, the slots jump.",
            "`truncate` returns the pages that no token needs any more; a page whose first token remains is needed.",
        ),
    ),
    Build(
        number="5.2",
        name="slots",
        title="the slot mapping of a batch, without a loop",
        cases=_new_tokens,
        reference=_slots,
        hints=(
            "A tensor can be indexed by two tensors at once: `page_tables[rows, columns]` has an entry for each pair.",
            "The row is `sequence_of`; the column is the logical page, `positions // page_size`.",
            "Page ids are int32, and so is their product with the page size. A large pool has more slots: `long`.",
        ),
        against="a loop over the tokens",
        cases_per_size=10,
    ),
    Build(
        number="5.3",
        name="takes_a_page",
        title="a boundary that one page size does not know",
        kind="debug",
        cases=_a_counted_token,
        reference=_takes_a_page,
        hints=(
            "What is `5 % 1`?",
            "The new token has been counted. So its index is `num_tokens - 1`: what is its slot, if it is the first of "
            "a page?",
            "Or compare two numbers of pages: those needed with the token, and those needed without it.",
        ),
        against="a count of pages",
    ),
    Build(
        number="5.5",
        name="grow",
        title="pages for more tokens, or none",
        cases=_a_growing_table,
        reference=_grow,
        hints=(
            "`pages_for(num_tokens, page_size)` says how many pages the table must have. It has `len(page_table)`.",
            "There may be several missing, or none.",
            "Compare the missing pages with `len(pool.free)` before you allocate the first; or give back what you took "
            "when `OutOfPages` comes.",
        ),
        against="a count of the free pages",
    ),
    Build(
        number="5.6",
        name="lookup",
        title="a token, or an IndexError",
        cases=_an_index,
        reference=_lookup,
        hints=(
            "A slot that exists is not yet a token: the last page may be partly filled.",
            "Python's lists answer to -1. Tokens have no number before 0.",
        ),
        against="the table of the package",
    ),
)
