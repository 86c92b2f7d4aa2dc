"""Which token a row of logits gives: temperature, top-k, top-p, and a draw from the request's own seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from kvpaged.engine.sampling_params import SamplingParams


class Draw(NamedTuple):
    """One token to draw: from which row of the logits, how, and with which random number (see `uniform`)."""

    row: int
    params: SamplingParams
    uniform: float


class Candidate(NamedTuple):
    """A token that may follow, and the logarithm of its probability."""

    token: int
    logprob: float


def uniform(seed: int, index: int, position: int) -> float:
    """The random number in [0, 1) that draws token `position` of sample `index` of a request.

    A function of its arguments, not a stream: no order of events, preemption or neighbour can shift it.
    """
    digest = blake2b(f"{seed}/{index}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def check_logits(logits: Tensor, rows: Sequence[int]) -> None:
    """Raise ValueError if a row has no largest number to go by: with NaN or +inf in it, or -inf everywhere."""
    largest = logits.amax(dim=-1).tolist()
    for row in rows:
        if not math.isfinite(largest[row]):
            raise ValueError(f"the model's logits are no numbers to choose by: the largest is {largest[row]}")


def draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draw tokens from rows of logits [n, vocab_size] by inverting the cumulative distribution, in float64."""
    filtered = [_is_filtered(each.params) for each in draws]
    tokens = [0] * len(draws)
    for kind in (False, True):
        chosen = [index for index, is_filtered in enumerate(filtered) if is_filtered == kind]
        if chosen:
            found = _draw(logits, [draws[index] for index in chosen], kind)
            for index, token in zip(chosen, found, strict=True):
                tokens[index] = token
    return tokens


def likeliest(logits: Tensor, rows: Sequence[int], counts: Sequence[int]) -> list[list[Candidate]]:
    """For each row of the logits, the `count` likeliest tokens, best first, with their log-probabilities."""
    logprobs = torch.log_softmax(logits[torch.tensor(rows)].double(), dim=-1)
    values, tokens = logprobs.topk(min(max(counts), logits.shape[-1]), dim=-1)
    pairs = zip(tokens.tolist(), values.tolist(), counts, strict=True)
    return [[Candidate(*pair) for pair in zip(row[:count], found[:count], strict=True)] for row, found, count in pairs]


def logprobs_of(logits: Tensor, row: int, token: int, count: int) -> dict[int, float]:
    """The log-probabilities of the `count` likeliest tokens of a row, and of `token`, before temperature."""
    logprobs = torch.log_softmax(logits[row].double(), dim=-1)
    values, tokens = logprobs.topk(min(count, len(logprobs)))
    return {**dict(zip(tokens.tolist(), values.tolist(), strict=True)), token: float(logprobs[token])}


def _is_filtered(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1


def _draw(logits: Tensor, draws: Sequence[Draw], is_filtered: bool) -> list[int]:
    temperatures = torch.tensor([each.params.temperature for each in draws], dtype=torch.float64)
    scaled = logits[torch.tensor([each.row for each in draws])].double()
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / temperatures[:, None]
    order = None
    if is_filtered:
        scaled, order = scaled.sort(dim=-1, descending=True, stable=True)
        top_k = torch.tensor([each.params.top_k if each.params.top_k > 0 else scaled.shape[-1] for each in draws])
        scaled[torch.arange(scaled.shape[-1]) >= top_k[:, None]] = float("-inf")
    probabilities = scaled.softmax(dim=-1)
    if is_filtered:
        top_p = torch.tensor([each.params.top_p for each in draws], dtype=torch.float64)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities[before >= top_p[:, None]] = 0.0  # the first token stays whatever top_p is
    cumulative = probabilities.cumsum(dim=-1)
    points = torch.tensor([each.uniform for each in draws], dtype=torch.float64) * cumulative[:, -1]
    index = torch.searchsorted(cumulative, points[:, None], right=True)
    if order is not None:
        index = order.gather(-1, index)
    return [int(token) for token in index[:, 0].tolist()]
