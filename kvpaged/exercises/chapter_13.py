"""Chapter 13, real models: columns that a rectangle can skip, and what beams copy."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Predict, Question
from kvpaged.exercises.small_cache import Slots


def _rectangle(chance: Random) -> Question:
    """Prompts of different lengths, padded on the left, of which the prefix cache knows something."""
    lengths = [chance.randint(5, 40) for _ in range(chance.randint(2, 3))]
    known = [chance.choice([length, chance.randint(1, length)]) for length in lengths]
    width = max(lengths)
    alone = [min(hit, length - 1) for hit, length in zip(known, lengths, strict=True)]
    skipped = min(width - length + hit for length, hit in zip(lengths, alone, strict=True))
    words = (
        f"A batch of prompts of {lengths} tokens. The prefix cache knows the first {known} of them. How many tokens of "
        "each does `generate` skip, and then, how many of each does the engine? (All numbers in one tuple.)"
    )
    return Question(words, (*(max(0, skipped - (width - length)) for length in lengths), *alone))


class _Counting(Slots):
    """A storage that counts the slots that are copied."""

    copied = 0

    def __setitem__(self, at: tuple[Any, ...], tokens: Any) -> None:
        self.copied += len(tokens)
        super().__setitem__(at, tokens)


def _slots_copied(parents: list[int], length: int, page_size: int) -> int:
    """What the small engine copies when beams of so many tokens go on as children of these parents."""
    num_pages = 2 * len(parents) * (mini.pages_for(length, page_size) + 1)
    storage = _Counting(num_pages, page_size)
    cache = mini.Cache(num_pages, page_size, storage)
    beams = [mini.begin(cache, [100 * number + token for token in range(length)]) for number in range(len(parents))]
    children = [mini.fork(beams[parent]) for parent in parents]
    for beam in beams:
        mini.end(beam)
    for child in children:
        mini.append(child, 0)
    return storage.copied


def _generations(chance: Random) -> Question:
    """Beams that live on, some of them twice."""
    beams, length, page_size = chance.randint(2, 5), chance.randint(5, 60), chance.choice([4, 8, 16])
    parents = sorted(chance.randrange(beams) for _ in range(beams))
    words = (
        f"{beams} beams of {length} tokens each, in pages of {page_size}; none of the last pages is shared. After this "
        f"step, beams {parents} live on (one that stands there twice has two heirs), and each heir takes a token of "
        "its own. Of how many tokens are K and V copied in pages, and of how many in the default cache's rectangle?"
    )
    return Question(words, (_slots_copied(parents, length, page_size), beams * length))


def _beams(chance: Random, size: int) -> Case:
    beams, page_size = chance.randint(1, 1 + size // 2), chance.choice([1, 2, 4, 8])
    length, per_token = chance.randint(1, 4 * size), chance.choice([1, 64, 512])
    return Case(
        f"`step_bytes(beams={beams}, length={length}, page_size={page_size}, bytes_per_token={per_token})`",
        lambda step_bytes: dict(
            zip(
                ("bytes of the default cache", "bytes in pages, at the most"),
                step_bytes(beams, length, page_size, per_token),
                strict=True,
            )
        ),
    )


def _step_bytes(beams: int, length: int, page_size: int, bytes_per_token: int) -> tuple[int, int]:
    most = _slots_copied([0] * beams, length, page_size)  # all are heirs of one
    return 2 * beams * length * bytes_per_token, 2 * most * bytes_per_token


EXERCISES = (
    Predict(
        number="13.1",
        title="columns that can be skipped",
        instance=_rectangle,
        hints=(
            "Padding is on the left: all prompts end in the last column. The new columns are a rectangle.",
            "In which column does each prompt's first unknown token stand? One token of each has to run.",
            "The leftmost of these columns is where everybody begins to compute.",
        ),
    ),
    Build(
        number="13.2",
        name="step_bytes",
        title="what beams read and write",
        cases=_beams,
        reference=_step_bytes,
        hints=(
            "`index_select` reads the row of each beam, and writes it.",
            "Pages are copied when somebody writes to one that has several owners. Of m beams in one last page, one "
            "may write in place.",
            "Only the last page is written to, and only `length % page_size` of its slots hold anything to be copied.",
        ),
    ),
    Predict(
        number="13.4",
        title="heirs in pages and in a rectangle",
        instance=_generations,
        hints=(
            "A beam with one heir is not shared: the heir writes in place. One without heirs is released.",
            "A beam with k heirs has a last page with k owners, of whom all but the last to write take a copy.",
            "A copy moves the slots that are filled, `length % page_size`; none, if the last page is full.",
        ),
    ),
)
