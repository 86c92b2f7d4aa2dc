"""The end of a step: the tokens that each branch goes on with, and which requests end.

First it is worked out what everybody gets, and nobody has it yet; then it is given. Where something fails for a
request, that request ends, and it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple, TypeVar

from torch import Tensor

from kvpaged.engine.batch import Chunk
from kvpaged.engine.beam import Generation, next_generations, replace_beams
from kvpaged.engine.metrics import Counters
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampler import Draw, check_logits, draw, logprobs_of, uniform
from kvpaged.engine.sampling_params import BeamSearchParams, SamplingParams
from kvpaged.engine.scheduler import Scheduler

Result = TypeVar("Result")


class Ready(NamedTuple):
    """A branch that can be given tokens: `row` of the logits tells what follows its last one, the next its guesses."""

    branch: Branch
    row: int
    drafts: list[int]


class Gain(NamedTuple):
    """What a branch is given: the token that follows its last, and as many more as were guessed right."""

    ready: Ready
    tokens: list[int]
    logprobs: list[dict[int, float]]
    cumulative_logprob: float
    logits_hash: hashlib.blake2b
    finish_reason: str | None
    stop_reason: int | str | None


def advance(chunks: Sequence[Chunk], logits: Tensor, scheduler: Scheduler, counters: Counters) -> list[Request]:
    """Take in what a step computed: mark it, give each branch its next tokens; return the requests that end by it.

    logits: [n, vocab_size], the rows that the chunks want, one chunk after another.
    """
    samples: list[Ready] = []
    beams: list[Ready] = []
    row = 0
    for branch, start, stop, num_drafts in chunks:
        sequence, request = branch.sequence, branch.request
        assert sequence is not None
        request.metrics.computed_tokens += stop - start
        if not num_drafts:
            sequence.mark_computed(stop)
        if stop < sequence.table.num_tokens:
            continue
        ready = Ready(branch, row, sequence.tokens[stop - num_drafts :])
        if isinstance(request.params, BeamSearchParams):
            beams.append(ready)
        else:
            samples.append(ready)
            # The other samples of its request begin where the prompt is computed.
            samples += [ready._replace(branch=Branch(request, index)) for index in range(1, branch.seats)]
        row += num_drafts + 1
    failed: dict[Request, Exception] = {}
    gains = _blaming(_choose, samples, logits, failed)
    generations = _blaming(_follow, beams, logits, failed)
    _fork([gain.ready.branch for gain in gains], scheduler)
    ended = [gain.ready.branch.request for gain in gains if _give(gain, scheduler, counters)]
    for generation in generations:
        counters.generated_tokens += len(generation.beams)
        if replace_beams(generation, scheduler):
            ended.append(generation.request)
    for request, error in failed.items():
        end(request, scheduler, error)
    return [*ended, *failed]


def end(request: Request, scheduler: Scheduler, error: Exception | None = None) -> None:
    """End what goes on of a request: because of an error, or because nobody wants it any more."""
    if error is not None:
        lines = str(error).splitlines()
        request.error = ": ".join([type(error).__name__, *lines[:1]])
    for branch in request.branches:
        if branch.finish_reason is None:
            branch.finish_reason = "abort" if error is None else "error"
            scheduler.remove(branch)


def _blaming(
    work: Callable[[Sequence[Ready], Tensor], list[Result]],
    items: Sequence[Ready],
    logits: Tensor,
    failed: dict[Request, Exception],
) -> list[Result]:
    """Work on all at once; if that fails, on each request by itself, so that it is known which one fails."""
    if not items:
        return []
    try:
        return work(items, logits)
    except Exception:
        of_request: dict[Request, list[Ready]] = {}
        for item in items:
            of_request.setdefault(item.branch.request, []).append(item)
    found: list[Result] = []
    for request, own in of_request.items():
        for item in own:
            item.branch.forget_text()
        try:
            found += work(own, logits)
        except Exception as error:
            failed[request] = error
    return found


def _follow(beams: Sequence[Ready], logits: Tensor) -> list[Generation]:
    """Choose what follows beams."""
    return next_generations([(each.branch, each.row) for each in beams], logits)


def _choose(samples: Sequence[Ready], logits: Tensor) -> list[Gain]:
    """Choose the tokens of samples."""
    check_logits(logits, [each.row + n for each in samples for n in range(len(each.drafts) + 1)])
    likeliest = logits.float().numpy().argmax(axis=-1).tolist()  # numpy looks in a tenth of torch's time
    drawn = iter(draw(logits, [each for ready in samples for each in _draws(ready)]))
    gains = []
    for ready in samples:
        tokens = likeliest[ready.row : ready.row + len(ready.drafts) + 1]
        if _params(ready).temperature > 0:
            tokens = [next(drawn) for _ in tokens]
        gains.append(_gain(ready, tokens, logits))
    return gains


def _params(ready: Ready) -> SamplingParams:
    params = ready.branch.request.params
    assert isinstance(params, SamplingParams)
    return params


def _draws(ready: Ready) -> list[Draw]:
    (branch, row, drafts), params = ready, _params(ready)
    if params.temperature == 0:
        return []
    seed, position = branch.request.seed, len(branch.output)
    return [Draw(row + n, params, uniform(seed, branch.index, position + n)) for n in range(len(drafts) + 1)]


def _gain(ready: Ready, tokens: list[int], logits: Tensor) -> Gain:
    """What a branch gets, when `tokens` follow its last one, and each guess if all guesses before it are right."""
    (branch, row, drafts), params = ready, _params(ready)
    logprobs: list[dict[int, float]] = []
    cumulative_logprob, logits_hash = branch.cumulative_logprob, branch.logits_hash
    for index, token in enumerate(tokens):
        if params.logprobs is not None:
            logprobs.append(logprobs_of(logits, row + index, token, params.logprobs))
            cumulative_logprob += logprobs[-1][token]
        finish_reason, stop_reason = _end(branch, token, len(branch.output) + index + 1)
        if finish_reason is not None or index == len(drafts) or token != drafts[index]:
            break
    if params.hash_logits:
        logits_hash = logits_hash.copy()
        logits_hash.update(logits[row : row + index + 1].float().numpy().tobytes())
    return Gain(ready, tokens[: index + 1], logprobs, cumulative_logprob, logits_hash, finish_reason, stop_reason)


def _end(branch: Branch, token: int, num_tokens: int) -> tuple[str | None, int | str | None]:
    """Why a branch ends with the token that is its `num_tokens`-th, and what ended it; None if it goes on."""
    request = branch.request
    if token in request.stop_tokens:
        return "stop", None if token in request.eos_tokens else token
    if request.params.stop and branch.detokenizer and (found := branch.detokenizer.extend([token])):
        return "stop", found
    return ("length" if num_tokens >= request.max_tokens else None), None


def _fork(branches: Sequence[Branch], scheduler: Scheduler) -> None:
    """Let samples begin that have no sequence yet, on the pages of the first of their request."""
    for first in branches:
        if first.seats == 1:
            continue
        assert first.sequence is not None
        forks = [each for each in branches if each.request is first.request and each is not first]
        first.request.branches = [first, *forks]
        scheduler.seat_forks(first)
        for fork in forks:
            fork.sequence = first.sequence.fork()
            scheduler.run(fork)


def _give(gain: Gain, scheduler: Scheduler, counters: Counters) -> bool:
    """Give a branch what it gets. True if its request ends."""
    branch, _, drafts = gain.ready
    request, sequence, num_tokens = branch.request, branch.sequence, len(gain.tokens)
    assert sequence is not None
    if request.metrics.first_token is None:
        request.metrics.first_token = perf_counter()
    if drafts:
        sequence.truncate(len(sequence) - len(drafts) + num_tokens - 1)
        sequence.mark_computed()
        counters.draft_tokens += len(drafts)
        counters.accepted_tokens += num_tokens - 1
    counters.generated_tokens += num_tokens
    branch.logprobs += gain.logprobs
    # In one statement: who is interrupted finds all of it given, or nothing (see `Scheduler.restart`).
    end, given = len(branch.output), (gain.tokens, *gain[3:])
    branch.output[end:], branch.cumulative_logprob, branch.logits_hash, branch.finish_reason, branch.stop_reason = given
    if gain.finish_reason is None:
        return False
    scheduler.remove(branch)
    return request.has_ended
