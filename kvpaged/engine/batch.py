"""The packed batch: the tokens of one step, one branch after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from kvpaged.engine.request import Branch
from kvpaged.page import PageStorage
from kvpaged.paged_step import PagedStep, Span, as_int64


class Chunk(NamedTuple):
    """Tokens start to stop - 1 of a branch, to be computed in this step. The last `num_drafts` of them are guesses."""

    branch: Branch
    start: int
    stop: int
    num_drafts: int = 0


@dataclass
class Batch:
    """One step's input to the model.

    tokens, positions: int64 [n]. logits_at: the rows of the tokens whose next token is wanted. pages: where K and V go,
    and what attends to what. mapped_pages, filled_slots: pages in the chunks' tables, and the tokens in them.
    """

    tokens: Tensor
    positions: Tensor
    logits_at: Tensor
    pages: PagedStep
    mapped_pages: int
    filled_slots: int


def pack(chunks: Sequence[Chunk], storage: PageStorage) -> Batch:
    """Lay the chunks out one after another. Every chunk's branch has a sequence that maps it."""
    tokens: list[int] = []
    positions: list[int] = []
    logits_at: list[int] = []
    spans: list[Span] = []
    mapped_pages = filled_slots = 0
    for branch, start, stop, num_drafts in chunks:
        sequence = branch.sequence
        assert sequence is not None
        spans.append(Span(sequence, start, stop))
        tokens += sequence.tokens[start:stop]
        positions += range(start, stop)
        if stop == sequence.table.num_tokens:
            logits_at += range(len(tokens) - 1 - num_drafts, len(tokens))
        mapped_pages += len(sequence.table.page_ids)
        filled_slots += stop
    return Batch(
        tokens=as_int64(tokens),
        positions=as_int64(positions),
        logits_at=as_int64(logits_at),
        pages=PagedStep(storage, spans),
        mapped_pages=mapped_pages,
        filled_slots=filled_slots,
    )
