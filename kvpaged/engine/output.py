"""What a request gets back. Names are vLLM's, but for `tokens` and `prompt_tokens` (there: `token_ids`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvpaged.engine.metrics import RequestMetrics
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampling_params import BeamSearchParams


@dataclass(frozen=True)
class CompletionOutput:
    """One continuation of a prompt.

    tokens: all that were generated, the stop token included. text: theirs, without special tokens, cut before a stop
    string; while more is to come, what might be the beginning of a stop string is held back, so that text only grows.
    logprobs: for each token a dict of token id -> log-probability: the likeliest ones and the token itself.
    logits_hash: 16 hexadecimal digits; two that are equal say that all logits were, bit for bit.
    finish_reason: "stop", "length", "abort" (cancelled) or "error" (see `RequestOutput.error`); None while more is to
    come. stop_reason: the stop token (if it is not <eos>) or stop string that ended it.
    """

    index: int
    tokens: list[int]
    text: str
    finish_reason: str | None
    stop_reason: int | str | None
    logprobs: list[dict[int, float]] | None
    cumulative_logprob: float | None
    logits_hash: str | None


@dataclass(frozen=True)
class RequestOutput:
    """A request's continuations; of beam search, the best first.

    index: its place among the prompts handed in. error: in one line, what failed for it; None if nothing did.
    """

    request_id: int
    index: int
    prompt: str | None
    prompt_tokens: list[int]
    num_cached_tokens: int
    outputs: list[CompletionOutput]
    finished: bool
    error: str | None
    metrics: RequestMetrics


def output_of(request: Request) -> RequestOutput:
    """What a request has so far."""
    return RequestOutput(
        request_id=request.id,
        index=request.index,
        prompt=request.prompt,
        prompt_tokens=list(request.prompt_tokens),
        num_cached_tokens=request.num_cached_tokens,
        outputs=[_completion_of(branch) for branch in request.branches],
        finished=request.finished,
        error=request.error,
        metrics=replace(request.metrics),
    )


def _completion_of(branch: Branch) -> CompletionOutput:
    params = branch.request.params
    with_logprobs = params.logprobs is not None
    scored = with_logprobs or isinstance(params, BeamSearchParams)
    return CompletionOutput(
        index=branch.index,
        tokens=list(branch.output),
        text=branch.text(),
        finish_reason=branch.finish_reason,
        stop_reason=branch.stop_reason,
        logprobs=list(branch.logprobs) if with_logprobs else None,
        cumulative_logprob=branch.cumulative_logprob if scored else None,
        logits_hash=branch.logits_hash.hexdigest() if params.hash_logits else None,
    )
