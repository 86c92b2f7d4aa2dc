"""The book's table of contents, and the checker of the built book."""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from check_site import check, printed_otherwise

sys.path.append(str(Path(__file__).parents[1] / "_ext"))

from book import leave_out_inherited
from streams import join_outputs, whole

ROOT = Path(__file__).parents[1]


def test_every_page_of_the_book_is_in_the_table_of_contents_once() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    named = [toc["root"], *(entry.get("file") or entry["glob"] for entry in entries)]
    for path in sorted((ROOT / "chapters").iterdir()):
        if path.suffix in (".md", ".ipynb"):
            assert sum(fnmatch(f"chapters/{path.stem}", name) for name in named) == 1, f"{path.name} in _toc.yml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "other.html").write_text('<h1 id="top">Other</h1>', encoding="utf-8")
    formula = '<span class="math notranslate">x</span><script src="mathjax.html"></script>'
    (tmp_path / "mathjax.html").write_text(formula, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("markup", "fault"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js from another site"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "loads //cdn.example/x.css from another site"),
        ("<style>a { background: url(https://cdn.example/x.png) }</style>", "loads https://cdn.example/x.png"),
        ('<a href="missing.html">x</a>', "missing.html is not there"),
        ('<a href="../kvpaged/page.py">x</a>', "../kvpaged/page.py is a file of source code"),
        ('<a href="other.html#nowhere">x</a>', "other.html#nowhere: no such place"),
        ('<img src="data:image/png;base64,">', "no text says what it shows: data:image/png;base64,"),
        ('<article><img src="other.html" alt=""></article>', "no text says what it shows: other.html"),
        ('<article><img src="other.html" alt="the file plot_1.png again"></article>', "no text says what it shows"),
        ('<svg aria-label="Image"></svg>', "no text says what it shows: a drawing"),
        ("<nav>Project name not set</nav>", "where the title of the book belongs"),
        ("<dd><p>Alias for field number 0</p></dd>", "says 'Alias for field number', which its writer did not"),
        ('<script type="application/vnd.jupyter.widget-state+json">{}</script>', "holds the state of widgets"),
        ("<title>The book &#8212; The book</title>", "its title says twice 'The book'"),
        ('<script src="mathjax.html"></script>', "loads MathJax, and has no formula"),
    ],
)
def test_the_site_checker_names_the_page_and_the_fault(site: Path, markup: str, fault: str) -> None:
    (site / "page.html").write_text(markup, encoding="utf-8")
    (problem,) = check(site)
    assert problem.startswith("page.html: ")
    assert fault in problem


def test_the_site_checker_accepts_links_out_and_links_to_places(site: Path) -> None:
    (site / "page.html").write_text(
        '<a href="other.html#top">in</a><a href="https://example.org">out</a><img src="other.html" alt="">'
        '<article><img src="other.html" alt="A pool of eight pages, all free"></article><svg aria-hidden="true"></svg>',
        encoding="utf-8",
    )
    assert check(site) == []


def test_the_site_checker_refuses_an_empty_site(tmp_path: Path) -> None:
    assert "build the book first" in check(tmp_path)[0]


def test_the_site_checker_counts_the_figures_of_a_chapter(tmp_path: Path) -> None:
    caption = '<figcaption><span class="caption-number">Figure {} </span>A pool.</figcaption>'
    page = tmp_path / "04-page-pool.html"
    page.write_text(caption.format("4.1") + caption.format("4.2"), encoding="utf-8")
    assert check(tmp_path) == []
    page.write_text(caption.format("4.1") + caption.format("5.1"), encoding="utf-8")
    assert check(tmp_path) == ["04-page-pool.html: a figure is numbered Figure 5.1; its place is that of Figure 4.2"]


def test_the_api_page_tells_how_a_class_is_made_and_nothing_that_was_only_inherited() -> None:
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    assert settings["autoclass_content"] == "both"
    lines = ["A decoder.", "", "Initialize internal Module state, shared by both.", "Raises ValueError for none."]
    leave_out_inherited(None, "class", "Decoder", None, None, lines)  # type: ignore[arg-type]
    assert lines == ["A decoder.", "", "Raises ValueError for none."]


def test_what_was_printed_is_shown_as_it_was_printed_wherever_the_kernel_cut_it() -> None:
    def stream(text: str, name: str = "stdout") -> dict[str, str]:
        return {"output_type": "stream", "name": name, "text": text}

    picture = {"output_type": "display_data", "data": {}}
    pieces = [stream("one"), stream("\ntwo"), stream("a warning\n", "stderr"), picture, stream("\n\nfour\n")]
    assert [each.get("text") for each in join_outputs(whole(pieces))] == ["one\ntwo\n\nfour\n", "a warning\n", None]


def test_a_page_that_prints_something_else_than_its_notebook_stores_is_named(tmp_path: Path) -> None:
    (tmp_path / "site" / "chapters").mkdir(parents=True)
    (tmp_path / "chapters").mkdir()
    printed = {"output_type": "stream", "name": "stdout", "text": ["a < b\n", "c\n"]}
    cells = [
        {"metadata": {}, "outputs": [printed]},
        {"metadata": {"tags": ["nbval-ignore-output"]}, "outputs": [printed | {"text": "0.97 times"}]},
        {"metadata": {}},
    ]
    (tmp_path / "chapters" / "one.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    page = tmp_path / "site" / "chapters" / "one.html"
    page.write_text("<pre>a &lt; b\nc</pre>", encoding="utf-8")
    assert not printed_otherwise(tmp_path / "site", tmp_path / "chapters")
    page.write_text("<pre>a &lt; b\n\nc</pre>", encoding="utf-8")
    [problem] = printed_otherwise(tmp_path / "site", tmp_path / "chapters")
    assert problem == "one.html: does not print what is stored: 'a < b\\nc'"
