"""Whoever drives an engine, and whatever interrupts it, it moves on, and nothing is lost."""

import threading
from collections.abc import Callable

import pytest

from kvpaged import OutOfPages
from kvpaged.engine import Engine, Request, SamplingParams
from support.hostile_drivers import simulate_drivers
from support.interrupts import FIRST, MODEL, SCENES, SECOND, THIRD, TOKENS, alone, greedy, run_interrupted, tokens_of

STRIDE = 151  # lines between two interrupts; `tools/long_checks.py interrupts` takes them all


class Hooked:
    """The model, and something that happens within each of its passes."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens, self.model, self.config, self.dtype = happens, MODEL, MODEL.config, MODEL.dtype

    def __call__(self, *arguments: object) -> object:
        self.happens()
        return MODEL(*arguments)


# --- several drivers --------------------------------------------------------------------------------------------


def test_generate_within_a_stream_serves_both() -> None:
    engine, inner = Engine(MODEL, 64, 4), []
    for output in engine.stream([FIRST, SECOND], greedy()):
        inner.append(engine.generate([THIRD], greedy(3))[0].outputs[0].tokens)
        last = output
    assert inner == [alone(THIRD, greedy(3))[0]] * len(inner)
    assert last.outputs[0].tokens == alone([FIRST, SECOND][last.index], greedy())[0]
    engine.check()


def test_two_streams_in_turns_both_end_with_everything() -> None:
    engine = Engine(MODEL, 64, 4)
    streams = [engine.stream([prompt], greedy(length)) for prompt, length in ((FIRST, 9), (SECOND, 4))]
    last: dict[int, list[int]] = {}
    while streams:
        for stream in streams[:]:
            output = next(stream, None)
            if output is None:
                streams.remove(stream)
            else:
                last[len(output.prompt_tokens)] = output.outputs[0].tokens
    assert last == {len(FIRST): alone(FIRST, greedy(9))[0], len(SECOND): alone(SECOND, greedy(4))[0]}
    assert engine.num_unfinished == 0
    engine.check()


def test_steps_by_hand_beside_a_stream() -> None:
    engine = Engine(MODEL, 64, 4)
    mine = engine.submit(THIRD, greedy(3))
    reported: list[Request] = []
    for output in engine.stream([FIRST], greedy()):
        reported += engine.step()
        last = output
    while engine.num_unfinished:
        reported += engine.step()
    assert last.finished
    assert last.outputs[0].tokens == alone(FIRST, greedy())[0]
    assert tokens_of(engine, mine) == alone(THIRD, greedy(3))
    assert len(reported) == len(set(reported))


def test_what_ends_while_generate_drives_the_engine_is_reported_to_who_steps_by_hand() -> None:
    engine = Engine(MODEL, 64, 4)
    mine = engine.submit(THIRD, greedy(2))
    engine.generate([FIRST], greedy())
    assert mine.finished
    assert engine.step() == [mine]
    assert engine.step() == []


def test_a_stream_whose_request_is_cancelled_elsewhere_ends() -> None:
    engine, last = Engine(MODEL, 64, 4), {}
    for number, output in enumerate(engine.stream([FIRST, SECOND], greedy(9))):
        if number == 2:
            for request in list(engine._books.requests.values()):
                if request.prompt_tokens == FIRST:
                    engine.cancel(request)
        last[output.index] = output
    assert last[1].outputs[0].tokens == alone(SECOND, greedy(9))[0]
    assert last[0].finished, "its end is told, though no token came with it"
    assert last[0].outputs[0].finish_reason == "abort"


def test_a_request_that_is_cancelled_within_a_step_ends_with_the_step() -> None:
    engine = Engine(MODEL, 64, 4)
    request, other = engine.submit(FIRST, greedy()), engine.submit(SECOND, greedy())
    engine.model = Hooked(lambda: engine.cancel(request))
    try:
        assert engine.step() == [request]
    finally:
        engine.model = MODEL
    assert engine.output(request).outputs[0].finish_reason == "abort"
    engine.check()
    engine.generate([])
    while engine.num_unfinished:
        engine.step()
    assert tokens_of(engine, other) == alone(SECOND, greedy())


@pytest.mark.parametrize("call", [Engine.step, lambda engine: engine.generate([SECOND], greedy())])
def test_a_step_within_a_step_is_refused_and_the_outer_one_can_be_run_again(call: Callable[[Engine], object]) -> None:
    engine = Engine(MODEL, 64, 4)
    request = engine.submit(FIRST, greedy())
    engine.model = Hooked(lambda: call(engine))
    try:
        with pytest.raises(RuntimeError, match="a step of this engine is under way"):
            engine.step()
    finally:
        engine.model = MODEL
    engine.check()
    while engine.num_unfinished:
        engine.step()
    assert tokens_of(engine, request) == alone(FIRST, greedy())


def test_another_thread_gets_one_clear_error_and_disturbs_nobody() -> None:
    engine, errors = Engine(MODEL, 64, 4), []

    def call() -> None:
        for intrude in (lambda: engine.generate([SECOND], greedy()), engine.step, lambda: engine.submit(SECOND)):
            with pytest.raises(RuntimeError, match="this engine is at work in another thread") as error:
                intrude()
            errors.append(error)

    def intrude(*_: object) -> None:
        if not errors:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

    engine.model = Hooked(intrude)
    try:
        [output] = engine.generate([FIRST], greedy())
    finally:
        engine.model = MODEL
    assert len(errors) == 3
    assert output.outputs[0].tokens == alone(FIRST, greedy())[0]
    engine.check()
    thread = threading.Thread(target=lambda: errors.append(engine.generate([FIRST], greedy())))
    thread.start()
    thread.join()
    assert len(errors) == 4  # when nobody else is at work, any thread may be


def test_pages_held_outside_are_named_instead_of_waited_for() -> None:
    engine = Engine(MODEL, 8, 4)
    gone, held = engine.cache.sequence(range(12)), engine.cache.sequence(range(20))
    gone.release()
    with pytest.raises(OutOfPages, match="1 are unfinished, and 5 of 5 pages in use are held by somebody else"):
        engine.generate([TOKENS[:14]], greedy())
    assert engine.num_unfinished == 0
    engine.check(others=[held])
    with pytest.raises(AssertionError, match="belongs to no request that goes on"):
        engine.check()
    held.release()
    assert engine.generate([TOKENS[:14]], greedy())[0].outputs[0].tokens == alone(TOKENS[:14], greedy())[0]


def leak_a_sequence(engine: Engine) -> None:
    engine.cache.sequence(range(3))


def forget_a_running_branch(engine: Engine) -> None:
    engine._scheduler.running.pop()


def let_one_wait_twice(engine: Engine) -> None:
    engine._scheduler.wait(engine._scheduler.waiting[0])


def take_a_seat(engine: Engine) -> None:
    engine._scheduler._seats += 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (leak_a_sequence, "3 tokens, 0 computed, .* belongs to no request that goes on"),
        (forget_a_running_branch, "should run, but the scheduler has"),
        (let_one_wait_twice, "should wait, but the scheduler has"),
        (take_a_seat, "3 seats are taken, but 2 branches run"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_check_knows_what_a_scheduler_owes(harm: Callable[[Engine], None], message: str) -> None:
    engine = Engine(MODEL, 64, 4, max_running=3, max_batched_tokens=12)
    for prompt, params in ((FIRST, greedy()), (THIRD, SamplingParams(n=2, seed=0)), (SECOND, greedy())):
        engine.submit(prompt, params)
    engine.step()
    engine.check()
    harm(engine)
    with pytest.raises(AssertionError, match=message):
        engine.check()


@pytest.mark.parametrize(("failures", "served"), [(2, True), (3, False)])
def test_generate_runs_a_failing_step_three_times_and_then_raises(failures: int, served: bool) -> None:
    engine, left = Engine(MODEL, 64, 4), failures

    def fail(*_: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError("a disk is gone")

    engine.model = Hooked(fail)
    try:
        if served:
            assert engine.generate([FIRST], greedy())[0].outputs[0].tokens == alone(FIRST, greedy())[0]
        else:
            with pytest.raises(OSError, match="a disk is gone"):
                engine.generate([FIRST], greedy())
    finally:
        engine.model = MODEL
    engine.check()
    assert engine.num_unfinished == 0


def test_requests_that_ended_in_a_step_that_was_interrupted_are_reported_by_the_next() -> None:
    engine = Engine(MODEL, 64, 4)
    request = engine.submit(FIRST, greedy(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_count", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    assert request.finished
    assert engine.step() == [request]


@pytest.mark.parametrize("seed", range(3))
def test_random_drivers_with_parameters_at_their_extremes_come_to_an_end(seed: int) -> None:
    counts = simulate_drivers(1000 + seed)
    assert counts["compared"] > 5
    assert counts["passes that failed"] > 0


# --- interrupts -------------------------------------------------------------------------------------------------


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_as_a_step_is_entered_disturbs_no_later_step_in_which_its_traces_are_collected() -> None:
    entered: list[object] = []
    engine = Engine(MODEL, 64, 4)
    engine.model = Hooked(entered.clear)
    request = engine.submit(FIRST, greedy())
    engine.step()
    whole = engine._books.whole()
    whole.__enter__()  # and there it is interrupted: nobody leaves
    entered.append(whole)
    del whole
    while engine.num_unfinished:
        engine.step()
        engine.check()
    assert not entered
    assert tokens_of(engine, request) == alone(FIRST, greedy())


@pytest.mark.parametrize("name", SCENES)
def test_an_interrupt_at_any_line_of_a_step_loses_nothing(name: str) -> None:
    num_lines = run_interrupted(name)
    assert num_lines > 1000
    for number in range(7, num_lines, STRIDE):
        run_interrupted(name, number)


@pytest.mark.parametrize("name", SCENES)
def test_an_error_at_any_line_of_a_step_loses_nothing_either(name: str) -> None:
    """Memory that has run out, or an alarm whose handler raises TimeoutError."""
    for number in range(11, run_interrupted(name), STRIDE):
        run_interrupted(name, number, error=MemoryError)


def test_whoever_is_interrupted_again_while_things_are_mended_loses_nothing() -> None:
    for name in ("samples", "beams"):
        for number in range(400, run_interrupted(name), 311):
            for later in (1, 5, 20, 60):
                run_interrupted(name, number, number + later)
