"""The page "How this book is tested" names what exists, and its figures are those of the lists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "chapters" / "testing.md").read_text(encoding="utf-8")
SURVIVORS = (ROOT / "tests" / "mutation_survivors.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^- (\S+)__mutmut_\d+: \S", SURVIVORS, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tests|tools)/\w+\.(?:py|md)", PAGE))))
def test_the_page_names_files_that_are_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_figures_of_mutation_are_those_of_the_list() -> None:
    faults, noticed, others = re.search(  # type: ignore[union-attr]
        r"puts ([\d,]+) faults.*?notice\s+([\d.]+) %.*?The (\d+) others change nothing", PAGE, re.DOTALL
    ).groups()
    number = int(faults.replace(",", ""))
    assert int(others) == len(NAMES)
    assert float(noticed) == round(100 * (1 - len(NAMES) / number), 1) >= 95
    assert faults in SURVIVORS


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_the_functions_in_which_faults_went_unnoticed_are_still_there(name: str) -> None:
    module, _, function = name.rpartition(".")
    found: object = importlib.import_module(module)
    for part in [each for each in function.removeprefix("x").lstrip("ǁ").split("ǁ") if each]:
        found = getattr(found, part.removeprefix("_") if "ǁ" not in function else part)
    assert callable(found)
