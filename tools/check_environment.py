"""Say whether this environment can build, run and test the book: `python tools/check_environment.py`.

One line for each thing, and what to do where something is amiss. Needs nothing but Python itself.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALL = "pip install -r requirements.txt"
CPU_BUILD = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"


def python() -> Iterator[tuple[bool, str]]:
    """The version that the stored outputs were made with, or a later one."""
    current = ".".join(map(str, sys.version_info[:3]))
    yield sys.version_info >= (3, 11), f"Python {current}; 3.11 or newer is needed"


def packages(requirements: str) -> Iterator[tuple[bool, str]]:
    """What requirements.txt pins."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", requirements, re.MULTILINE)
    wrong = [
        f"{name} {found or 'missing'}, not {wanted}" for name, wanted in pins if (found := installed(name)) != wanted
    ]
    yield not wrong, f"{len(pins) - len(wrong)} of {len(pins)} packages as pinned" + fix(wrong, INSTALL)
    yield installed("kvpaged") is not None, "kvpaged itself" + fix(["missing"] * (not installed("kvpaged")), INSTALL)


def torch_build() -> Iterator[tuple[bool, str]]:
    """Whether PyTorch brought CUDA along: it works, and fills the disk."""
    with_cuda = [name for name in ("nvidia-cublas", "nvidia-cudnn-cu13", "triton") if installed(name)]
    yield (
        not with_cuda,
        "PyTorch without CUDA libraries" + fix(with_cuda, f"only large; smaller: {CPU_BUILD}"),
    )


def tools() -> Iterator[tuple[bool, str]]:
    """What only the visit to the built book, and the pictures written as .png, need."""
    for name, alternatives in (("Chromium", ("chromium", "google-chrome")), ("Node.js", ("node",)), ("npm", ("npm",))):
        found = any(map(shutil.which, alternatives))
        yield found, f"{name}" + fix([] if found else ["missing"], "only tests in the browser are skipped without it")


def installed(name: str) -> str | None:
    """The version of a package, without the label of its build (2.13.0+cpu is 2.13.0)."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def fix(wrong: list[str], remedy: str) -> str:
    """What is amiss, and what to do."""
    return f": {'; '.join(wrong)} ({remedy})" if wrong else ""


def main() -> int:
    """Print the report; 1 if something is missing that the book cannot do without."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    needed = [*python(), *packages(requirements)]
    for good, line in [*needed, *torch_build(), *tools()]:
        print(f"{'ok  ' if good else 'no  '} {line}")
    return 0 if all(good for good, _ in needed) else 1


if __name__ == "__main__":
    sys.exit(main())
