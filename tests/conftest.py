"""Settings that every test and every notebook kernel inherits."""

import functools
import os

import pytest
from hypothesis import Phase, settings

# One thread each: two test processes share two cores, and sums of floats come out the same to the last digit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Solutions that run as tests are not what a reader has solved.
os.environ["KVPAGED_PROGRESS"] = ""


# A busy machine is no fault: no test fails for being slow.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# For `mutmut` (see pyproject.toml): the same examples in each run, and a failure need not be made small, only found.
settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
)


@pytest.fixture
def poisoned_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine that the test opens checks each access to a page (see `kvpaged.poison`)."""
    from kvpaged.engine import Engine

    monkeypatch.setattr(Engine, "__init__", functools.partialmethod(Engine.__init__, poisoned=True))
