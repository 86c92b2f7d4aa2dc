"""Chapter 12, a kernel that reads pages: jumps, bytes, and what a sum's order may depend on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product
from random import Random

from kvpaged.exercises.exercise import Build, Case, Predict, Question
from kvpaged.wording import count_of

_SPLIT = 4


def _jumps(rows: Iterable[int]) -> int:
    """How often the next row is not the one behind."""
    return sum(after != before + 1 for before, after in pairwise(rows))


def _layout(chance: Random) -> Question:
    """The other layout, walked in three orders."""
    pages, size, heads = chance.randint(3, 80), chance.choice([4, 8, 16, 32]), chance.choice([2, 4, 8])

    def row(page: int, slot: int, head: int) -> int:
        return (2 * page * size + slot) * heads + head  # no two pages side by side

    orders = (
        [row(p, s, h) for h, p, s in product(range(heads), range(pages), range(size))],
        [row(p, s, h) for p, h, s in product(range(pages), range(heads), range(size))],
        [row(p, s, h) for p, s, h in product(range(pages), range(size), range(heads))],
    )
    words = (
        f"K lies as `[page, slot, kv_head, dim]`, in {count_of(pages, 'full page')} of {size} slots, no two of them "
        f"side by side, with {heads} kv heads. How many jumps do the three orders make: head, page, slot (head-major); "
        "page, head, slot (page-major); and page, slot, head, as it lies?"
    )
    return Question(words, tuple(map(_jumps, orders)))


def _moved(chance: Random) -> Question:
    """What one layer of a decode step moves, and what is computed with it."""
    lengths = [chance.randrange(100, 2000, 100) for _ in range(chance.randint(1, 3))]
    heads, group, dim = chance.choice([2, 4, 8]), chance.choice([2, 4, 8]), chance.choice([64, 128])
    name, size = chance.choice([("float32", 4), ("bfloat16", 2)])
    moved = 2 * sum(lengths) * heads * dim * size
    words = (
        f"A decode step, one layer, sequences of {lengths} tokens; {heads * group} query heads of {dim} numbers, "
        f"{heads} kv heads, in {name}. How many bytes of K and V are read in place, how many are moved if pages are "
        "gathered first and the copy is read, and how many operations are done for each byte read in place?"
    )
    return Question(words, (moved, 3 * moved, 2 * group // size))


def _batch(chance: Random, size: int) -> Case:
    """Sequences of a batch, and threads."""
    lengths = [chance.randint(1, 2 * size + 2) for _ in range(chance.randint(1, 1 + size // 2))]
    threads = chance.choice([1, 2, 3, 4])
    return Case(
        f"`splits({lengths}, {threads})`",
        lambda splits: {
            f"the parts of a sequence of {length}": [tuple(part) for part in mine]
            for length, mine in zip(lengths, splits([*lengths], threads), strict=True)
        },
    )


def _splits(lengths: list[int], num_threads: int) -> list[list[tuple[int, int]]]:
    return [[(start, min(start + _SPLIT, n)) for start in range(0, n, _SPLIT)] for n in lengths]


EXERCISES = (
    Predict(
        number="12.1",
        title="jumps in the other layout",
        instance=_layout,
        hints=(
            "A head's rows of one page are no longer side by side: between two of them stand the rows of the others.",
            "In the first two orders no row follows the one before it in memory, so each row but the first is a jump.",
        ),
    ),
    Predict(
        number="12.4",
        title="bytes, and operations for each",
        instance=_moved,
        hints=(
            "K and V: two numbers for each token, kv head and dimension. The query heads do not count: they share.",
            "A gather reads what it copies and writes the copy; then attention reads the copy.",
            "For each number that arrives, each query head of its group does one multiplication and one addition.",
        ),
    ),
    Build(
        number="12.5",
        name="splits",
        title="parts that depend on nobody else",
        cases=_batch,
        reference=_splits,
        kind="debug",
        against="parts of four tokens",
        hints=(
            "Call it for one sequence alone, and for the same sequence beside another. What changes?",
            "A part's length is computed from the batch and the threads. A sum in other parts is rounded otherwise.",
            "Cut each sequence after every fourth token, from the front, and give the parts to whichever thread is "
            "free.",
        ),
    ),
)
