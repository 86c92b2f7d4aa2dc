"""Settings that every test and every notebook kernel inherits."""

import os

# One thread each: two test processes share two cores, and sums of floats come out the same to the last digit.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import Phase, settings

# For `mutmut` (see pyproject.toml): the same examples in each run, and a failure need not be made small, only found.
settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
)
