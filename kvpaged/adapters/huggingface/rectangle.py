"""The rectangle in which generate lays out texts of different lengths: its padding, its mask, its positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Prompt(NamedTuple):
    """The tokens of one row, and how many columns of padding stand before them."""

    tokens: list[int]
    padding: int


def prompts_of(input_ids: Tensor, attention_mask: Tensor | None) -> list[Prompt]:
    """The prompts in [batch, length]. Raises ValueError for one that is empty, or padded anywhere but on the left."""
    if input_ids.ndim != 2 or not input_ids.numel():
        raise ValueError(f"input_ids have shape {tuple(input_ids.shape)}; give [batch, length], none of them 0")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}, input_ids {tuple(input_ids.shape)}")
    prompts = []
    for row, (tokens, real) in enumerate(zip(input_ids.tolist(), mask.bool().tolist(), strict=True)):
        padding = len(real) - sum(real)
        if padding == len(real) or not all(real[padding:]):
            raise ValueError(f"row {row} has padding where a token should be: pad on the left (padding_side='left')")
        prompts.append(Prompt(tokens[padding:], padding))
    return prompts


def check_layout(
    attention_mask: Tensor | None, position_ids: Tensor | None, paddings: Sequence[int], columns: int, width: int
) -> None:
    """Refuse a pass over `width` columns after `columns` whose layout is not the one known: ValueError.

    The mask must hide the rows' padding and nothing else, and positions must count each row's tokens from 0: only then
    are K and V those of the text, for all that find them in the prefix cache.
    """
    shape = (len(paddings), columns + width)
    if attention_mask is None and position_ids is None and any(paddings):
        raise ValueError("some rows are padded: give the model attention_mask and position_ids, as generate does")
    if attention_mask is not None and (
        attention_mask.shape != shape
        or attention_mask.count_nonzero(dim=1).tolist() != [max(0, shape[1] - padding) for padding in paddings]
    ):
        raise ValueError(
            f"attention_mask of shape {tuple(attention_mask.shape)} is not that of {shape[0]} rows of {shape[1]} "
            "columns with the padding that the cache was begun with"
        )
    if position_ids is not None:
        rows = position_ids.tolist()  # of a token or two, mostly: a list costs less than tensors do
        for padding, positions in zip(paddings, rows * (shape[0] // len(rows)), strict=True):
            first = min(width, max(0, padding - columns))
            if positions[first:] != list(range(columns + first - padding, columns + width - padding)):
                raise ValueError(
                    "position_ids must count each row's tokens from 0, or their K and V are of use to nobody else"
                )
