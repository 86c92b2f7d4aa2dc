"""The books of an engine: which requests go on, and which have ended. What is written in them is written wholly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from kvpaged.engine.advance import end
from kvpaged.engine.events import EngineEvent
from kvpaged.engine.metrics import Counters
from kvpaged.engine.request import Request
from kvpaged.engine.scheduler import Scheduler
from kvpaged.sequence import Sequence


class Books:
    """An engine's requests, and who mends what an error or an interrupt leaves half written of them.

    requests: those not finished. ended: those whose end no step has reported yet. unwanted: cancelled, and not ended
    yet. is_computing: the model's pass runs. is_undone: it failed, and nothing is left of it.
    """

    def __init__(self, scheduler: Scheduler, counters: Counters) -> None:
        self.requests: dict[int, Request] = {}
        self.ended: dict[int, Request] = {}
        self.unwanted: set[Request] = set()
        self.is_computing = self.is_undone = False
        self._scheduler = scheduler
        self._counters = counters
        self._cache = scheduler.cache
        # While something is half done: the sequences that are others', and stay as they are if it is interrupted.
        self._others: set[Sequence] | None = None

    @property
    def half_done(self) -> bool:
        """Whether something is being written, or was left half written."""
        return self._others is not None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is done in here is done wholly: if it fails or is interrupted, all branches begin again.

        Where a pass fails, who computed is preempted: the books were not being written. Anywhere else nothing that is
        half done can be trusted, and of what others have not even the prefix cache is kept.
        """
        own = {branch.sequence for branch in self._scheduler.running}
        self._others, self.is_computing, self.is_undone = self._cache.sequences - own, False, False
        try:
            yield
        except GeneratorExit:  # interrupted as it was entered, and collected later, maybe in the midst of another:
            raise  # what it left half done, `settle` sees
        except BaseException as error:
            if self.is_computing and isinstance(error, Exception):
                self._scheduler.preempt_all()
                self._restart()
                self.is_undone = True
            else:
                self._salvage()
            raise
        self._others = None

    def settle(self) -> None:
        """Finish what was left half done because not even the salvage was left in peace; end what nobody wants."""
        if self.half_done:
            self._salvage()
        if self.unwanted:
            with self.whole():
                for request in self.unwanted.intersection(self.requests.values()):
                    end(request, self._scheduler)
                self._finish_over()
            self.unwanted = set()

    def queue(self, request: Request) -> None:
        """Let a request wait for its turn."""
        with self.whole():
            self._cache.events.add(EngineEvent.QUEUE, tokens=tuple(request.prompt_tokens), number=request.id)
            self._scheduler.wait(request.branches[0])
            self.requests[request.id] = request

    def fail(self, request: Request, error: Exception) -> None:
        """End a request with an error, whatever it has so far."""
        with self.whole():
            end(request, self._scheduler, error)
            for branch in request.branches:
                branch.finish_reason = "error"
            self._finish_over()

    def finish(self, requests: Iterable[Request]) -> None:
        """Strike requests off, of which nothing more will come."""
        for request in requests:
            request.finished = True
            request.metrics.finished = perf_counter()
            self.ended[request.id] = request
            self.requests.pop(request.id)
            self._counters.requests_finished += 1
            self._cache.events.add(EngineEvent.FINISH, number=request.id)

    def _finish_over(self) -> None:
        self.finish([request for request in self.requests.values() if request.has_ended])

    def _salvage(self) -> None:
        assert self._others is not None
        self._cache.salvage(self._others)
        self._restart()

    def _restart(self) -> None:
        self._scheduler.restart(self.requests.values())
        self._finish_over()
        self._others = None
