"""Requests that reserve runs: the simulation of chapter 2, beside what can be counted by hand."""

from collections.abc import Callable

import pytest

from kvpaged.lab.published import FILLED, SLOTS
from kvpaged.lab.reserving import serve_in_runs
from kvpaged.lab.saturation import Job, Reserving, orca_max, orca_oracle, orca_pow2, serve
from kvpaged.lab.workload import SHAREGPT


def test_one_request_alone_fills_its_run_step_by_step() -> None:
    served = serve_in_runs(10, orca_oracle, [(3, 4)])  # 3, 4, 5 and 6 rows in a run of 6
    assert served.filled == (3 + 4 + 5 + 6) / 40
    assert served.later == (3 + 2 + 1 + 0) / 40
    assert served.never == 0
    assert served.no_run == pytest.approx(4 / 10)
    assert served.running == 1


def test_what_is_guessed_too_high_is_never_filled() -> None:
    served = serve_in_runs(10, lambda job: job.final + 2, [(3, 4)])
    assert served.never == pytest.approx(2 / 10)


def test_a_request_waits_until_a_run_is_free() -> None:
    assert serve_in_runs(10, orca_oracle, [(3, 4), (3, 4)]).running == 1
    assert serve_in_runs(12, orca_oracle, [(3, 4), (3, 4)]).running == 2


def test_the_shares_add_up() -> None:
    served = serve_in_runs(SLOTS, orca_pow2, SHAREGPT.draw(200, seed=1))
    assert sum(served[:4]) == pytest.approx(1)


def test_with_nothing_to_serve_all_slots_are_in_no_run() -> None:
    assert serve_in_runs(10, orca_oracle, []) == (0, 0, 0, 1, 0)


def test_a_run_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="a run of 11 slots does not fit into 10; give more, or leave the request out"):
        serve_in_runs(10, orca_oracle, [(2, 3), (6, 6)])


@pytest.mark.parametrize(("name", "reserve"), [("Max", orca_max), ("Pow2", orca_pow2), ("Oracle", orca_oracle)])
def test_both_simulations_come_near_to_the_paper_and_to_each_other(name: str, reserve: Callable[[Job], int]) -> None:
    lengths = SHAREGPT.draw(400, seed=10)
    first_fit = serve_in_runs(SLOTS, lambda job: 1 << (reserve(job) - 1).bit_length(), lengths)
    buddy = serve(Reserving(SLOTS, reserve), lengths)
    assert abs(first_fit.filled - buddy.filled) < 0.03
    assert abs(100 * buddy.filled - FILLED[f"Orca ({name})"]) < 5
