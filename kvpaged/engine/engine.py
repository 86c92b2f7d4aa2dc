"""The engine: requests are submitted, and each step is one forward pass for many of them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict
from time import perf_counter

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from kvpaged.cache import PagedKVCache
from kvpaged.checks import positive_int
from kvpaged.engine.advance import advance, end
from kvpaged.engine.batch import Batch, pack
from kvpaged.engine.events import EngineEvent
from kvpaged.engine.intake import Intake, Prompt
from kvpaged.engine.metrics import Counters, EngineMetrics, StepRecord
from kvpaged.engine.output import RequestOutput, output_of
from kvpaged.engine.request import Request
from kvpaged.engine.sampling_params import Params, SamplingParams
from kvpaged.engine.scheduler import Scheduler
from kvpaged.events import EventLog
from kvpaged.model import LanguageModel, load_tokenizer
from kvpaged.model.compute import open_storage
from kvpaged.model.fast import fast
from kvpaged.page import PageStorage
from kvpaged.poison import PoisonedStorage

HISTORY = 100_000  # steps that `Engine.history` remembers


class QueueFull(RuntimeError):
    """As many requests wait as the engine lets wait. Run some steps, then submit again."""


class Engine:
    """Runs requests together: each step is one forward pass over some tokens of many of them (continuous batching).

    Each request gets the tokens that it would get alone, and the same bits of K, V and logits, whatever its neighbours,
    the sizes of pool, pages and steps, preemption, prefix hits and guesses. `kvpaged.model.fast` says why, and which
    models that holds for; another's answers may differ from batch to batch where two tokens tie to the last bits.
    """

    def __init__(
        self,
        model: LanguageModel,
        num_pages: int = 256,
        page_size: int = 16,
        *,
        max_batched_tokens: int = 512,
        max_running: int = 64,
        max_waiting: int | None = None,
        prefix_caching: bool = True,
        num_speculative_tokens: int = 0,
        tokenizer: Tokenizer | None = None,
        events: EventLog | None = None,
        poisoned: bool = False,
    ) -> None:
        """Open an engine on a model.

        max_batched_tokens: tokens computed in one step, at most. max_running: sequences that own pages at once, at
        most. max_waiting: requests that may wait; one more raises QueueFull. num_speculative_tokens: how many tokens to
        guess at each step from what the context says elsewhere (prompt lookup); 0 guesses none. tokenizer: the
        model's own, if None. poisoned: check every access to a page, slowly (see `kvpaged.poison`). Raises ValueError
        for a number out of range.
        """
        if isinstance(model, str):
            raise TypeError(f"model is {model!r}, a name: load it first, Engine(load_model({model!r}))")
        self.model = model
        if tokenizer is None and model.checkpoint is not None and (model.checkpoint / "tokenizer.json").is_file():
            tokenizer = load_tokenizer(model.checkpoint)
        self.tokenizer = tokenizer
        self._storage = open_storage(model, num_pages, page_size, kind=PoisonedStorage if poisoned else PageStorage)
        self.cache = PagedKVCache(num_pages, page_size, prefix_caching, self._storage, events)
        if isinstance(self._storage, PoisonedStorage):
            self._storage.watch(self.cache)
        self.max_waiting = None if max_waiting is None else positive_int("max_waiting", max_waiting)
        self.history: deque[StepRecord] = deque(maxlen=HISTORY)
        self._counters = Counters()
        self._scheduler = Scheduler(self.cache, self._counters, max_batched_tokens, max_running, num_speculative_tokens)
        self._intake = Intake(model.config, tokenizer, num_pages, page_size, max_running)
        self._requests: dict[int, Request] = {}  # those not finished
        self._opened = perf_counter()

    def __repr__(self) -> str:
        name = self.model.checkpoint.name if self.model.checkpoint else type(self.model).__name__
        scheduler = self._scheduler
        return f"Engine({name}, {len(scheduler.running)} running, {len(scheduler.waiting)} waiting, {self.cache!r})"

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | Sequence[Params] | None = None,
        cache_salt: Hashable = None,
    ) -> list[RequestOutput]:
        """Run prompts (strings, or lists of token ids) to their end; return their outputs in the same order.

        params: for all prompts, or one for each; `SamplingParams()` if None. Requests with another `cache_salt` share
        nothing with these. Raises as `submit` does, but for QueueFull, and before anything runs. If interrupted,
        everything is cancelled.
        """
        requests = self._intake.requests(prompts, params, cache_salt)
        shown = sys.stderr.isatty()
        with tqdm(total=len(requests), unit="request", delay=2.0, disable=not shown, leave=False) as bar:
            for finished in self._serve(requests):
                bar.update(finished)
        return [self.output(request) for request in requests]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | Sequence[Params] | None = None,
        cache_salt: Hashable = None,
    ) -> Iterator[RequestOutput]:
        """The same, but yield a request's output so far after each step that brought it tokens.

        Beams are yielded at their end only. Whoever stops listening cancels what is unfinished.
        """
        return self._stream(self._intake.requests(prompts, params, cache_salt))

    def submit(self, prompt: Prompt, params: Params | None = None, cache_salt: Hashable = None) -> Request:
        """Queue one request, for those who call `step` themselves.

        Raises ValueError for a prompt that is empty, leaves no room in the context, names a token outside the
        vocabulary, or could never fit the pool; QueueFull when `max_waiting` requests wait already.
        """
        request = self._intake.request(0, prompt, SamplingParams() if params is None else params, cache_salt)
        if not self._has_room:
            raise QueueFull(
                f"{len(self._scheduler.waiting)} requests wait, and max_waiting is {self.max_waiting}: "
                "run some steps, then submit again"
            )
        self._queue(request)
        return request

    def cancel(self, request: Request) -> bool:
        """End a request now, with "abort" for a reason; its pages are given back. False if it is finished already."""
        if self._requests.get(request.id) is not request:
            return False
        end(request, self._scheduler)
        self._finish(request)
        return True

    def output(self, request: Request) -> RequestOutput:
        """What a request has so far. If its tokens cannot be made text, it ends with that error."""
        try:
            return output_of(request)
        except Exception as error:
            end(request, self._scheduler, error)
            for branch in request.branches:
                branch.finish_reason = "error"
            if self._requests.get(request.id) is request:
                self._finish(request)
            return output_of(request)

    @property
    def num_unfinished(self) -> int:
        """Requests that were submitted and not finished."""
        return len(self._requests)

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Schedule, run one forward pass, choose the next tokens; return the requests that are finished by it.

        If anything fails in it, whoever had something to compute is preempted: the next step computes it again.
        """
        started = perf_counter()
        try:
            chunks = self._scheduler.schedule()
            if not chunks:
                return []
            used_pages = self.cache.pool.num_used
            batch = pack(chunks, self._storage)
            packed = perf_counter()
            logits = fast(self.model)(batch.tokens, batch.positions, batch.pages.attend, batch.logits_at)
            computed = perf_counter()
            finished = advance(chunks, logits, self._scheduler, self._counters)
        except BaseException:
            self._scheduler.preempt_all()
            raise
        for request in finished:
            self._finish(request)
        self._count(batch, used_pages, computed - packed, started)
        return finished

    def metrics(self) -> EngineMetrics:
        """Everything so far, and how the engine stands now."""
        pool, started = self.cache.pool, [each.metrics.first_scheduled for each in self._requests.values()]
        return EngineMetrics(
            **asdict(self._counters),
            requests_running=len(started) - started.count(None),
            requests_waiting=started.count(None),
            copies=self._storage.num_copies,
            num_pages=pool.num_pages,
            used_pages=pool.num_used,
            cached_pages=len(self.cache.prefix),
            free_pages=pool.num_free,
        )

    @property
    def _has_room(self) -> bool:
        return self.max_waiting is None or len(self._scheduler.waiting) < self.max_waiting

    def _queue(self, request: Request) -> None:
        self._requests[request.id] = request
        self.cache.events.add(EngineEvent.QUEUE, tokens=tuple(request.prompt_tokens), number=request.id)
        self._scheduler.wait(request.branches[0])

    def _serve(self, requests: Sequence[Request]) -> Iterator[int]:
        """Run requests to their end; yield after each step how many of them it finished."""
        pending, ids = deque(requests), {request.id for request in requests}
        try:
            while ids:
                while pending and self._has_room:
                    self._queue(pending.popleft())
                finished = ids.intersection(request.id for request in self.step())
                ids -= finished
                yield len(finished)
        finally:
            for request in requests:
                self.cancel(request)

    def _stream(self, requests: Sequence[Request]) -> Iterator[RequestOutput]:
        streamed = [0] * len(requests)
        for _ in self._serve(requests):
            for request in requests:
                num_tokens = sum(len(branch.output) for branch in request.branches)
                if num_tokens > streamed[request.index] and (request.finished or request.params.only_grows):
                    streamed[request.index] = num_tokens
                    yield self.output(request)

    def _finish(self, request: Request) -> None:
        request.finished = True
        request.metrics.finished = perf_counter()
        self._counters.requests_finished += 1
        self.cache.events.add(EngineEvent.FINISH, number=request.id)
        del self._requests[request.id]

    def _count(self, batch: Batch, used_pages: int, forward_seconds: float, started: float) -> None:
        """Note what a step took."""
        counters, num_tokens = self._counters, len(batch.tokens)
        counters.steps += 1
        counters.computed_tokens += num_tokens
        counters.peak_pages = max(counters.peak_pages, used_pages)
        counters.slots += batch.mapped_pages * self.cache.page_size
        counters.filled_slots += batch.filled_slots
        self.cache.events.add(EngineEvent.STEP, number=num_tokens)
        now = perf_counter()
        counters.forward_seconds += forward_seconds
        counters.step_seconds += now - started
        self.history.append(
            StepRecord(
                now - self._opened,
                num_tokens,
                len(self._scheduler.running),
                len(self._scheduler.waiting),
                used_pages,
                len(self.cache.prefix),
                batch.mapped_pages,
            )
        )
