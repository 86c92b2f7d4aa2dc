"""What the book needs of Sphinx beyond its settings."""

import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tools"))

from kvpaged.figures.picture import inline_pictures, stylesheet  # noqa: E402
from notebook_form import trim_traceback  # noqa: E402  (the line above says where it is)

LIVE_CODE = re.compile(r'<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName.*?</script>', re.DOTALL)
FIGURE_FILES = ["picture.css", "trace_player.css", "trace_player.js"]
CHAPTER = re.compile(r"chapters/(\d\d)-")
ROOM = re.compile(r" data-chapter='(\d+)'")
PYTHON_SAYS = "Alias for field number"
TORCH_SAYS = "Define the computation performed at every call."
SAID_OF_MAKING = ("Create new instance of ", "Initialize internal Module state")
COLUMNS = re.compile(r"\S {2,}\S")
MENDED = [
    # The label of a folded cell hides the words that stand on it.
    (' aria-label="Toggle hidden content"', ""),
    # A list needs list items, and `doc-biblioentry` is no longer a role.
    (' role="doc-biblioentry"', ' role="listitem"'),
    # A formula scrolls in its box: the keyboard must get there.
    ('<div class="math ', '<div tabindex="0" role="group" aria-label="Formula" class="math '),
    # The empty corner of a table is the header of nothing.
    ('<th class="head"><p></p></th>', "<td></td>"),
    # The list of modules hangs those of a package beside it, where a list may have items only: hang them below it.
    ("</a></li>\n<ul><li>", "</a>\n<ul><li>"),
    ("</a></li>\n</ul><li>", "</a></li>\n</ul></li><li>"),
]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests: same sums, same last digit
    os.environ["KVPAGED_PROGRESS"] = ""  # what the one who builds the book has solved is not printed in it
    app.add_js_file("print.js", loading_method="defer")
    app.add_js_file("map.js", loading_method="defer")
    app.connect("config-inited", serve_own_files)
    app.connect("env-before-read-docs", read_side_by_side)
    app.connect("env-updated", write_in_turn)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", leave_out_inherited)
    app.connect("doctree-read", trim_tracebacks)
    app.connect("doctree-read", mark_columns)
    app.connect("env-get-updated", number_chapters, priority=900)  # after Sphinx has counted them
    app.connect("html-page-context", mend_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def serve_own_files(app: Sphinx, config: Config) -> None:
    """Add our templates, what pictures need, and MathJax: a reader without a network sees the mathematics."""
    config.templates_path.append(str(HERE / "templates"))
    config.html_static_path += [str(HERE / "vendor"), str(HERE / "static")]
    config.html_static_path += [str(files("kvpaged.figures").joinpath(name)) for name in FIGURE_FILES]


def read_side_by_side(app: Sphinx, env: BuildEnvironment, pages: list[str]) -> None:
    """Run as many notebooks at a time as there are processors, up to four: each takes one, and half a gigabyte.

    Sphinx reads side by side only if each extension says that it may. Two say nothing; they count sections and prepare
    a LaTeX file when all has been read.
    """
    app.parallel = min(4, os.cpu_count() or 1)
    for extension in app.extensions.values():
        extension.parallel_read_safe = True if extension.parallel_read_safe is None else extension.parallel_read_safe


def write_in_turn(app: Sphinx, env: BuildEnvironment) -> None:
    """Write the pages one after another: what one of them needs is noted as it is written."""
    app.parallel = 1


def skip_fields(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of a named tuple: they stand in its signature, and Python only numbers them."""
    return True if str(getattr(member, "__doc__", "")).startswith(PYTHON_SAYS) else None


def leave_out_inherited(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """Leave out what PyTorch says to one who writes a `forward`, and what every tuple and module says of its making."""
    if TORCH_SAYS in lines:
        lines.clear()
    lines[:] = [line for line in lines if not line.startswith(SAID_OF_MAKING)]


def trim_tracebacks(app: Sphinx, doctree: nodes.document) -> None:
    """Show of a traceback what the stored notebook shows: no path of the machine that built the book."""
    for block in doctree.findall(nodes.literal_block):
        if "traceback" in block["classes"]:
            trimmed = trim_traceback(block.astext())
            block.rawsource, block.children = trimmed, [nodes.Text(trimmed)]


def mark_columns(app: Sphinx, doctree: nodes.document) -> None:
    """Mark printed tables: on a phone their lines scroll, where other printed lines wrap (see `_static/book.css`)."""
    for block in doctree.findall(nodes.literal_block):
        if {"stream", "text_plain"} & set(block["classes"]) and COLUMNS.search(block.astext()):
            block["classes"].append("columns")


def number_chapters(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number each chapter, and its figures, as its file is numbered; a page between chapters has no number."""
    for page, numbers in env.toc_secnumbers.items():
        headings = [env.titles[page], *env.tocs[page].findall(nodes.reference)]
        if not (chapter := CHAPTER.match(page)):
            env.toc_secnumbers[page] = {}
            for heading in headings:
                heading.attributes.pop("secnumber", None)
            continue
        first = int(chapter[1])
        env.toc_secnumbers[page] = {place: (first, *old[1:]) if old else old for place, old in numbers.items()}
        figures = env.toc_fignumbers.get(page, {}).get("figure", {})
        figures.update({place: (first, *old[1:]) for place, old in figures.items()})
        for heading in headings:
            if heading.get("secnumber"):
                heading["secnumber"] = [first, *heading["secnumber"][1:]]
    return []


def draw_pictures(app: Sphinx, body: str) -> str:
    """Put each picture into the page itself, and its style and script, which a notebook repeats, beside the page."""
    drawn = inline_pictures(body)
    for name in FIGURE_FILES:
        drawn = drawn.replace(stylesheet(name), "")
    if drawn != body:
        app.add_css_file("picture.css")
        if "kvt" in drawn:
            app.add_css_file("trace_player.css")
            app.add_js_file("trace_player.js", loading_method="defer")
    return drawn.replace("<style></style>", "").replace("<script></script>", "")


def link_rooms(app: Sphinx, page: str, body: str) -> str:
    """Make each room of the system map a link to its chapter, if that is written."""
    chapters = {int(found[1]): name for name in app.env.found_docs if (found := CHAPTER.match(name))}

    def address(room: re.Match[str]) -> str:
        chapter = chapters.get(int(room[1]))
        return f' href="{app.builder.get_relative_uri(page, chapter) or "#"}"' if chapter else ""

    return ROOM.sub(address, body)


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Drop the live-code scripts, and mend what screen readers trip over in the markup of other extensions."""
    if page == app.config.root_doc:
        context["docstitle"] = ""  # its own title is that of the book
    if "body" in context:
        body = LIVE_CODE.sub("", draw_pictures(app, context["body"]))
        body = link_rooms(app, page, body)
        for wrong, right in MENDED:
            body = body.replace(wrong, right)
        context["body"] = body
    # The book has no kernel to offer, and the theme loads the script twice, which throws an error.
    context["script_files"] = [
        each for each in context["script_files"] if "thebe" not in str(each) and not is_dead(each)
    ]
    context["css_files"] = [style for style in context["css_files"] if "thebe" not in str(style)]
    if 'class="math' not in context.get("body", ""):  # Sphinx counts the formulas of all pages as the first page's own
        context["script_files"] = [each for each in context["script_files"] if not sets_mathematics(each)]


def is_dead(script: Any) -> bool:
    """Whether a script is the state of widgets, which nothing reads without a kernel."""
    return "widget-state" in (getattr(script, "attributes", {}).get("type") or "")


def sets_mathematics(script: Any) -> bool:
    """Whether a script is MathJax, or its settings."""
    return "mathjax" in str(script) or "window.MathJax" in str(getattr(script, "attributes", {}).get("body"))
