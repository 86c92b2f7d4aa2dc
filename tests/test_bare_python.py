"""The bookkeeping runs on Python alone, and its judge judges whatever Python is told of assertions."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def run(script: str, *options: str) -> str:
    """What a script prints in a Python that knows the standard library and this package only."""
    script = f"import sys; sys.path.insert(0, {str(PACKAGE)!r})\n{script}"
    done = subprocess.run([sys.executable, "-I", "-S", *options, "-c", script], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_importing_the_package_and_serving_a_sequence_needs_no_other() -> None:
    script = """
from kvpaged import PagedKVCache
cache = PagedKVCache(8, 4)
for _ in range(2):
    sequence = cache.sequence(range(10))
    sequence.mark_computed()
    sequence.append(10)
    sequence.release()
print(sequence.num_cached_tokens, len(cache.prefix))
"""
    assert run(script) == "9 3\n"


def test_a_broken_law_is_found_when_python_skips_assertions() -> None:
    script = """
from kvpaged import PagedKVCache
assert False, "this Python skips no assertions"
def broken(harm):
    cache = PagedKVCache(8, 4)
    sequence = cache.sequence(range(10))
    sequence.mark_computed()
    cache.check()
    harm(cache, sequence)
    try:
        cache.check()
    except AssertionError as error:
        print(error)
broken(lambda cache, sequence: cache.pool.share(0))
broken(lambda cache, sequence: cache.pool._released.append(0))
broken(lambda cache, sequence: sequence.tokens.__setitem__(2, 99))
broken(lambda cache, sequence: sequence.tokens.append(10))
broken(lambda cache, sequence: sequence.table.page_ids.append(7))
broken(lambda cache, sequence: sequence.table.page_ids.__setitem__(1, 0))
broken(lambda cache, sequence: setattr(sequence, "num_computed", 11))
broken(lambda cache, sequence: setattr(cache.prefix, "_num_pages", 5))
"""
    assert run(script, "-O").splitlines() == [
        "law 1: page 0 has 3 references in the pool, but 2 owners: sequence 0, the prefix cache",
        "law 1: 5 pages have no owner, but the pool says 6 are free",
        "law 2: page 0 cannot hold both (0, 1, 2, 3) for the prefix cache and (0, 1, 99, 3) for sequence 0",
        "sequence 0 has 11 tokens, but maps 10",
        "sequence 0 maps 10 tokens to [0, 1, 2, 7]",
        "sequence 0 has a page twice: [0, 0, 2]",
        "sequence 0 has 11 of 10 tokens computed",
        "the prefix cache holds 2 pages, but says 5",
    ]
