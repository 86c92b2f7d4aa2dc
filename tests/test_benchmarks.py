"""No benchmark is run as a test; but each must begin on every Python that the package runs on."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=[path.stem for path in BENCHMARKS])
def test_a_benchmark_imports_what_it_needs_and_has_something_to_run(path: Path) -> None:
    assert callable(runpy.run_path(str(path))["main"])
