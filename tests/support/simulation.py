"""Random histories of the cache, beside a model that keeps every sequence apart.

One seed makes one episode: a cache of random size, and requests that arrive, share beginnings, continue earlier
conversations, fork, search with beams, guess, are preempted and cancelled, under several salts, while allocations and
copies fail. What a slot holds stands for K and V: a number for the salt and all tokens up to that slot. Whatever a
sequence would read is compared with what the model knows of that sequence alone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from kvpaged import EventLog, OutOfPages, PagedKVCache, Replay, Sequence
from support.faults import InjectedError, fail_allocations, fail_copies
from support.slot_storage import SlotStorage


@dataclass
class Apart:
    """What the model knows of one sequence: its tokens, and for each the number of the whole path up to it."""

    sequence: Sequence
    tokens: list[int]
    paths: list[int] = field(default_factory=list)


class Episode:
    """Everything that one seed makes happen. Raises AssertionError as soon as anything is not as it should be."""

    def __init__(self, seed: int) -> None:
        self.random = choose = random.Random(seed)
        self.page_size = choose.choice([1, 2, 3, 4, 8, 16])
        self.num_pages = choose.choice([8, 12, 20, 40, 100])
        self.most_tokens = min(60, self.num_pages * self.page_size // 2)
        self.storage = SlotStorage(self.num_pages, self.page_size)
        log = EventLog(recording=choose.random() < 0.1)
        self.cache = PagedKVCache(self.num_pages, self.page_size, choose.random() < 0.9, self.storage, log)
        self.pages, self.copies = fail_allocations(self.cache), fail_copies(self.cache)
        self.num_excused = 0
        self.failing = choose.random() < 0.3
        self.salts = choose.choice([[None], [None, "a"], ["a", "b", "c"]])
        self.vocabulary = choose.choice([2, 3, 50])  # few tokens, so that prefixes meet often; or so that they part
        self.beginnings = [self.some_tokens(0, self.most_tokens // 2) for _ in range(3)]
        self.said: list[list[int]] = []  # conversations that may go on
        self.families: list[list[Apart]] = []  # live branches, by request
        self.numbers: dict[tuple[object, int], int] = {}
        self.counts: Counter[str] = Counter()

    @property
    def num_injected(self) -> int:
        """Allocations and copies that were made to fail so far."""
        return self.pages.num_fired + self.copies.num_fired

    def run(self, num_requests: int) -> Counter[str]:
        """Let so many requests arrive, and end; return what happened, counted."""
        while self.counts["requests"] < num_requests:
            self.step()
        self.end()
        return self.counts

    def step(self) -> None:
        """One thing happens."""
        choose = self.random
        if self.failing and choose.random() < 0.05:
            choose.choice([self.pages, self.copies]).set(choose.randint(1, 3))
        if not self.families or (len(self.families) < 6 and choose.random() < 0.3):
            self.arrive()
        else:
            family = choose.choice(self.families)
            actions = [self.decode, self.fork, self.search, self.guess, self.preempt, self.finish, self.evict]
            [action] = choose.choices(actions, weights=[40, 4, 6, 8, 4, 16, 1])
            action(family)
        if choose.random() < 0.02:
            self.check()

    def arrive(self) -> None:
        """A request, most of which begin like others. It may be cancelled before all of its prompt is computed."""
        choose = self.random
        beginning = choose.choice(self.beginnings + self.said[-5:])
        prompt = beginning[: choose.choice([len(beginning), choose.randint(0, len(beginning))])]
        prompt = [*prompt, *self.some_tokens(1, 8)][: self.most_tokens]
        self.counts["requests"] += 1
        salt = choose.choice(self.salts)
        branch = self.begin(prompt, salt)
        while branch is None:  # it waits until there is room; alone it has room, unless a failure is injected
            assert self.families or self.num_injected > self.num_excused, "a request finds no room, and it is alone"
            self.num_excused = self.num_injected
            if self.families:
                self.finish(choose.choice(self.families))
            branch = self.begin(prompt, salt)
        family = [branch]
        self.families.append(family)
        if choose.random() < 0.2:  # in chunks
            self.compute(branch, choose.randint(branch.sequence.num_computed, len(branch.sequence)))
        if choose.random() < 0.05:
            self.counts["cancelled"] += 1
            self.leave(family)
        else:
            self.compute(branch)

    def decode(self, family: list[Apart]) -> None:
        """One token more for each branch."""
        for branch in family:
            if self.append(branch, self.a_token()):
                self.compute(branch)

    def fork(self, family: list[Apart]) -> None:
        """Several samples of one prompt go on, each its own way."""
        for _ in range(self.random.randint(1, 3)):
            self.add_fork(family, self.random.choice(family))
        self.decode(family)

    def search(self, family: list[Apart]) -> None:
        """A step of beam search: the best branches get several heirs, the others none."""
        parents = family[:]
        for _ in range(self.random.randint(1, 4)):
            self.add_fork(family, self.random.choice(parents))
        for parent in parents:
            self.release(parent)
            family.remove(parent)
        self.decode(family)

    def guess(self, family: list[Apart]) -> None:
        """Speculation: several tokens are reserved, all are computed, some are taken back."""
        branch = self.random.choice(family)
        length = len(branch.tokens)
        for _ in range(self.random.randint(1, 6)):
            if not self.append(branch, self.a_token()):
                break
        guessed = len(branch.tokens)
        kept = self.random.randint(length, guessed)
        if self.random.random() < 0.2:  # the user goes back to an earlier turn
            kept = self.random.randint(1, length)
        if self.random.random() < 0.5:
            self.write(branch, guessed)  # all were computed, and only then some found wrong
        branch.sequence.truncate(kept)
        del branch.tokens[kept:], branch.paths[kept:]
        self.compute(branch)
        self.counts["guesses"] += guessed - length
        self.counts["guesses taken back"] += guessed - kept

    def preempt(self, family: list[Apart]) -> None:
        """Pages are given back, and the same tokens begin again."""
        branch = self.random.choice(family)
        self.release(branch)
        family.remove(branch)
        again = self.begin(branch.tokens, branch.sequence.cache_salt)
        self.counts["preempted"] += 1
        if again is not None:
            family.append(again)
            self.compute(again)
        elif not family:
            self.families.remove(family)

    def finish(self, family: list[Apart]) -> None:
        """A request ends; what was said may be the beginning of the next."""
        self.said.append(self.random.choice(family).tokens)
        self.leave(family)

    def evict(self, _: list[Apart]) -> None:
        """Somebody wants pages."""
        num_free = self.cache.pool.num_free
        evicted = self.cache.prefix.evict(self.random.randint(1, self.num_pages))
        assert self.cache.pool.num_free == num_free + evicted
        self.counts["evicted by hand"] += evicted

    # --- what everything above is made of ---

    def begin(self, prompt: list[int], salt: object) -> Apart | None:
        """Begin a sequence, if there is room, and read what it found in the cache."""
        try:
            sequence = self.cache.sequence(prompt, salt)
        except (OutOfPages, InjectedError) as error:
            self.counts[f"begin: {type(error).__name__}"] += 1
            return None
        branch = Apart(sequence, list(prompt), self.paths_of(salt, prompt))
        assert sequence.num_computed == sequence.num_cached_tokens < len(prompt)
        self.read(branch)
        self.counts["tokens begun"] += len(prompt)
        self.counts["tokens found in the cache"] += sequence.num_cached_tokens
        return branch

    def append(self, branch: Apart, token: int) -> bool:
        if len(branch.tokens) >= self.most_tokens:
            return False
        try:
            branch.sequence.append(token)
        except (OutOfPages, InjectedError) as error:
            self.counts[f"append: {type(error).__name__}"] += 1
            assert len(branch.sequence) == len(branch.tokens)
            return False
        branch.paths.append(self.path(branch.paths[-1], token))
        branch.tokens.append(token)
        return True

    def compute(self, branch: Apart, stop: int | None = None) -> None:
        stop = len(branch.tokens) if stop is None else stop
        self.write(branch, stop)
        branch.sequence.mark_computed(stop)

    def write(self, branch: Apart, stop: int) -> None:
        """Store K and V, as a model would; and look at the owners first."""
        start = branch.sequence.num_computed
        for slot, path in zip(branch.sequence.slot_mapping(start, stop), branch.paths[start:stop], strict=True):
            owners = self.cache.pool.ref_count(slot // self.page_size)
            assert owners == 1, f"law 2: a write to page {slot // self.page_size}, which has {owners} owners"
            self.storage.slots[slot] = path
        self.counts["tokens computed"] += stop - start

    def read(self, branch: Apart) -> None:
        """Compare all that a sequence would read with what the model knows of it alone."""
        sequence, slots = branch.sequence, self.storage.slots
        assert sequence.tokens == branch.tokens, f"sequence {sequence.id} has the tokens of another"
        seen = [slots.get(slot) for slot in sequence.slot_mapping(0, sequence.num_computed)]
        if seen != branch.paths[: len(seen)]:
            index = next(index for index, path in enumerate(seen) if path != branch.paths[index])
            page_id, slot = sequence.table.lookup(index)
            raise AssertionError(f"sequence {sequence.id}, token {index}: slot {slot} of page {page_id} is another's")
        self.counts["tokens read"] += len(seen)

    def release(self, branch: Apart) -> None:
        self.read(branch)
        branch.sequence.release()

    def leave(self, family: list[Apart]) -> None:
        for branch in family:
            self.release(branch)
        self.families.remove(family)

    def add_fork(self, family: list[Apart], parent: Apart) -> None:
        family.append(Apart(parent.sequence.fork(), parent.tokens[:], parent.paths[:]))
        self.counts["forks"] += 1

    def path(self, before: object, token: int) -> int:
        """The number of a path: equal numbers, equal salts and equal tokens. Nothing is hashed that could collide."""
        return self.numbers.setdefault((before, token), len(self.numbers))

    def paths_of(self, salt: object, tokens: list[int]) -> list[int]:
        before: object = ("salt", salt)
        paths = []
        for token in tokens:
            before = self.path(before, token)
            paths.append(before)
        return paths

    def a_token(self) -> int:
        return self.random.randrange(self.vocabulary)

    def some_tokens(self, least: int, most: int) -> list[int]:
        return [self.a_token() for _ in range(self.random.randint(least, most))]

    def check(self) -> None:
        """Everything that costs time in proportion to everything that is alive."""
        self.cache.check()
        branches = [branch for family in self.families for branch in family]
        assert self.cache.sequences == {branch.sequence for branch in branches}
        tenant: dict[int, object] = {}
        for branch in branches:
            self.read(branch)
            salt = branch.sequence.cache_salt
            for page_id in branch.sequence.table.page_ids:
                assert tenant.setdefault(page_id, salt) == salt, f"page {page_id} belongs to two tenants"
        self.counts["checks"] += 1

    def end(self) -> None:
        """Everybody leaves, and every page must come back."""
        self.check()
        for family in self.families[:]:
            self.leave(family)
        self.cache.check()
        pool, prefix = self.cache.pool, self.cache.prefix
        if self.cache.events.recording:
            replay = Replay(self.page_size).apply_all(self.cache.events)
            assert replay.cached == {node.page_id: len(node.tokens) for node in prefix.nodes()}
            assert not replay.tables
        assert pool.num_used == len(prefix), "somebody still owns pages"
        prefix.clear()
        assert pool.num_free == self.num_pages, f"{pool.num_used} pages never came back"
        self.counts["slots copied"] += self.storage.num_copied
        self.counts["failures injected"] += self.num_injected


class SimulationFailed(AssertionError):
    """An episode went wrong. The message is one line, and the line says how to see it again."""


def simulate(seed: int, num_requests: int = 100) -> Counter[str]:
    """Run one episode. Raises SimulationFailed."""
    try:
        return Episode(seed).run(num_requests)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        line = f"python tools/long_checks.py cache --seed {seed} --requests {num_requests}"
        raise SimulationFailed(f"{line}  # {what}") from error
