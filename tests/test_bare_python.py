"""The bookkeeping runs on Python alone."""

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
