"""What others published stands in one place: a chapter that repeats a figure takes it from there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvpaged.lab import published
from notebook_form import read

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "chapters").glob("*.ipynb"))
MODULES = sorted(set((ROOT / "kvpaged").rglob("*.py")) - {Path(published.__file__)})


def numbers(code: str) -> Iterator[float]:
    """The numbers with a decimal point that stand in a piece of code."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.value


# 7.0 is a number like any other: only one with two digits behind the point, or of three digits, is known again.
KNOWN = {each for each in numbers(Path(published.__file__).read_text(encoding="utf-8")) if len(str(each)) > 3}


def test_the_figures_are_many_and_distinct_enough() -> None:
    assert {161.31, 337.99, 20.4, 96.3, 30.42, 66.3} <= KNOWN


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_chapter_writes_a_published_figure_down_again(notebook: Path) -> None:
    for cell in read(notebook).cells:
        if cell.cell_type == "code":
            again = KNOWN.intersection(numbers(cell.source))
            assert not again, f"{again} is in kvpaged.lab.published:\n{cell.source}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_writes_a_published_figure_down_again(module: Path) -> None:
    assert not KNOWN.intersection(numbers(module.read_text(encoding="utf-8")))


def test_the_memory_of_the_papers_machine_holds_its_slots() -> None:
    assert published.SLOTS == 15_728
    assert set(published.FILLED) == set(published.AT_ONCE)
