"""Settings that every test and every notebook kernel inherits."""

import os

# One thread each: two test processes share two cores, and sums of floats come out the same to the last digit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
