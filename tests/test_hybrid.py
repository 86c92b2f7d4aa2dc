"""Layers of several kinds: one pool, a table for each group, hits that suit every group, and pages given back."""

import random
from collections.abc import Callable, Iterable
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kvpaged import EventLog, OutOfPages, Replay
from kvpaged.hybrid import FullAttention, GroupedKVCache, Kind, Recurrent, SlidingWindow, group_layers, page_size_for
from kvpaged.hybrid.groups import Group
from kvpaged.hybrid.prefix_cache import NULL_PAGE
from kvpaged.hybrid.sequence import GroupedSequence
from support.grouped_hits import compare, longest_hit, reads

BITS = st.integers(0, 1)  # few tokens, so that beginnings meet often
THREE_KINDS = [FullAttention(1), SlidingWindow(1, 6), Recurrent(1)]


def cache_of(*kinds: Kind, num_pages: int = 64, page_size: int = 4, **settings: int) -> GroupedKVCache:
    return GroupedKVCache(group_layers(kinds), num_pages, page_size, **settings)


def run(cache: GroupedKVCache, tokens: list[int], chunk: int = 1000) -> GroupedSequence:
    """A sequence all of whose tokens went through the model, in chunks."""
    sequence = cache.sequence(tokens)
    go_on(cache, sequence, chunk)
    return sequence


def go_on(cache: GroupedKVCache, sequence: GroupedSequence, chunk: int = 1) -> None:
    while sequence.num_computed < len(sequence.tokens):
        stop = min(len(sequence.tokens), sequence.num_computed + chunk)
        sequence.reserve(stop)
        cache.check()
        sequence.mark_computed(stop)
        cache.check()


def hit(cache: GroupedKVCache, tokens: Iterable[int]) -> int:
    """Tokens that the cache has a match for."""
    return len(cache.prefix.match(tokens)) * cache.page_size


def held(sequence: GroupedSequence, group: int) -> int:
    """Pages that a sequence holds in a group."""
    return sum(page != NULL_PAGE for page in sequence.tables[group])


# --- what a layer needs ------------------------------------------------------------------------------------------


@given(st.sampled_from([FullAttention(1), SlidingWindow(1, 2), SlidingWindow(1, 7), Recurrent(1)]), st.data())
def test_a_group_needs_the_pages_that_the_next_token_reads_and_no_other(kind: Kind, data: st.DataObject) -> None:
    num_computed, size = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 9))
    assert set(kind.needed(num_computed, size)) == {token // size for token in reads(kind, num_computed)}


@given(st.sampled_from([FullAttention(1), SlidingWindow(1, 7), Recurrent(1)]), st.integers(0, 60), st.integers(1, 9))
def test_what_is_not_needed_once_is_never_needed_again(kind: Kind, num_computed: int, size: int) -> None:
    assert kind.needed(num_computed, size).start <= kind.needed(num_computed + 1, size).start


def test_layers_of_one_kind_share_groups_of_equal_size() -> None:
    full, linear = FullAttention(1), Recurrent(9)
    groups = group_layers([linear, linear, linear, full] * 2)
    assert groups == [
        Group(linear, (0, 1)),
        Group(linear, (2, 4)),
        Group(linear, (5, 6)),
        Group(full, (3, 7)),
    ]


def test_a_page_size_is_the_smallest_at_which_a_state_fits() -> None:
    for state in (1, 159, 160, 161, 4000):
        size = page_size_for([FullAttention(10), SlidingWindow(20, 64), Recurrent(state)])
        assert size % 16 == 0
        assert 10 * (size - 16) < state <= 10 * size
    assert page_size_for([FullAttention(10), SlidingWindow(10, 64)]) == 16


# --- giving pages back -------------------------------------------------------------------------------------------


def test_a_window_gives_pages_back_while_the_request_runs() -> None:
    cache = cache_of(FullAttention(1), SlidingWindow(1, 6), Recurrent(1))
    sequence = run(cache, list(range(20)), chunk=1)
    full, window, state = sequence.tables
    assert NULL_PAGE not in full
    assert [page == NULL_PAGE for page in window] == [True, True, True, False, False]  # tokens 15 to 19
    assert [page == NULL_PAGE for page in state] == [True, True, True, True, False]


@pytest.mark.parametrize("chunk", [1, 3, 16, 100])
def test_a_window_of_64_holds_over_1024_tokens_what_the_derivation_says(chunk: int) -> None:
    window, size = 64, 16
    cache = cache_of(FullAttention(1), SlidingWindow(1, window), num_pages=200, page_size=size)
    sequence = cache.sequence([0] * 1024)
    while sequence.num_computed < 1024:
        start = sequence.num_computed
        stop = min(1024, start + chunk)
        sequence.reserve(stop)
        # The first new token reads window - 1 tokens before it, and the last one has a slot.
        assert held(sequence, 1) == ceil(stop / size) - max(0, start - window + 1) // size
        assert held(sequence, 1) <= ceil((window - 1 + chunk - 1) / size) + 1
        sequence.mark_computed(stop)
        assert held(sequence, 0) == ceil(stop / size)
    assert held(sequence, 0) == 64
    assert held(sequence, 1) == 4


def test_a_page_that_leaves_a_window_stays_cached_until_its_room_is_needed() -> None:
    cache = cache_of(SlidingWindow(1, 4), num_pages=6, page_size=4)
    sequence = run(cache, list(range(16)))
    assert (held(sequence, 0), len(cache.prefix), cache.pool.num_free) == (1, 4, 1)
    for token in range(12):
        sequence.append(token)
        go_on(cache, sequence)
    assert cache.pool.num_free == 0
    assert hit(cache, range(8)) == 0  # its pages went first


# --- hits --------------------------------------------------------------------------------------------------------


def test_hits_equal_a_brute_force_oracle() -> None:
    found = compare(2_000)  # `python tools/long_checks.py hits` is the same, longer
    assert len(found) > 10
    assert found[0] < 1_500


def test_the_cache_need_keep_only_the_last_window() -> None:
    cache = cache_of(FullAttention(1), SlidingWindow(1, 5))
    run(cache, list(range(20))).release()
    window_pages = [node.pages[1] for node, _, _ in cache.prefix.nodes()]
    assert NULL_PAGE not in window_pages
    _evict_all_but(cache, group=1, last=1)
    assert hit(cache, range(20)) == 20  # four tokens before the next: the last page
    assert hit(cache, range(19)) == 0
    cache.check()


def _evict_all_but(cache: GroupedKVCache, group: int, last: int) -> None:
    """Evict the pages of a group on the one path of the cache, but for the last few."""
    nodes = [node for node, _, _ in cache.prefix.nodes()]
    cache.prefix._drop([(node, group) for node in nodes[: len(nodes) - last]])


def test_a_hit_is_the_longest_beginning_that_suits_every_group() -> None:
    cache = cache_of(FullAttention(1), Recurrent(1))
    run(cache, list(range(16))).release()
    assert hit(cache, range(16)) == 16
    nodes = [node for node, _, _ in cache.prefix.nodes()]
    cache.prefix._drop([(nodes[3], 1)])  # without the last state, the last but one serves
    assert hit(cache, range(16)) == 12
    cache.prefix._drop([(nodes[1], 1), (nodes[2], 1)])
    assert hit(cache, range(16)) == 4
    cache.check()


def test_a_hit_leaves_one_token_to_run_and_begins_with_null_pages() -> None:
    cache = cache_of(*THREE_KINDS)
    run(cache, list(range(16))).release()
    sequence = cache.sequence(range(16))
    assert sequence.num_cached_tokens == 12
    full, window, state = sequence.tables
    assert [page == NULL_PAGE for page in full] == [False, False, False]
    assert [page == NULL_PAGE for page in window] == [True, False, False]
    assert [page == NULL_PAGE for page in state] == [True, True, False]
    cache.check()


def test_salts_share_nothing() -> None:
    cache = cache_of(*THREE_KINDS)
    sequence = cache.sequence(range(12), cache_salt="one")
    go_on(cache, sequence)
    assert cache.sequence(range(13), cache_salt="one").num_cached_tokens == 12
    assert cache.sequence(range(13), cache_salt="two").num_cached_tokens == 0
    assert cache.sequence(range(13)).num_cached_tokens == 0


def test_a_drafter_has_the_last_page_of_a_hit_computed_again() -> None:
    for recomputed in (0, 1, 2):
        cache = cache_of(FullAttention(1), Recurrent(1), recomputed_pages=recomputed)
        run(cache, list(range(16))).release()
        assert hit(cache, range(16)) == 16 - 4 * recomputed


def test_two_that_compute_the_same_keep_it_once() -> None:
    cache = cache_of(*THREE_KINDS)
    one, other = cache.sequence(range(9)), cache.sequence(range(9))
    go_on(cache, one)
    cached = len(cache.prefix)
    go_on(cache, other)
    assert len(cache.prefix) == cached
    one.release()
    cache.prefix.evict(100)
    cache.check()
    for token in range(12):  # the path on which it would be cached is gone: it is cached anew
        other.append(token)
        go_on(cache, other)
    assert hit(cache, [*range(9), *range(12)]) == 20


# --- eviction ----------------------------------------------------------------------------------------------------


def test_full_attention_loses_the_page_at_the_end_first() -> None:
    cache = cache_of(FullAttention(1))
    run(cache, list(range(16))).release()
    for num_tokens in (12, 8, 4, 0):
        assert cache.prefix.evict(1) == 1
        cache.check()
        assert hit(cache, range(16)) == num_tokens


def test_what_the_end_of_a_path_needs_goes_last_and_a_node_with_its_last_page() -> None:
    cache = cache_of(*THREE_KINDS)
    run(cache, list(range(20)), chunk=4).release()
    path = [node for node, _, _ in cache.prefix.nodes()]
    order = []
    while len(cache.prefix):
        assert [node.parent is None for node in path] == [False] * 5
        before = [list(node.pages) for node in path]
        cache.prefix.evict(1)
        gone = [(g, i) for i in range(5) for g in range(3) if before[i][g] != path[i].pages[g]]
        order += [f"{'FWS'[group]}{index}" for group, index in gone]
    assert " ".join(order) == "W0 S0 W1 S1 W2 S2 S3 F4 F3 F2 F1 F0 W4 W3 S4"
    assert [node.parent is None for node in path] == [True] * 5  # the last of the pages was in the last of the nodes


def test_the_least_recently_used_path_goes_first() -> None:
    cache = cache_of(FullAttention(1))
    for first in (100, 200, 300):
        run(cache, list(range(first, first + 8))).release()
    cache.sequence(range(100, 110)).release()  # used again
    assert cache.prefix.evict(3) == 3
    hits = [hit(cache, range(first, first + 8)) for first in (100, 200, 300)]
    assert hits == [8, 0, 4]
    assert cache.prefix.evict(100) == 3
    assert (len(cache.prefix), cache.pool.num_used) == (0, 1)


def test_what_a_sequence_uses_is_not_evicted() -> None:
    cache = cache_of(*THREE_KINDS, num_pages=12)
    run(cache, list(range(8))).release()
    sequence = cache.sequence(range(9))
    kept = [table.copy() for table in sequence.tables]
    cache.prefix.evict(100)
    assert sequence.tables == kept
    cache.check()


def test_nothing_is_changed_when_the_pages_do_not_suffice() -> None:
    cache = cache_of(*THREE_KINDS, num_pages=13)
    run(cache, list(range(8))).release()
    sequence = cache.sequence([*range(8), *range(50, 62)])
    before = ([t.copy() for t in sequence.tables], len(cache.prefix), cache.pool.num_free, sequence.num_slots)
    with pytest.raises(OutOfPages, match=r"asked for 9 pages: of 13, \d are free and \d more can be evicted"):
        sequence.reserve(20)
    assert before == (sequence.tables, len(cache.prefix), cache.pool.num_free, sequence.num_slots)
    cache.check()
    sequence.reserve(12)


# --- misuse ------------------------------------------------------------------------------------------------------


def test_a_released_sequence_does_nothing_more() -> None:
    cache = cache_of(*THREE_KINDS)
    sequence = run(cache, [1, 2, 3])
    sequence.release()
    for use in (sequence.release, lambda: sequence.reserve(3), lambda: sequence.mark_computed(3)):
        with pytest.raises(ValueError, match="this sequence is released"):
            use()


def test_tokens_need_a_slot_before_they_are_computed() -> None:
    sequence = cache_of(*THREE_KINDS).sequence([1, 2, 3])
    with pytest.raises(ValueError, match="cannot mark 2 tokens as computed: 0 are, and 0 have slots"):
        sequence.mark_computed(2)
    with pytest.raises(ValueError, match="cannot reserve slots for 4 tokens: 3 are known"):
        sequence.reserve(4)
    sequence.reserve(3)
    sequence.mark_computed(3)
    with pytest.raises(ValueError, match="cannot mark 2 tokens as computed: 3 are"):
        sequence.mark_computed(2)


def test_a_prompt_has_tokens_and_a_page_has_slots() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        cache_of(*THREE_KINDS).sequence([])
    with pytest.raises(ValueError, match="window is 0"):
        SlidingWindow(1, 0)
    with pytest.raises(ValueError, match="page_size is 0"):
        cache_of(*THREE_KINDS, page_size=0)


# --- the laws convict --------------------------------------------------------------------------------------------


def give_back_a_page_too_early(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    cache.pool.release(sequence.tables[1][-2])
    sequence.tables[1][-2] = NULL_PAGE


def keep_a_page_too_long(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    sequence.tables[1][0] = cache.pool.allocate()


def own_the_null_page(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    cache.pool.share(NULL_PAGE)


def share_a_running_state(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    other = cache.sequence(sequence.tokens)
    other.reserve(len(sequence.tokens))
    other.mark_computed(len(sequence.tokens))
    cache.pool.release(other.tables[2][-1])
    cache.pool.share(sequence.tables[2][-1])
    other.tables[2][-1] = sequence.tables[2][-1]


def take_a_page_from_another_group(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    full, window = sequence.tables[:2]
    cache.pool.share(full[-2])
    cache.pool.release(window[-2])
    window[-2] = full[-2]


def forget_a_node(cache: GroupedKVCache, sequence: GroupedSequence) -> None:
    cache.prefix._lru.popitem()


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        (give_back_a_page_too_early, "has page 0 as logical page 3 of group 1, and reads from 3 on"),
        (keep_a_page_too_long, r"has page \d+ as logical page 0 of group 1, and reads from 3 on"),
        (own_the_null_page, "law 1: page 0 has 2 references in the pool, but 1 owner: the cache"),
        (share_a_running_state, r"law 3: page \d+ of .* is shared, but not finished"),
        (take_a_page_from_another_group, r"law 2: page \d+ is not the same to"),
        (forget_a_node, r"the prefix cache holds \d+ pages, but says \d+"),
    ],
)
def test_the_check_convicts(bug: Callable[[GroupedKVCache, GroupedSequence], None], message: str) -> None:
    cache = cache_of(*THREE_KINDS)
    sequence = run(cache, list(range(18)))
    cache.check()
    bug(cache, sequence)
    with pytest.raises(AssertionError, match=message):
        cache.check()


# --- any history -------------------------------------------------------------------------------------------------


class GroupedCacheMachine(RuleBasedStateMachine):
    """Anything, in any order. A page remembers what was written to it, and every read is compared with it."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.kinds = [FullAttention(1), SlidingWindow(1, 5), Recurrent(1), SlidingWindow(1, 9)]
        self.cache = cache_of(*self.kinds, num_pages=26, page_size=3)
        self.content: dict[int, tuple[int, object, list[int]]] = {}
        self.cached: set[tuple[int, object, tuple[int, ...]]] = set()

    def compute(self, sequence: GroupedSequence, stop: int) -> None:
        size = self.cache.page_size
        for position in range(sequence.num_computed, stop):
            for group, (kind, table) in enumerate(zip(self.kinds, sequence.tables, strict=True)):
                for token in reads(kind, position):
                    held_by, salt, tokens = self.content[table[token // size]]
                    assert (held_by, salt) == (group, sequence.cache_salt)
                    expected = sequence.tokens[: position if isinstance(kind, Recurrent) else token + 1]
                    assert tokens[: len(expected)] == expected
                    assert len(tokens) == position or not isinstance(kind, Recurrent)
                page = table[position // size]
                assert self.cache.pool.ref_count(page) == 1, "a write to a page with two owners"
                self.content[page] = (group, sequence.cache_salt, sequence.tokens[: position + 1])
        sequence.mark_computed(stop)

    @rule(
        target=sequences, prompt=st.lists(st.integers(0, 1), min_size=1, max_size=16), salt=st.sampled_from([None, 1])
    )
    def begin(self, prompt: list[int], salt: object) -> GroupedSequence:
        cached = {
            (group, salt, tuple(sequence))
            for node, salt, packed in self.cache.prefix.nodes()
            for sequence in [memoryview(packed).cast("I").tolist()]
            for group, page in enumerate(node.pages)
            if page != NULL_PAGE
        }
        sequence = self.cache.sequence(prompt, salt)
        assert sequence.num_cached_tokens == longest_hit(self.kinds, 3, cached, prompt[:-1], salt, 0)
        return sequence

    @rule(sequence=sequences, token=BITS)
    def append(self, sequence: GroupedSequence, token: int) -> None:
        sequence.append(token)

    @rule(sequence=sequences, chunk=st.integers(1, 8))
    def go_on(self, sequence: GroupedSequence, chunk: int) -> None:
        stop = min(len(sequence.tokens), sequence.num_computed + chunk)
        tables, free = [table.copy() for table in sequence.tables], self.cache.pool.num_free
        try:
            sequence.reserve(stop)
        except OutOfPages:
            assert (tables, free) == (sequence.tables, self.cache.pool.num_free)
            return
        self.compute(sequence, stop)

    @rule(sequence=consumes(sequences))
    def release(self, sequence: GroupedSequence) -> None:
        sequence.release()

    @rule(num_pages=st.integers(1, 5))
    def evict(self, num_pages: int) -> None:
        free = self.cache.pool.num_free
        evicted = self.cache.prefix.evict(num_pages)
        assert self.cache.pool.num_free == free + evicted

    @invariant()
    def the_laws_hold(self) -> None:
        self.cache.check()

    def teardown(self) -> None:
        for sequence in list(self.cache.sequences):
            sequence.release()
        self.cache.check()
        assert self.cache.pool.num_used - 1 == len(self.cache.prefix)
        self.cache.prefix.evict(100)
        assert self.cache.pool.num_free == self.cache.pool.num_pages - 1


TestGroupedCacheMachine = GroupedCacheMachine.TestCase
TestGroupedCacheMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_long_history_keeps_the_laws_and_every_page_is_found_again_or_freed() -> None:
    rng = random.Random(0)
    cache = cache_of(*THREE_KINDS, num_pages=40)
    hits = 0
    for _ in range(400):
        sequence = run(cache, [rng.randrange(2) for _ in range(rng.randint(1, 24))], chunk=rng.randint(1, 9))
        hits += sequence.num_cached_tokens
        sequence.release()
    assert hits > 200
    assert cache.pool.num_used == len(cache.prefix) + 1


# --- what others reported ----------------------------------------------------------------------------------------
# Qwen3.5 and its successors: three gated delta layers to one of attention, heads of 128 and 256. A state has a matrix
# for each value head, and the last inputs of a short convolution, which grows by one for each token that is guessed.


def kinds_of_qwen(
    kv_heads: int, value_heads: int, drafts: int = 0, number: int = 2, scale: int = 0, state_number: int = 4
) -> list[Kind]:
    """number, state_number: bytes of a number in K and V, and in a state. scale: bytes beside each head's row."""
    matrices = value_heads * 128 * 128 * state_number
    convolution = (16 * 128 * 2 + value_heads * 128) * (4 - 1 + drafts) * 2
    return [FullAttention(2 * kv_heads * (256 * number + scale)), *[Recurrent(matrices + convolution)] * 3]


@pytest.mark.parametrize(
    ("reported", "kinds"),
    [
        (528, kinds_of_qwen(4, 32)),  # Qwen3.5-9B: vLLM #37467
        (1056, kinds_of_qwen(4, 32, number=1)),  # with K and V in fp8
        (544, kinds_of_qwen(2, 16)),  # 0.8B
        (784, kinds_of_qwen(4, 48)),  # 27B: #36010
        (1072, kinds_of_qwen(2, 32, drafts=3)),  # 35B-A3B: #38182
        (1600, kinds_of_qwen(4, 48, drafts=2, number=1)),  # Qwen3.8-27B: #45238
        (1600, kinds_of_qwen(4, 48, drafts=3, number=1)),
        (1648, kinds_of_qwen(4, 48, drafts=7, number=1)),  # #53670
        (2096, kinds_of_qwen(2, 32, number=1)),  # 35B-A3B
        (2144, kinds_of_qwen(2, 32, drafts=3, number=1)),  # #54360
        # syv-ai/qwen38-27b-rtx3090 #102 and #112, which keep the matrices in bfloat16
        (448, kinds_of_qwen(4, 48, drafts=7, state_number=2)),
        (480, kinds_of_qwen(4, 48, drafts=15, state_number=2)),
        (832, kinds_of_qwen(4, 48, drafts=3, number=1, state_number=2)),
        (864, kinds_of_qwen(4, 48, drafts=7, number=1, scale=4, state_number=2)),  # int8, a float32 scale for each row
    ],
)
def test_the_page_size_is_the_reported_block_size(reported: int, kinds: list[Kind]) -> None:
    assert page_size_for(kinds) == reported


def replayed(page_size: int, first: int, then: int, drafting: bool) -> int:
    """Tokens found in the cache by a prompt of `then` tokens, which begins with the `first` that were computed."""
    cache = cache_of(
        FullAttention(1), *[Recurrent(1)] * 3, num_pages=400, page_size=page_size, recomputed_pages=drafting
    )
    sequence = cache.sequence(range(first))
    sequence.reserve(first)
    sequence.mark_computed(first)
    sequence.release()
    return cache.sequence(range(then)).num_cached_tokens


@pytest.mark.parametrize(
    ("page_size", "first", "then", "reported"),
    [
        # syv-ai/qwen38-27b-rtx3090 #102: the prompt again, and three more tokens
        *((448, n, n + 3, hit) for n, hit in [(512, 0), (1024, 448), (2048, 1344), (4096, 3584), (8192, 7616)]),
        *((448, n, n + 3, hit) for n, hit in [(16384, 15680), (32768, 32256)]),
        *((832, n, n + 3, hit) for n, hit in [(512, 0), (1024, 0), (2048, 832), (4096, 2496), (8192, 6656)]),
        *((832, n, n + 3, hit) for n, hit in [(16384, 14976), (32768, 31616)]),
        *((480, n, n + 3, hit) for n, hit in [(300, 0), (620, 0), (950, 0), (958, 0), (970, 480)]),
        # noonghunna/club-3090 #1262
        *((1600, n, n, hit) for n, hit in [(2344, 0), (3644, 1600), (7132, 4800), (14144, 11200)]),
        # vLLM #52897: the third prompt ends where a page ends, and one token must run
        *((1648, n, n, hit) for n, hit in [(8702, 6592), (9155, 6592), (6592, 3296)]),
    ],
)
def test_hits_with_a_drafter_are_the_reported_ones(page_size: int, first: int, then: int, reported: int) -> None:
    assert replayed(page_size, first, then, drafting=True) == reported


def test_an_agent_that_adds_3900_tokens_a_turn_sees_the_five_hits_of_vllm_54360() -> None:
    cache = cache_of(FullAttention(1), *[Recurrent(1)] * 3, num_pages=99, page_size=2144, recomputed_pages=1)
    hits = []
    for turn in range(5):
        sequence = cache.sequence(range(7300 + 3900 * turn))
        hits.append(sequence.num_cached_tokens)
        sequence.reserve(len(sequence.tokens))
        sequence.mark_computed(len(sequence.tokens))
        sequence.release()
    assert hits == [0, 4288, 8576, 12864, 15008]


# --- the log -----------------------------------------------------------------------------------------------------


def random_story(seed: int, num_pages: int = 24) -> Iterable[tuple[GroupedKVCache, EventLog]]:
    """A memory and its log, after each of many things that happen to it."""
    choose, log = random.Random(seed), EventLog()
    cache = GroupedKVCache(group_layers(THREE_KINDS), num_pages, 2, events=log)
    live: list[GroupedSequence] = []
    for _ in range(120):
        try:
            if not live or choose.random() < 0.2:
                live.append(cache.sequence([choose.randrange(2) for _ in range(choose.randint(1, 14))]))
            sequence = choose.choice(live)
            if choose.random() < 0.3:
                sequence.append(choose.randrange(2))
            stop = choose.randint(sequence.num_computed, len(sequence.tokens))
            sequence.reserve(stop)
            sequence.mark_computed(stop)
            if choose.random() < 0.2:
                live.remove(sequence)
                sequence.release()
        except OutOfPages:
            live.pop(0).release()
        yield cache, log


@pytest.mark.parametrize("seed", range(5))
def test_the_log_alone_tells_what_every_group_of_every_sequence_owns(seed: int) -> None:
    replay, played = Replay(2), 0
    for cache, log in random_story(seed):
        for event in list(log)[played:]:
            replay.apply(event)
        played = len(log)
        assert [replay.ref_counts[page] for page in range(24)] == [cache.pool.ref_count(page) for page in range(24)]
        assert list(replay.tables.values()) == [table for sequence in cache.sequences for table in sequence.tables]
        assert set(replay.cached) == {page for node, *_ in cache.prefix.nodes() for page in node.pages} - {NULL_PAGE}
        assert replay.num_in_tables <= replay.num_mapped
        assert NULL_PAGE not in {page for page, used in replay.slots_used().items() if used}
    assert {"give back", "evict", "share", "release"} <= {event.kind for event in log}
