"""Beam search: which beams live on."""

from __future__ import annotations

from typing import NamedTuple

from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampling import BeamSearchParams


class Candidate(NamedTuple):
    """A token that may follow a beam."""

    token: int
    logprob: float


class Survivor(NamedTuple):
    """A beam that lives on: `parent`, with one token more."""

    parent: Branch
    token: int
    cumulative_logprob: float


class BeamSearch:
    """The finished continuations of one request, and the choice among the unfinished.

    A score is a log-probability / (tokens ** length_penalty); Wu et al. 2016, section 7, say why long continuations
    need such a correction. A finished beam takes no place from the others: `beam_width` unfinished ones go on.
    """

    def __init__(self, request: Request, params: BeamSearchParams) -> None:
        self.request = request
        self.params = params
        self.finished: list[Branch] = []

    def select(self, beams: list[Branch]) -> list[Survivor]:
        """Choose the best continuations of beams that all have their candidates; none, when the search is over."""
        width = self.params.beam_width
        extended = [
            Survivor(beam, candidate.token, beam.cumulative_logprob + candidate.logprob)
            for beam in beams
            for candidate in beam.candidates or ()
        ]
        extended.sort(key=lambda each: -each.cumulative_logprob)
        survivors: list[Survivor] = []
        for each in extended:
            if len(survivors) == width:
                break
            if each.token in self.request.stop_tokens:
                self._finish(each, "stop")
            else:
                survivors.append(each)
        num_tokens = len(beams[0].output) + 1
        if num_tokens == self.request.max_tokens:
            for each in survivors:
                self._finish(each, "length")
            survivors = []
        self.finished.sort(key=lambda beam: -self.score(beam.cumulative_logprob, len(beam.output)))
        del self.finished[width:]
        if len(self.finished) == width and survivors:
            # A log-probability only falls; how far the length can lift the score is known.
            longest = self.request.max_tokens if self.params.length_penalty > 0 else num_tokens
            best = self.score(survivors[0].cumulative_logprob, longest)
            worst = self.finished[-1]
            if best <= self.score(worst.cumulative_logprob, len(worst.output)):
                survivors = []
        return survivors

    def score(self, cumulative_logprob: float, num_tokens: int) -> float:
        """What beams are compared by in the end."""
        return float(cumulative_logprob / num_tokens**self.params.length_penalty)

    def _finish(self, survivor: Survivor, finish_reason: str) -> None:
        beam = Branch(self.request, len(self.finished))
        beam.output = [*survivor.parent.output, survivor.token]
        beam.cumulative_logprob = survivor.cumulative_logprob
        beam.finish_reason = finish_reason
        self.finished.append(beam)
