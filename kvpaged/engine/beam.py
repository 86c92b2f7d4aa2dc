"""Beam search: which beams live on.

A score is a log-probability / (tokens ** length_penalty); Wu et al. 2016, section 7, say why long continuations need
such a correction. A finished beam takes no place from the others: `beam_width` unfinished ones go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from torch import Tensor

from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampler import check_logits, likeliest
from kvpaged.engine.sampling_params import BeamSearchParams
from kvpaged.engine.scheduler import Scheduler


class Generation(NamedTuple):
    """What follows the beams of a request.

    beams: those that live on, each behind its parent; none when the search is over. finished: the best that have ended
    so far, best first.
    """

    request: Request
    beams: list[tuple[Branch, Branch]]
    finished: list[Branch]


def next_generations(beams: Sequence[tuple[Branch, int]], logits: Tensor) -> list[Generation]:
    """Note what may follow each beam, whose row of the logits is given.

    Returns what follows the beams of those requests that now know it of all their beams.
    """
    if not beams:
        return []
    rows = [row for _, row in beams]
    check_logits(logits, rows)
    # As many as can live on, and all that can end: so no beam is missed, whatever its candidates are.
    counts = [branch.request.width + len(branch.request.stop_tokens) for branch, _ in beams]
    for (branch, _), candidates in zip(beams, likeliest(logits, rows, counts), strict=True):
        branch.candidates = candidates
    requests = {branch.request.id: branch.request for branch, _ in beams}.values()
    known = (each for each in requests if all(beam.candidates is not None for beam in each.branches))
    return [next_generation(each) for each in known]


def next_generation(request: Request) -> Generation:
    """Choose the best continuations of beams that all have their candidates."""
    params, parents = request.params, request.branches
    assert isinstance(params, BeamSearchParams)
    extended = [
        (parent.cumulative_logprob + candidate.logprob, parent, candidate.token)
        for parent in parents
        for candidate in parent.candidates or ()
    ]
    extended.sort(key=lambda each: -each[0])
    num_tokens = len(parents[0].output) + 1
    beams: list[tuple[Branch, Branch]] = []
    finished = request.finished_beams[:]
    for logprob, parent, token in extended:
        if len(beams) == params.beam_width:
            break
        beam = Branch(request, len(beams))
        beam.output, beam.cumulative_logprob = [*parent.output, token], logprob
        if token in request.stop_tokens:
            beam.finish_reason = "stop"
            finished.append(beam)
        else:
            beams.append((parent, beam))
    if num_tokens == request.max_tokens:
        for _, beam in beams:
            beam.finish_reason = "length"
            finished.append(beam)
        beams = []
    finished.sort(key=lambda beam: -_score(params, beam.cumulative_logprob, len(beam.output)))
    del finished[params.beam_width :]
    if beams and len(finished) == params.beam_width:
        # A log-probability only falls; how far the length can lift the score is known.
        longest = request.max_tokens if params.length_penalty > 0 else num_tokens
        best = _score(params, beams[0][1].cumulative_logprob, longest)
        if best <= _score(params, finished[-1].cumulative_logprob, len(finished[-1].output)):
            beams = []
    return Generation(request, beams, finished)


def replace_beams(generation: Generation, scheduler: Scheduler) -> bool:
    """Let a request go on with the next generation. True if it ends: its branches are then the best that have ended."""
    request, beams, finished = generation
    if request.metrics.first_token is None:
        request.metrics.first_token = perf_counter()
    for parent, beam in beams:
        if parent.sequence is not None:  # else it was preempted since it knew its candidates
            beam.sequence = parent.sequence.fork()
    parents = request.branches
    request.branches, request.finished_beams = [beam for _, beam in beams] or finished, finished
    for parent in parents:
        scheduler.remove(parent)
    for _, beam in beams:
        scheduler.run_or_wait(beam)
    for rank, beam in enumerate(finished):
        beam.index = rank
    return not beams


def _score(params: BeamSearchParams, cumulative_logprob: float, num_tokens: int) -> float:
    """What beams are compared by in the end."""
    return float(cumulative_logprob / num_tokens**params.length_penalty)
