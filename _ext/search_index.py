"""What the search page searches: every section, term and object of the book, with its words and where it is.

Sphinx's own index knows which page holds a word, not how often or where, so it cannot say which page is about it.
This one keeps the text itself; `static/search.js` ranks it in the reader's browser, with MiniSearch, and shows the
words around what it found. It is a script, not data to be fetched: a book opened as a file has it too.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

from kvpaged.figures.system_map import ROOMS

TAG = re.compile(r"<[^>]*>")
SPACE = re.compile(r"\s+")


class Entry(NamedTuple):
    """One thing that can be found, in one page."""

    anchor: str
    title: str
    text: str
    code: str


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", without_sphinx_index)
    app.connect("html-collect-pages", search_page)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_sphinx_index(app: Sphinx) -> None:
    """Let the builder write no index of its own."""
    app.builder.search = False


def search_page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Add the page that searches."""
    yield "search", {"title": "Search"}, "search.html"


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """Write the index beside the pages, in the order of the book."""
    if exception or app.builder.format != "html":
        return
    pages = []
    for name in sorted(app.env.found_docs):
        entries = list(find_entries(app.env.get_doctree(name)))
        numbers = app.env.toc_secnumbers.get(name, {}).get("", ())
        title = ". ".join([*map(str, numbers[:1]), app.env.titles[name].astext()])
        about = "; ".join(f"{room.name}: {room.does}" for room in ROOMS if numbers and room.chapter == numbers[0])
        pages.append([app.builder.get_target_uri(name), title, about, entries])
    english = SearchEnglish({})
    written = [
        f"const PAGES = {json.dumps(pages, ensure_ascii=False, separators=(',', ':'))};",
        f"const STOPWORDS = {json.dumps(sorted(english.stopwords))};",
        english.js_stemmer_code,
    ]
    Path(app.outdir, "searchindex.js").write_text("\n".join(written), encoding="utf-8")


def find_entries(doctree: nodes.document) -> Iterator[Entry]:
    """Each section of a page, each term that it explains, each object that it documents."""
    for section in doctree.findall(nodes.section):
        title, *rest = section.children
        yield entry(section["ids"][0], title.astext(), rest)
    for item in doctree.findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            if term["ids"]:
                yield entry(term["ids"][0], term.astext(), list(item.findall(nodes.definition)))
    for described in doctree.findall(addnodes.desc):
        for signature in described.findall(addnodes.desc_signature):
            if signature["ids"] and signature.parent is described:
                yield entry(signature["ids"][0], signature["fullname"], [described.children[-1]])


def entry(anchor: str, title: str, content: list[nodes.Node]) -> Entry:
    """Gather the words of some nodes: prose and code apart, no picture, no output, nothing that has its own entry."""
    prose: list[str] = []
    code: list[str] = []
    for node in content:
        gather(node, prose, code)
    return Entry(anchor, title, SPACE.sub(" ", " ".join(prose)).strip(), SPACE.sub(" ", " ".join(code)).strip())


def gather(node: nodes.Node, prose: list[str], code: list[str]) -> None:
    """Add the words of a node to the prose or to the code."""
    if isinstance(node, nodes.raw):
        if "<table" in node.astext():  # what other systems call a thing
            prose.append(TAG.sub(" ", re.sub(r"<style>.*?</style>", "", node.astext(), flags=re.DOTALL)))
    elif isinstance(node, nodes.math | nodes.math_block):
        prose.append("…")
    elif isinstance(node, nodes.literal_block):
        if not {"stream", "text_plain", "traceback"} & set(node["classes"]):
            code.append(node.astext())
    elif isinstance(node, nodes.TextElement) and any(node.findall(nodes.math)):
        parts = node.findall(nodes.Text)
        prose.append("".join("…" if isinstance(part.parent, nodes.math) else part.astext() for part in parts))
    elif isinstance(node, nodes.Text | nodes.TextElement):
        prose.append(node.astext())
    elif not isinstance(node, nodes.comment | nodes.section | addnodes.glossary | addnodes.desc):
        for child in node.children:
            gather(child, prose, code)
