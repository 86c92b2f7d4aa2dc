"""Everything that can fail is made to fail, once, at every place where it can: nothing is lost, and it can be repeated.

Each scenario runs with the first page allocation failing, then with the second, and so on until one run meets no
failure any more. The same with copies of pages, with layers of the model, and with the choice of tokens.
"""

import functools
from collections.abc import Callable, Iterator

import pytest

import kvpaged.engine.advance as advance_room
import kvpaged.engine.beam as beam_room
from kvpaged import OutOfPages, PagedKVCache, Sequence
from kvpaged.engine import BeamSearchParams, Engine, Params, RequestOutput, SamplingParams
from kvpaged.model import load_model
from support.faults import FailingModel, InjectedError, fail_allocations, fail_copies
from support.slot_storage import SlotStorage

# --- the bookkeeping --------------------------------------------------------------------------------------------

PAGE_SIZE = 4


class World:
    """A cache in which one operation fails, and bystanders that must not notice."""

    def __init__(self, num_pages: int, at: int | None, fail: Callable[[PagedKVCache, int | None], object]) -> None:
        self.storage = SlotStorage(num_pages, PAGE_SIZE)
        self.cache = PagedKVCache(num_pages, PAGE_SIZE, storage=self.storage)
        self.pages = fail_allocations(self.cache)
        self.bystander = self.begin(list(range(100, 107)))
        self.fork = self.bystander.fork()  # its last page has two owners
        self.fault = fail(self.cache, at)
        self.num_failed = 0

    def attempt(self, operation: Callable[[], Sequence | None]) -> Sequence:
        """Do something; if it fails, see that nothing has changed, and do it again."""
        before = self.snapshot()
        try:
            return operation()
        except (OutOfPages, InjectedError):
            self.num_failed += 1
            self.cache.check()
            assert self.snapshot() == before
        return operation()

    def begin(self, prompt: list[int]) -> Sequence:
        sequence = self.attempt(lambda: self.cache.sequence(prompt))
        self.compute(sequence)
        return sequence

    def append(self, sequence: Sequence, *tokens: int) -> None:
        for token in tokens:
            self.attempt(lambda token=token: sequence.append(token))

    def compute(self, sequence: Sequence, stop: int | None = None) -> None:
        start, stop = sequence.num_computed, len(sequence) if stop is None else stop
        for index, slot in enumerate(sequence.slot_mapping(start, stop), start):
            assert self.cache.pool.ref_count(slot // PAGE_SIZE) == 1, "a write to a page with two owners"
            self.storage.slots[slot] = tuple(sequence.tokens[: index + 1])
        sequence.mark_computed(stop)

    def snapshot(self) -> object:
        """All that anybody can see: the sequences, what their slots hold, and how many pages are to be had."""
        pool, prefix = self.cache.pool, self.cache.prefix
        idle = sum(pool.ref_count(node.page_id) == 1 for node in prefix.nodes())
        sequences = sorted(self.cache.sequences, key=lambda each: each.id)
        return pool.num_free + idle, [(list(each.table.page_ids), self.seen_by(each)) for each in sequences]

    def seen_by(self, sequence: Sequence) -> tuple[object, ...]:
        slots = sequence.slot_mapping(0, sequence.num_computed)
        return tuple(sequence.tokens), sequence.num_computed, tuple(self.storage.slots[slot] for slot in slots)

    def end(self) -> object:
        """Release everything, see that every page comes back, and return what the sequences saw at last."""
        self.cache.check()
        sequences = sorted(self.cache.sequences, key=lambda each: each.id)
        seen = [self.seen_by(each) for each in sequences]
        for tokens, num_computed, slots in seen:
            assert slots == tuple(tokens[: index + 1] for index in range(num_computed))
        for each in sequences:
            each.release()
            self.cache.check()
        assert self.cache.pool.num_used == len(self.cache.prefix)
        self.cache.prefix.clear()
        assert self.cache.pool.num_free == self.cache.pool.num_pages
        return seen


def prefill(world: World) -> None:
    world.begin(list(range(11)))


def append(world: World) -> None:
    sequence = world.begin([1, 2, 3])
    for token in range(4, 15):
        world.append(sequence, token)
        world.compute(sequence)


def fork_and_write(world: World) -> None:
    family = [world.begin(list(range(6)))]
    family += [family[0].fork(), family[0].fork(), world.bystander.fork()]
    for token in range(4):
        for member, sequence in enumerate(family):
            world.append(sequence, 10 * member + token)
            world.compute(sequence)


def match_and_extend(world: World) -> None:
    world.begin(list(range(10))).release()
    for stop in (10, 7, 5, 9):  # a prefix of what is cached, cut within a page, and then something else
        sequence = world.begin([*range(stop), 50, 51, 52])
        assert sequence.num_cached_tokens in (stop, stop // PAGE_SIZE * PAGE_SIZE)  # its partial hit may be given up


def speculative_step(world: World) -> None:
    sequence = world.begin(list(range(6)))
    twin = sequence.fork()
    for accepted in (1, 5, 0, 3):
        world.append(sequence, 7, 8, 9, 10, 11)
        length = sequence.num_computed + accepted
        world.compute(sequence, length)
        sequence.truncate(length)
        world.append(twin, 7)
        world.compute(twin)


def preempt_and_resume(world: World) -> None:
    for _ in range(3):
        sequence = world.begin(list(range(9)))
        world.append(sequence, 20, 21)
        world.compute(sequence, len(sequence) - 1)
        sequence.release()
        resumed = world.begin([*range(9), 20, 21, 22])
        assert resumed.num_cached_tokens >= 8
        resumed.release()


def beam_search(world: World) -> None:
    beams = [world.begin(list(range(6)))]
    for step in range(5):
        heirs = [beams[0].fork(), beams[0].fork(), beams[-1].fork()]
        for beam in beams:
            beam.release()
        for index, heir in enumerate(heirs):
            world.append(heir, 10 * step + index)
            world.compute(heir)
        beams = heirs


def cancel(world: World) -> None:
    for num_computed in (0, 3, 8):
        sequence = world.attempt(lambda: world.cache.sequence(range(10)))
        world.compute(sequence, max(num_computed, sequence.num_computed))
        world.append(sequence, 1, 2, 3)
        sequence.release()
    world.begin([*range(10)])


SCENARIOS = [
    prefill,
    append,
    fork_and_write,
    match_and_extend,
    speculative_step,
    preempt_and_resume,
    beam_search,
    cancel,
]


def until_nothing_fails(run: Callable[[int], bool]) -> int:
    """Let the first fail, then the second ...; return after how many nothing failed any more."""
    for at in range(1, 10_000):
        if not run(at):
            return at - 1
    raise AssertionError("failures without end")


@pytest.mark.parametrize("num_pages", [48, 13])  # with room for all, and where most allocations must evict
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_page_allocation_fails_once_and_nothing_is_lost(
    scenario: Callable[[World], None], num_pages: int
) -> None:
    if (scenario, num_pages) in {(fork_and_write, 13), (match_and_extend, 13)}:
        num_pages = 20  # what lives at the same time does not fit into 13
    expected = None

    def run(at: int | None) -> bool:
        nonlocal expected
        world = World(num_pages, None, fail_copies)
        world.pages.at = None if at is None else world.pages.used + at
        scenario(world)
        seen = world.end()
        expected = seen if at is None else expected
        assert seen == expected
        # A request that fails for want of a page beside its partial hit is begun without the hit.
        assert world.num_failed == world.pages.num_fired or scenario in (match_and_extend, preempt_and_resume, cancel)
        return world.pages.num_fired > 0

    run(None)
    assert until_nothing_fails(run) >= 3


@pytest.mark.parametrize(
    "scenario", [fork_and_write, match_and_extend, speculative_step, beam_search], ids=lambda each: each.__name__
)
def test_every_copy_of_a_page_fails_once_and_nothing_is_lost(scenario: Callable[[World], None]) -> None:
    expected = None

    def run(at: int | None) -> bool:
        nonlocal expected
        world = World(48, at, fail_copies)
        scenario(world)
        seen = world.end()
        expected = seen if at is None else expected
        assert seen == expected
        return world.num_failed > 0

    run(None)
    assert until_nothing_fails(run) >= 1


# --- the engine -------------------------------------------------------------------------------------------------

MODEL = load_model("recall")
TOKENS = Engine(MODEL, 1).tokenizer.encode("Ada hid the coin in the attic. Bo hid the map under the bed.").ids
QUESTION = [*TOKENS, *Engine(MODEL, 1).tokenizer.encode("Where is the coin?").ids]


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)


def served(num_pages: int, *requests: tuple[list[int], Params], **options: int) -> Callable[[], tuple[Engine, object]]:
    return lambda: (Engine(MODEL, num_pages, 4, poisoned=True, **options), requests)


BYSTANDER = (TOKENS[8:15], greedy(7))
ENGINES = {
    "prefill": served(32, BYSTANDER, (QUESTION, greedy(1)), max_batched_tokens=9),
    "append": served(32, BYSTANDER, (QUESTION, greedy(9))),
    "fork and write": served(32, BYSTANDER, (TOKENS[:14], SamplingParams(n=3, seed=0, max_tokens=6, ignore_eos=True))),
    "match and extend": served(32, (TOKENS, greedy(6)), (TOKENS, greedy(2)), (TOKENS[:14], greedy(7)), max_running=1),
    "speculative step": served(32, BYSTANDER, ([*TOKENS, *TOKENS[:4]], greedy(9)), num_speculative_tokens=5),
    "guesses beside forks": served(
        32,
        ([*TOKENS, *TOKENS[:4]], greedy(9)),
        (TOKENS[:14], SamplingParams(n=3, seed=0, max_tokens=6, ignore_eos=True)),
        num_speculative_tokens=5,
    ),
    "preempt and resume": served(6, BYSTANDER, (TOKENS[:15], greedy(7)), (TOKENS[4:15], greedy(6))),
    "beam search": served(32, BYSTANDER, (TOKENS[:14], BeamSearchParams(beam_width=3, max_tokens=5, ignore_eos=True))),
    "beams that are preempted": served(
        8, BYSTANDER, (TOKENS[:12], BeamSearchParams(beam_width=3, max_tokens=5, ignore_eos=True))
    ),
}


def test_the_engines_do_what_their_names_say() -> None:
    happened = {}
    for name, opened in ENGINES.items():
        engine, requests = opened()
        run_to_the_end(engine, requests, name)
        happened[name] = engine.metrics()
    assert happened["prefill"].steps > happened["prefill"].requests_finished + 2
    assert happened["fork and write"].copies > 0
    assert happened["match and extend"].cached_tokens > 0
    assert happened["speculative step"].draft_tokens > happened["speculative step"].accepted_tokens > 0
    assert happened["guesses beside forks"].draft_tokens > 0
    assert happened["guesses beside forks"].copies > 0
    assert happened["preempt and resume"].preemptions > 0
    assert happened["preempt and resume"].recovered_tokens > 0
    assert happened["beam search"].copies > 0
    assert happened["beams that are preempted"].preemptions > 0


@functools.cache
def undisturbed(name: str) -> list[RequestOutput]:
    """What each request gets when it is alone in an engine that nothing fails in."""
    _, requests = ENGINES[name]()
    return [Engine(MODEL, 64, 4, prefix_caching=False).generate([prompt], params)[0] for prompt, params in requests]


def run_to_the_end(engine: Engine, requests: object, name: str, cancelled: int | None = None) -> int:
    """Serve, stepping again after each failure; return how many steps failed."""
    submitted, num_failed = [engine.submit(prompt, params) for prompt, params in requests], 0
    for number in range(200):
        if not engine.num_unfinished:
            break
        try:
            engine.step()
        except InjectedError:
            num_failed += 1
        engine.cache.check()
        if cancelled is not None and number == 3:
            engine.cancel(submitted[cancelled])
            engine.cache.check()
    assert not engine.num_unfinished
    for index, (request, expected) in enumerate(zip(submitted, undisturbed(name), strict=True)):
        got = [each.tokens for each in engine.output(request).outputs]
        if index != cancelled:
            assert got == [each.tokens for each in expected.outputs]
    assert engine.cache.pool.num_used == len(engine.cache.prefix)
    engine.cache.prefix.clear()
    assert engine.cache.pool.num_used == 0
    return num_failed


@pytest.mark.parametrize("name", ENGINES)
def test_every_page_allocation_of_an_engine_fails_once_and_every_answer_stays_right(name: str) -> None:
    def run(at: int) -> bool:
        engine, requests = ENGINES[name]()
        pages = fail_allocations(engine.cache, at)
        assert run_to_the_end(engine, requests, name) == 0, "running out of pages is nothing that a step fails by"
        return pages.num_fired > 0

    assert until_nothing_fails(run) >= 8


@pytest.mark.parametrize("name", ["append", "fork and write", "beam search"])
def test_every_page_allocation_fails_once_beside_a_request_that_is_cancelled(name: str) -> None:
    def run(at: int) -> bool:
        engine, requests = ENGINES[name]()
        pages = fail_allocations(engine.cache, at)
        run_to_the_end(engine, requests, name, cancelled=1)
        return pages.num_fired > 0

    assert until_nothing_fails(run) >= 8


@pytest.mark.parametrize(
    "name", ["fork and write", "guesses beside forks", "match and extend", "beam search", "beams that are preempted"]
)
def test_every_copy_of_a_page_in_an_engine_fails_once_and_the_step_can_be_run_again(name: str) -> None:
    def run(at: int) -> bool:
        engine, requests = ENGINES[name]()
        copies = fail_copies(engine.cache, at)
        assert run_to_the_end(engine, requests, name) == copies.num_fired
        return copies.num_fired > 0

    assert until_nothing_fails(run) >= 2


@pytest.mark.parametrize("name", ENGINES)
def test_every_layer_of_every_pass_fails_once_and_the_step_can_be_run_again(name: str) -> None:
    def run(at: int) -> bool:
        engine, requests = ENGINES[name]()
        engine.model = FailingModel(MODEL, at)
        assert run_to_the_end(engine, requests, name) == engine.model.layers.num_fired
        return engine.model.layers.num_fired > 0

    assert until_nothing_fails(run) >= 12


@pytest.fixture
def failing_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[int]]]:
    """Let the engine fail at the k-th time that it chooses tokens."""

    def install(at: int) -> list[int]:
        calls = [0, 0]  # made, and failed

        def failing(choose: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                calls[0] += 1
                if calls[0] == at:
                    calls[1] += 1
                    raise InjectedError("injected")
                return choose(*arguments)

            return call

        for (room, name), choose in originals.items():
            monkeypatch.setattr(room, name, failing(choose))
        return calls

    chosen_by = ((advance_room, "draw"), (beam_room, "likeliest"))
    originals = {(room, name): getattr(room, name) for room, name in chosen_by}
    return install


@pytest.mark.parametrize("name", ["append", "fork and write", "speculative step", "beam search"])
def test_every_choice_of_tokens_fails_once_and_is_made_again_at_once(
    name: str, failing_choice: Callable[[int], list[int]]
) -> None:
    undisturbed(name)  # before anything fails

    def run(at: int) -> bool:
        engine, requests = ENGINES[name]()
        calls = failing_choice(at)
        assert run_to_the_end(engine, requests, name) == 0
        return calls[1] > 0

    assert until_nothing_fails(run) >= 5
