"""The bibliography: every entry is cited in the book, and every work that the package names is an entry."""

import ast
import re
import sys
import tokenize
from pathlib import Path

import pytest
from pybtex.database import parse_file

sys.path.append(str(Path(__file__).parents[1] / "_ext"))

from author_year import AuthorYearLabels

ROOT = Path(__file__).parents[1]
ENTRIES = {
    key: (
        re.search(r"author\s*=\s*\{\{?(.+?)(?:,| and |\}\}?,?\n)", body)[1],
        re.search(r"year\s*=\s*\{(\d+)", body)[1],
    )  # type: ignore[index]
    for key, body in re.findall(
        r"^@\w+\{(\w+),\n(.*?)^\}", (ROOT / "chapters/references.bib").read_text(encoding="utf-8"), re.DOTALL | re.M
    )
}
CITED = {
    key.strip()
    for page in sorted((ROOT / "chapters").iterdir())
    if page.suffix in (".md", ".ipynb")
    for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", page.read_text(encoding="utf-8"))
    for key in keys.split(",")
}
# "Kwon et al. 2023", "Zhang and Sennrich 2019", "(Shazeer 2020)", 'Saxena, "Prompt Lookup Decoding" (2023)'
YEAR = r"(?:, \"[^\"]+\")?,? \(?((?:19|20)\d\d)\b"
WORK = re.compile(rf"\b([A-Z][a-z][\w-]+)(?: et al\.| and [A-Z]\w+)?{YEAR}")
MONTHS = "January February March April May June July August September October November December".split()


def said_in(path: Path) -> str:
    """The docstrings and comments of a module, as running text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    said = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    with tokenize.open(path) as source:
        said += [token.string for token in tokenize.generate_tokens(source.readline) if token.type == tokenize.COMMENT]
    return " ".join(" ".join(said).split())


def works_named_in(text: str) -> set[tuple[str, str]]:
    """First author and year of each work that a text names."""
    return {(author, year) for author, year in WORK.findall(text) if author not in MONTHS}


def test_every_entry_is_cited_and_every_citation_has_an_entry() -> None:
    assert set(ENTRIES) == CITED


def test_no_two_works_are_cited_alike() -> None:
    entries = parse_file(ROOT / "chapters/references.bib").entries.values()
    labels = list(AuthorYearLabels().format_labels(entries))
    assert {label for label in labels if labels.count(label) > 1} == set(), "tell them apart by a letter in the year"


@pytest.mark.parametrize("path", sorted((ROOT / "kvpaged").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_work_that_the_package_names_is_in_the_bibliography(path: Path) -> None:
    missing = works_named_in(said_in(path)) - set(ENTRIES.values())
    assert not missing, f"not in chapters/references.bib: {missing}"


def test_works_are_recognised_however_they_are_named() -> None:
    text = (
        'Vaswani et al., "Attention Is All You Need" (2017); (Knowlton 1965; Wilson et al. 1995), '
        'Zhang and Sennrich 2019, Saxena, "Prompt Lookup Decoding" (2023). '
        "Read in October 2024, at FAST 2025. DeepSeek-AI 2024, section 2."
    )
    assert works_named_in(text) == {
        ("Vaswani", "2017"),
        ("Knowlton", "1965"),
        ("Wilson", "1995"),
        ("Zhang", "2019"),
        ("Saxena", "2023"),
        ("DeepSeek-AI", "2024"),
    }


def test_no_title_holds_mathematics_that_the_page_would_show_raw() -> None:
    assert "$" not in (ROOT / "chapters/references.bib").read_text(encoding="utf-8")
