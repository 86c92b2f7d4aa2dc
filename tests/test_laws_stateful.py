"""A machine that does anything to the cache, in any order, beside a model that keeps each sequence's tokens in a list.

The storage is real in one respect: each slot remembers which tokens it was written for, and a write to it is checked
against the laws. So a wrong page, a missing copy or a stale slot is found at the moment it is read.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from kvpaged import EventLog, OutOfPages, PagedKVCache, Replay, Sequence
from support.slot_storage import SlotStorage

TOKENS = st.integers(0, 2)  # few, so that prefixes meet often
PROMPTS = st.lists(TOKENS, min_size=1, max_size=14)
SALTS = st.sampled_from([None, "salt"])


class CacheMachine(RuleBasedStateMachine):
    """Pairs (sequence, model): the model is a list of tokens."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.page_size = 3
        self.storage = SlotStorage(num_pages=10, page_size=self.page_size)
        self.cache = PagedKVCache(10, self.page_size, storage=self.storage, events=EventLog())
        self.live: list[tuple[Sequence, list[int]]] = []
        self.computed: dict[object, list[list[int]]] = {}  # by salt: everything whose K and V were ever stored

    def snapshot(self) -> object:
        pool = self.cache.pool
        return (
            [pool.ref_count(page) for page in range(pool.num_pages)],
            [(s.id, list(s.tokens), list(s.table.page_ids), s.num_computed) for s, _ in self.live],
            [(node.page_id, node.edge) for node in self.cache.prefix.nodes()],
            len(self.cache.events),
            dict(self.storage.slots),
        )

    def compute(self, sequence: Sequence) -> None:
        """Store the K and V of all tokens that have none, as a model would, and check the second law on each write."""
        start, stop = sequence.num_computed, len(sequence)
        for index, slot in enumerate(sequence.slot_mapping(start, stop), start):
            assert self.cache.pool.ref_count(slot // self.page_size) == 1, "a write to a page with two owners"
            self.storage.slots[slot] = (sequence.cache_salt, *sequence.tokens[: index + 1])
        sequence.mark_computed()
        self.computed.setdefault(sequence.cache_salt, []).append(list(sequence.tokens))

    @rule(target=sequences, prompt=PROMPTS, salt=SALTS)
    def begin(self, prompt: list[int], salt: str | None) -> object:
        expected = self.cache.prefix.match(prompt[:-1], salt).num_tokens
        before = self.snapshot()
        try:
            sequence = self.cache.sequence(prompt, salt)
        except OutOfPages:
            assert self.snapshot() == before
            return multiple()
        whole_pages = expected - expected % self.page_size
        assert sequence.num_cached_tokens in (expected, whole_pages)
        pair = (sequence, list(prompt))
        self.live.append(pair)
        self.compute(sequence)
        return pair

    @rule(pair=sequences, token=TOKENS)
    def append_and_compute(self, pair: tuple[Sequence, list[int]], token: int) -> None:
        sequence, model = pair
        before = self.snapshot()
        try:
            sequence.append(token)
        except OutOfPages:
            assert self.snapshot() == before
            return
        model.append(token)
        self.compute(sequence)

    @rule(target=sequences, pair=sequences)
    def fork(self, pair: tuple[Sequence, list[int]]) -> object:
        used, copied = self.cache.pool.num_used, self.storage.num_copied
        child = (pair[0].fork(), list(pair[1]))
        assert (self.cache.pool.num_used, self.storage.num_copied) == (used, copied)
        self.live.append(child)
        return child

    @rule(pair=sequences, share=st.floats(0, 1))
    def truncate(self, pair: tuple[Sequence, list[int]], share: float) -> None:
        sequence, model = pair
        length = round(len(model) * share)
        sequence.truncate(length)
        del model[length:]

    @rule(pair=consumes(sequences))
    def release(self, pair: tuple[Sequence, list[int]]) -> None:
        pair[0].release()
        self.live.remove(pair)

    @rule(num_pages=st.integers(0, 4))
    def evict(self, num_pages: int) -> None:
        free = self.cache.pool.num_free
        evicted = self.cache.prefix.evict(num_pages)
        assert self.cache.pool.num_free == free + evicted

    @precondition(lambda self: len(self.cache.prefix) > 0)
    @rule()
    def clear(self) -> None:
        self.cache.prefix.clear()
        assert len(self.cache.prefix) == 0

    @rule(prompt=PROMPTS, salt=SALTS)
    def match(self, prompt: list[int], salt: str | None) -> None:
        match = self.cache.prefix.match(prompt, salt)
        for index in range(match.num_tokens):
            slot = match.page_ids[index // self.page_size] * self.page_size + index % self.page_size
            assert self.storage.slots[slot] == (salt, *prompt[: index + 1])

    @invariant()
    def every_slot_holds_what_its_sequences_think(self) -> None:
        for sequence, model in self.live:
            assert sequence.tokens == model
            assert sequence.num_computed == len(model)
            for index in range(len(model)):
                page, slot = sequence.table.lookup(index)
                assert self.storage.slots[page * self.page_size + slot] == (sequence.cache_salt, *model[: index + 1])

    @invariant()
    def the_laws_hold(self) -> None:
        self.cache.check()

    @invariant()
    def the_log_tells_the_same_story(self) -> None:
        replay = Replay(self.page_size).apply_all(self.cache.events)
        pool = self.cache.pool
        assert dict(replay.ref_counts) == {p: pool.ref_count(p) for p in range(pool.num_pages) if pool.ref_count(p)}
        assert replay.tables == {s.id: s.table.page_ids for s, _ in self.live}
        assert {s: replay.tokens[s] for s in replay.tables} == {s.id: s.tokens for s, _ in self.live}
        assert replay.cached == {node.page_id: len(node.tokens) for node in self.cache.prefix.nodes()}

    def teardown(self) -> None:
        for sequence, _ in self.live:
            sequence.release()
        self.cache.check()
        assert self.cache.pool.num_used == len(self.cache.prefix)
        self.cache.prefix.evict(10)
        assert self.cache.pool.num_free == 10


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
