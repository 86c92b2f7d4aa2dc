"""Work counted in lines: the same number at every call, and nobody's tracer is lost."""

import sys

import pytest

from kvpaged.lab.lines_run import lines_run


def three_lines() -> list[int]:
    numbers = [3, 1, 2]
    numbers.sort()
    return numbers


def test_each_line_that_runs_is_counted_once_and_the_call_itself_is_one() -> None:
    assert lines_run(lambda: three_lines()) == 1 + 3
    assert lines_run(three_lines) == 3


def test_a_loop_counts_its_lines_at_every_turn_and_compiled_code_counts_nothing() -> None:
    def loop(turns: int) -> None:
        for _ in range(turns):
            sorted(range(1000))

    assert lines_run(lambda: loop(10)) - lines_run(lambda: loop(5)) == 5 * 2


def test_the_tracer_that_was_set_is_set_again_also_when_the_action_raises() -> None:
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        lines_run(lambda: 1 // 0)
    assert sys.gettrace() is before
