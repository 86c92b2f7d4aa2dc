"""The glossary holds the book's terms, and each chapter links them where it first uses them."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebook_form import read
from terms import EVERYDAY, ROLE, TERMS, glossary, link, unlinked, uses

PAGES = Path(__file__).parents[1] / "chapters"
CHAPTERS = sorted(PAGES.glob("[0-9][0-9]-*.ipynb"))


def unlinked_terms(*cells: str) -> list[str]:
    return [use.term for _, use in unlinked(new_notebook(cells=[new_markdown_cell(cell) for cell in cells]))]


@pytest.mark.parametrize("page", sorted([*PAGES.glob("*.md"), *PAGES.glob("*.ipynb")]), ids=lambda path: path.name)
def test_every_link_to_the_glossary_leads_to_a_term(page: Path) -> None:
    known = {name.lower() for name in TERMS}
    for role in ROLE.finditer(page.read_text(encoding="utf-8")):
        assert (role[1] or role[2]).lower() in known, f"the glossary has no {role[0]}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_links_each_term_where_it_first_uses_it(chapter: Path) -> None:
    missing = [use.term for _, use in unlinked(read(chapter))]
    assert not missing, f"run python tools/terms.py {chapter.name}: {', '.join(missing)}"


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    entries = list(dict.fromkeys(TERMS.values()))
    assert entries == sorted(entries, key=str.lower)


def test_the_words_of_every_day_are_terms() -> None:
    assert set(TERMS) >= EVERYDAY


def test_a_glossary_may_give_several_names_to_one_thing() -> None:
    page = "Words.\n\n```{glossary}\npage\n  A piece.\n\nTTFT\ntime to first token\n  A time.\n```\n"
    assert glossary(page) == {"page": "page", "TTFT": "TTFT", "time to first token": "TTFT"}


def test_of_two_terms_in_one_place_the_longer_is_meant() -> None:
    assert [use.term for use in uses("The page tables of a page.")] == ["page table", "page"]


@pytest.mark.parametrize(
    "words",
    [
        "# The page",
        "`page`",
        "```\npage\n```",
        "$page$",
        "[the page](x.md)",
        "{cite:t}`page`",
        "a homepage",
        "page-wise",
    ],
)
def test_no_use_is_what_is_not_prose(words: str) -> None:
    assert unlinked_terms(words) == []


def test_only_the_first_use_wants_a_link() -> None:
    assert unlinked_terms("A {term}`page`, and a page.", "More pages.") == []
    assert unlinked_terms("A page.", "A {term}`page`.") == ["page"]


def test_a_link_under_one_name_is_a_link_to_the_thing() -> None:
    assert unlinked_terms("The {term}`TTFT`, or time to first token.") == []


def test_a_word_of_every_day_may_stay_as_it_is() -> None:
    assert unlinked_terms("Each token is a hit.") == []


def test_linking_changes_the_first_uses_and_nothing_else() -> None:
    notebook = new_notebook(
        cells=[
            new_markdown_cell("Pages, in a page table.\n\n# Fork"),
            new_code_cell("page = 1"),
            new_markdown_cell("A page, a fork."),
        ]
    )
    assert link(notebook)
    assert [cell.source for cell in notebook.cells] == [
        "{term}`Pages <page>`, in a {term}`page table`.\n\n# Fork",
        "page = 1",
        "A page, a {term}`fork`.",
    ]
    assert not link(notebook)
