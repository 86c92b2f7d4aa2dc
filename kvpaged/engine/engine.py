"""The engine: requests are submitted; each step is one forward pass for many of them, done wholly or not at all."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict
from time import perf_counter

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from kvpaged.checks import positive_int
from kvpaged.engine.advance import advance
from kvpaged.engine.batch import Batch, pack
from kvpaged.engine.books import Books
from kvpaged.engine.events import EngineEvent
from kvpaged.engine.intake import Intake, Prompt
from kvpaged.engine.metrics import Counters, EngineMetrics, StepRecord
from kvpaged.engine.opening import open_cache
from kvpaged.engine.output import RequestOutput, output_of
from kvpaged.engine.request import Request
from kvpaged.engine.sampling_params import Params, SamplingParams
from kvpaged.engine.scheduler import Scheduler
from kvpaged.engine.turn import Turn, is_running
from kvpaged.events import EventLog
from kvpaged.model import LanguageModel, load_tokenizer
from kvpaged.model.compute import claim
from kvpaged.model.fast import fast
from kvpaged.page import PageStorage
from kvpaged.page_pool import OutOfPages
from kvpaged.sequence import Sequence as PagedSequence
from kvpaged.tier import Store, Tier, TieredKVCache

ATTEMPTS = 3  # times that `generate` runs a step that fails
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
        storage: Callable[..., PageStorage] = PageStorage,
        tier: Tier | None = None,
        store: Store = Store.AT_ONCE,
    ) -> None:
        """Open an engine on a model.

        max_batched_tokens: tokens computed in one step, at most. max_running: sequences that own pages at once, at
        most. max_waiting: requests that may wait; one more raises QueueFull. num_speculative_tokens: how many tokens to
        guess at each step from what the context says elsewhere (prompt lookup); 0 guesses none. tokenizer: the
        model's own, if None. poisoned: check every access to a page, slowly (see `kvpaged.poison`). storage: what opens
        the pages, called as `PageStorage` is (see `kvpaged.quantised`). tier: where pages go that leave the pool, and
        store when (see `kvpaged.tier`). Raises ValueError for a number out of range, and for a tier of other pages.
        """
        if isinstance(model, str):
            raise TypeError(f"model is {model!r}, a name: load it first, Engine(load_model({model!r}))")
        self.model = model
        if tokenizer is None and model.checkpoint is not None and (model.checkpoint / "tokenizer.json").is_file():
            tokenizer = load_tokenizer(model.checkpoint)
        self.tokenizer = tokenizer
        self._storage, self.cache = open_cache(
            model, num_pages, page_size, prefix_caching, events, poisoned, storage, tier, store
        )
        self.max_waiting = None if max_waiting is None else positive_int("max_waiting", max_waiting)
        self.history: deque[StepRecord] = deque(maxlen=HISTORY)
        self._counters = Counters()
        self._scheduler = Scheduler(self.cache, self._counters, max_batched_tokens, max_running, num_speculative_tokens)
        self._intake = Intake(model.config, tokenizer, num_pages, page_size, max_running)
        self._books = Books(self._scheduler, self._counters)
        self._turn = Turn()
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
        nothing with these. Raises as `submit` does, but for QueueFull, and before anything runs; later, what the
        pass of a step raised three times in a row, or the rest of it once. If interrupted, everything is cancelled.

        One thread at a time may call an engine: another gets a RuntimeError. In between (within a stream, say) the same
        thread may call whatever it likes.
        """
        requests = self._intake.requests(prompts, params, cache_salt)
        shown = sys.stderr.isatty()
        bar = tqdm(total=len(requests), unit="request", delay=2.0, disable=not shown, leave=False)
        with self._turn.taken(), bar:
            for finished in self._serve(requests):
                bar.update(finished)
            return [self.output(request) for request in requests]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Params | Sequence[Params] | None = None,
        cache_salt: Hashable = None,
    ) -> Iterator[RequestOutput]:
        """The same, but yield a request's output so far after each step that brought it tokens, and when it has ended.

        Beams are yielded at their end only. To stop listening cancels what is unfinished.
        """
        return self._stream(self._intake.requests(prompts, params, cache_salt))

    def submit(self, prompt: Prompt, params: Params | None = None, cache_salt: Hashable = None) -> Request:
        """Queue one request, for those who call `step` themselves.

        Raises ValueError for a prompt that is empty, leaves no room in the context, names a token outside the
        vocabulary, or could never fit the pool; QueueFull when `max_waiting` requests wait already.
        """
        request = self._intake.request(0, prompt, SamplingParams() if params is None else params, cache_salt)
        with self._turn.taken():
            self._settle()
            if not self._has_room:
                raise QueueFull(
                    f"{len(self._scheduler.waiting)} requests wait, and max_waiting is {self.max_waiting}: "
                    "run some steps, then submit again"
                )
            self._books.queue(request)
        return request

    def cancel(self, request: Request) -> bool:
        """End a request now, with "abort" for a reason; its pages are given back. False if it is finished already.

        Within a step (from a hook of the model, say), the request ends with the step. Raises TypeError for what is no
        request.
        """
        _require_request(request)
        with self._turn.taken():
            if self._books.requests.get(request.id) is not request or request in self._books.unwanted:
                return False
            self._books.unwanted.add(request)
            if not self._is_stepping:
                self._settle()
            return True

    def output(self, request: Request) -> RequestOutput:
        """What a request has so far. If its tokens cannot be made text, it ends with that error.

        Raises TypeError for what is no request.
        """
        _require_request(request)
        try:
            return output_of(request)
        except Exception as error:
            if not request.finished and self._books.requests.get(request.id) is not request:
                raise  # it is another engine's, where it goes on
            with self._turn.taken():
                self._books.fail(request, error)
            return output_of(request)

    def check(self, others: Iterable[PagedSequence] = ()) -> None:
        """Raise AssertionError if a law of ownership is broken, or somebody owns pages for no request that goes on.

        others: the sequences that somebody else began on this engine's cache.
        """
        self.cache.check()
        self._scheduler.check(self._books.requests.values(), others)

    @property
    def num_unfinished(self) -> int:
        """Requests that were submitted and not finished."""
        return sum(request not in self._books.unwanted for request in self._books.requests.values())

    def step(self) -> list[Request]:
        """Schedule, run one forward pass, choose the next tokens; return the requests that ended since the last call.

        What fails for one request ends that request. If the step fails as a whole, or is interrupted, what had
        something to compute is preempted: the next step computes it again. Raises OutOfPages when no request can ever
        go on, because others hold the pages; ValueError when the weights have changed and pages hold what the old
        ones computed; RuntimeError within another step of this engine.
        """
        with self._turn.taken():
            self._advance()
            ended, self._books.ended = self._books.ended, {}
            return list(ended.values())

    def _advance(self) -> None:
        """Run a step, and leave it to the next call of `step` to tell what ended by it."""
        with self._turn.taken():
            self._settle()
            self.run_pass()
            self._settle()

    def run_pass(self) -> None:
        """What a step does between settling what was left before it and what came up meanwhile. See `step`."""
        started = perf_counter()
        claim(self.cache, self.model)
        with torch.inference_mode(), self._books.whole():
            chunks = self._scheduler.schedule()
            if not chunks:
                self._scheduler.refuse_if_stuck(len(self._books.requests))
                return
            used_pages = self.cache.pool.num_used
            batch = pack(chunks, self._storage)
            packed = perf_counter()
            self._books.is_computing = True
            logits = fast(self.model)(batch.tokens, batch.positions, batch.pages, batch.logits_at)
            self._books.is_computing = False
            computed = perf_counter()
            self._books.finish(advance(chunks, logits, self._scheduler, self._counters))
        self._count(batch, used_pages, computed - packed, started)

    def metrics(self) -> EngineMetrics:
        """Everything so far, and how the engine stands now."""
        pool, started = self.cache.pool, [each.metrics.first_scheduled for each in self._books.requests.values()]
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

    @property
    def _is_stepping(self) -> bool:
        return self._books.half_done and is_running(Engine.run_pass.__code__, self)

    def _settle(self) -> None:
        """Mend what was left half done, end what nobody wants, store the pages that wait for the tier."""
        if self._is_stepping:
            raise RuntimeError("a step of this engine is under way: call it when the step is over")
        self._books.settle()
        if isinstance(self.cache, TieredKVCache):
            with self._books.whole():
                self.cache.outbound.run()

    def _serve(self, requests: Sequence[Request]) -> Iterator[int]:
        """Run requests to their end, whatever else drives the engine; yield after each step how many it finished."""
        pending, left, known = deque(requests), list(requests), -1
        try:
            while left:
                self._settle()
                while pending and self._has_room:
                    self._books.queue(pending.popleft())
                self._try_step()
                before = len(left)
                if self._counters.requests_finished != known:  # by this step, or by somebody else's
                    known, left = self._counters.requests_finished, [each for each in left if not each.finished]
                yield before - len(left)
        finally:
            self._books.unwanted.update(requests)
            self._settle()
            for request in requests:  # their ends are told already
                self._books.ended.pop(request.id, None)

    def _try_step(self) -> None:
        """Run a step; one whose pass fails may be run again, twice. Where the books broke, that is told at once."""
        for attempt in range(ATTEMPTS):
            try:
                self._advance()
                return
            except (AssertionError, OutOfPages):  # broken laws, or no way to go on
                raise
            except Exception:
                if not self._books.is_undone or attempt == ATTEMPTS - 1:
                    raise

    def _stream(self, requests: Sequence[Request]) -> Iterator[RequestOutput]:
        streamed = [(0, False)] * len(requests)

        def grown() -> Iterator[RequestOutput]:
            for request in requests:
                told = sum(len(branch.output) for branch in request.branches), request.finished
                if told != streamed[request.index] and (request.finished or request.params.only_grows):
                    streamed[request.index] = told
                    yield self.output(request)

        for _ in self._serve(requests):
            yield from grown()
        yield from grown()

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


def _require_request(request: object) -> None:
    if not isinstance(request, Request):
        raise TypeError(f"{request!r} is no request: give what `submit` returned")
