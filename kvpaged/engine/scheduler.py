"""Who computes what in the next step, who must wait, and who is preempted.

The oldest branch never loses its pages to another, and `Engine` lets in only what fits the pool alone: so the oldest
always gets on, down to a pool that holds no more than it. That is why everything ends.
Even alone it may have to make way for itself: the prefix cache can hold a twin of one of its pages, which cannot be
evicted while pages behind it are in use. When it begins again, it takes the twin.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from time import perf_counter

from kvpaged.cache import PagedKVCache
from kvpaged.checks import int_within, positive_int
from kvpaged.engine.batch import Chunk
from kvpaged.engine.events import EngineEvent
from kvpaged.engine.metrics import Counters
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.sampling_params import BeamSearchParams
from kvpaged.engine.speculation import PromptLookup
from kvpaged.page_pool import OutOfPages
from kvpaged.sequence import Sequence


class Scheduler:
    """Continuous batching (Yu et al., "Orca", 2022): branches join and leave the batch at any step.

    running: branches that own a sequence. waiting: those that do not, yet have tokens to compute. Both in order of
    arrival. Branches that decode come first; what is left of `max_batched_tokens` goes to prompts, in chunks (Agrawal
    et al., "Sarathi", 2023). When pages run out, the last arrived goes, and is computed again later: `release`
    donates its computed pages to the prefix cache, where it often finds them again.
    """

    def __init__(
        self,
        cache: PagedKVCache,
        counters: Counters,
        max_batched_tokens: int,
        max_running: int,
        num_speculative_tokens: int,
    ) -> None:
        """Raises ValueError for a limit below 1."""
        self.max_batched_tokens = positive_int("max_batched_tokens", max_batched_tokens)
        self.max_running = positive_int("max_running", max_running)
        self.num_speculative_tokens = int_within("num_speculative_tokens", num_speculative_tokens, 0)
        self.waiting: list[Branch] = []
        self.running: list[Branch] = []
        self.cache = cache
        self._counters = counters
        self._seats = 0  # taken by running branches, those that will fork from them included

    def wait(self, branch: Branch) -> None:
        """Put a branch without a sequence where its arrival puts it: one that was preempted, at the head."""
        insort(self.waiting, branch, key=_order)

    def run(self, branch: Branch) -> None:
        """Let a branch run that has a sequence already: one that was forked."""
        insort(self.running, branch, key=_order)
        self._seats += branch.seats

    def run_or_wait(self, branch: Branch) -> None:
        """Let a branch run that was forked, if there is a seat: another may have taken a preempted beam's."""
        if branch.sequence is not None and self._seats + branch.seats <= self.max_running:
            self.run(branch)
            return
        if branch.sequence is not None:
            branch.sequence.release()
            branch.sequence = None
        self.wait(branch)

    def seat_forks(self, branch: Branch) -> None:
        """From now on a branch stands for itself alone: its request's other branches take their own seats."""
        self._seats += 1 - branch.seats
        branch.seats = 1

    def remove(self, branch: Branch) -> None:
        """Forget a branch, and give its pages back if it has any."""
        if branch.sequence is not None:
            self._stop(branch)
        elif branch in self.waiting:
            self.waiting.remove(branch)

    def preempt(self, branch: Branch) -> None:
        """Take a running branch's pages; it waits, unless it has nothing to compute."""
        assert branch.sequence is not None
        self.cache.events.add(EngineEvent.PREEMPT, branch.sequence.id, number=branch.request.id)
        branch.request.metrics.preemptions += 1
        self._counters.preemptions += 1
        self._stop(branch)
        if branch.candidates is None:
            self.wait(branch)

    def preempt_all(self) -> None:
        """Preempt every branch, after a step that failed.

        A step leaves slots reserved, guesses among the tokens, or K and V without the token they lead to. Nobody need
        know which: a branch that begins again goes by its prompt and its output alone.
        """
        for branch in self.running[::-1]:
            self.preempt(branch)

    def restart(self, requests: Iterable[Request]) -> None:
        """Let what goes on of these requests, and nothing else, wait: without sequences, and with what it was given."""
        self.running, self._seats, waiting = [], 0, []
        for request in requests:
            for branch in request.branches:
                branch.sequence = branch.candidates = None
                branch.forget_text()
                del branch.logprobs[len(branch.output) :]
                branch.seats = 1 if branch.output or len(request.branches) > 1 else request.width
                if branch.finish_reason is None:
                    waiting.append(branch)
        self.waiting = sorted(waiting, key=_order)

    def check(self, requests: Iterable[Request], others: Iterable[Sequence] = ()) -> None:
        """Raise AssertionError unless the sequences are those of running branches of these requests, and `others`."""
        branches = [branch for request in requests for branch in request.branches if branch.finish_reason is None]
        running = [branch for branch in branches if branch.sequence is not None]
        waiting = [branch for branch in branches if branch.sequence is None and branch.candidates is None]
        owned = {branch.sequence for branch in running}
        for sequence in self.cache.sequences - owned - set(others):
            raise AssertionError(f"{sequence} belongs to no request that goes on")
        for name, known, found in (("run", running, self.running), ("wait", waiting, self.waiting)):
            if sorted(known, key=_order) != found:
                raise AssertionError(f"{known} should {name}, but the scheduler has {found}")
        if self._seats != sum(branch.seats for branch in running):
            raise AssertionError(f"{self._seats} seats are taken, but {len(running)} branches run: {running}")

    def schedule(self) -> list[Chunk]:
        """Choose the chunks of the next step; their slots are reserved. Empty when nothing is left to do."""
        prefilling: list[Branch] = []
        decoding: list[Branch] = []
        for branch in self.running:
            sequence = branch.sequence
            assert sequence is not None
            if sequence.num_computed < sequence.table.num_tokens:
                prefilling.append(branch)
            elif branch.candidates is None:
                decoding.append(branch)
        chunks: list[Chunk] = []
        budget = self.schedule_decodes(decoding, chunks)
        for branch in prefilling:
            if budget and branch.sequence is not None:  # it may have been preempted since
                budget -= self._schedule_prompt(branch, branch.sequence, budget, chunks)
        self._admit(budget, chunks, [branch.sequence for branch in prefilling if branch.sequence is not None])
        return chunks

    def refuse_if_stuck(self, num_unfinished: int) -> None:
        """Raise OutOfPages if requests wait for pages that none of them, and no eviction, will ever give back."""
        owned = Counter(node.page_id for node in self.cache.prefix.nodes())
        for branch in self.running:
            assert branch.sequence is not None
            owned.update(branch.sequence.table.page_ids)
        pool = self.cache.pool
        held = sum(count > owned[page_id] for page_id, count in enumerate(pool.ref_counts))
        if held and num_unfinished:
            raise OutOfPages(
                f"no request can go on: {num_unfinished} are unfinished, and {held} of {pool.num_used} pages "
                "in use are held by somebody else than this engine; release them, or cancel requests"
            )

    def schedule_decodes(self, branches: list[Branch], chunks: list[Chunk]) -> int:
        """Schedule a token for each branch that decodes, oldest first; return what is left of the budget."""
        budget = self.max_batched_tokens
        for index, branch in enumerate(branches):
            if not budget:
                break
            sequence = branch.sequence
            while sequence is not None:
                try:
                    sequence.append(branch.output[-1])
                    break
                except OutOfPages:
                    self.preempt_last()
                    sequence = branch.sequence  # None, if the last was the branch itself
            if sequence is None:
                continue
            num_drafts = 0
            if self.num_speculative_tokens:
                num_drafts = self._append_drafts(branch, sequence, spare=budget - len(branches) + index)
            stop = sequence.table.num_tokens
            chunks.append(Chunk(branch, stop - 1 - num_drafts, stop, num_drafts))
            budget -= 1 + num_drafts
        return budget

    def preempt_last(self) -> None:
        """Preempt who arrived last; of a request's branches, first those that have nothing to compute."""
        self.preempt(max(self.running, key=lambda each: (each.request.id, each.candidates is not None, each.index)))

    def _append_drafts(self, branch: Branch, sequence: Sequence, spare: int) -> int:
        """Reserve slots for guesses of what comes next, as far as there is room without taking anybody's."""
        room = min(self.num_speculative_tokens, spare, branch.request.max_tokens - len(branch.output) - 1)
        if room <= 0 or isinstance(branch.request.params, BeamSearchParams):
            return 0
        if branch.lookup is None:
            branch.lookup = PromptLookup()
        drafts = branch.lookup.propose(sequence.tokens, room)
        for count, token in enumerate(drafts):
            try:
                sequence.append(token)
            except OutOfPages:
                return count
        return len(drafts)

    def _schedule_prompt(self, branch: Branch, sequence: Sequence, budget: int, chunks: list[Chunk]) -> int:
        start = sequence.num_computed
        stop = min(len(sequence), start + budget)
        chunks.append(Chunk(branch, start, stop))
        return stop - start

    def _admit(self, budget: int, chunks: list[Chunk], prefilling: list[Sequence]) -> None:
        """Let waiting branches run, oldest first, while there is budget, a seat, and room for their tokens."""
        if not self.waiting:
            return
        page_size, caching = self.cache.page_size, self.cache.prefix_caching
        by_first_page: defaultdict[object, list[Sequence]] = defaultdict(list)
        for sequence in prefilling if caching else ():
            by_first_page[sequence.cache_salt, tuple(sequence.tokens[:page_size])].append(sequence)
        index = 0
        while budget and index < len(self.waiting):
            branch = self.waiting[index]
            tokens = branch.request.prompt_tokens + branch.output
            alike = by_first_page[branch.request.cache_salt, tuple(tokens[:page_size])] if caching else []
            if alike and self._is_being_computed(branch, tokens, alike):
                index += 1
            elif self._seats + branch.seats <= self.max_running and (begun := self._begin(branch, tokens)):
                del self.waiting[index]
                budget -= self._schedule_prompt(branch, begun, budget, chunks)
                alike.append(begun)
            elif chunks or not self._preempt_idle():
                break

    def _is_being_computed(self, branch: Branch, tokens: list[int], others: list[Sequence]) -> bool:
        """Whether full pages that this branch can use will be cached soon, and are not yet: then it pays to wait."""
        page_size, usable = self.cache.page_size, len(tokens) - 1
        num_cached = self.cache.prefix.match(tokens[:usable], branch.request.cache_salt).num_tokens
        for other in others:
            shared = 0
            for start in range(0, min(usable, len(other) // page_size * page_size), page_size):
                stop = min(start + page_size, usable)
                if tokens[start:stop] != other.tokens[start:stop]:
                    break
                shared = stop
            if shared > num_cached:
                return True
        return False

    def _begin(self, branch: Branch, tokens: list[int]) -> Sequence | None:
        """Give a branch a sequence, if there are pages for it."""
        request, counters = branch.request, self._counters
        try:
            sequence = self.cache.sequence(tokens, request.cache_salt)
        except OutOfPages:
            return None
        if request.metrics.first_scheduled is None:
            request.metrics.first_scheduled = perf_counter()
            request.num_cached_tokens = sequence.num_cached_tokens
            counters.prompt_tokens += len(tokens)
            counters.cached_tokens += sequence.num_cached_tokens
        else:
            counters.recovered_tokens += sequence.num_cached_tokens
        self.cache.events.add(EngineEvent.ADMIT, sequence.id, number=request.id)
        branch.sequence = sequence
        self.run(branch)
        return sequence

    def _preempt_idle(self) -> bool:
        """Preempt the last beam that waits for its siblings: a sibling may be who needs the room."""
        idle = [branch for branch in self.running if branch.candidates is not None]
        if idle:
            self.preempt(idle[-1])
        return bool(idle)

    def _stop(self, branch: Branch) -> None:
        assert branch.sequence is not None
        branch.sequence.release()
        branch.sequence = None
        self.running.remove(branch)
        self._seats -= branch.seats


def _order(branch: Branch) -> tuple[int, int]:
    return branch.order
