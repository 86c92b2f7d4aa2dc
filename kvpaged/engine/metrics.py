"""What serving took: for one request, and for the engine. The terms are vLLM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class RequestMetrics:
    """When things happened to one request (seconds of `time.perf_counter`), and what it took."""

    arrival: float
    first_scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    computed_tokens: int = 0  # through the model, those computed again after a preemption included
    preemptions: int = 0

    @property
    def queue_time(self) -> float | None:
        """Seconds from arrival to the first forward pass."""
        return _between(self.arrival, self.first_scheduled)

    @property
    def prefill_time(self) -> float | None:
        """Seconds from there to the first token."""
        return _between(self.first_scheduled, self.first_token)

    @property
    def decode_time(self) -> float | None:
        """Seconds from there to the last."""
        return _between(self.first_token, self.finished)

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from arrival to the first token."""
        return _between(self.arrival, self.first_token)

    @property
    def total_time(self) -> float | None:
        """Seconds from arrival to the end, whatever ended it; None while more is to come."""
        return _between(self.arrival, self.finished)


def _between(start: float | None, stop: float | None) -> float | None:
    return None if start is None or stop is None else stop - start


class StepRecord(NamedTuple):
    """One step, and the engine after it (used_pages, mapped_pages: during it)."""

    seconds: float  # from the opening of the engine to the end of the step
    tokens: int  # computed in this step
    running: int
    waiting: int
    used_pages: int  # during the step: owned by anybody, the prefix cache included
    cached_pages: int  # owned by the prefix cache, and maybe others
    mapped_pages: int  # during the step: in the tables of its sequences; a page that several share counts for each


@dataclass(kw_only=True)
class Counters:
    """What the engine counts as it goes."""

    steps: int = 0
    requests_finished: int = 0
    prompt_tokens: int = 0  # of the requests that began
    cached_tokens: int = 0  # of those, found in the prefix cache when the request first began
    recovered_tokens: int = 0  # found there when a preempted sequence came back
    computed_tokens: int = 0  # through the model, prompts and recomputation included
    generated_tokens: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0  # drafts that were right
    preemptions: int = 0
    peak_pages: int = 0
    slots: int = 0  # in mapped pages, over all steps
    filled_slots: int = 0  # of those, with a token
    forward_seconds: float = 0.0
    step_seconds: float = 0.0  # forward included


@dataclass(kw_only=True)
class EngineMetrics(Counters):
    """Everything an engine did so far, and how it stands now."""

    requests_running: int
    requests_waiting: int
    copies: int  # pages copied on write
    num_pages: int
    used_pages: int
    cached_pages: int
    free_pages: int

    @property
    def waste(self) -> float:
        """Share of the slots in mapped pages that held no token, over all steps."""
        return 1 - self.filled_slots / self.slots if self.slots else 0.0

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that needed no computing."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the draft tokens that were right."""
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else 0.0

    @property
    def overhead(self) -> float:
        """Share of the steps' time that was not the model's forward pass."""
        return 1 - self.forward_seconds / self.step_seconds if self.step_seconds else 0.0
