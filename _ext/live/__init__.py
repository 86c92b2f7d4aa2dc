"""Live cells: code cells tagged `live` run in the page of the built book, by Python in the reader's browser.

Python is Pyodide, from `tools/node_modules` (`npm ci --prefix tools`). `pack.mjs` makes one script of it, of a trimmed
library and of the book's package, which the page loads when a reader first runs a cell. Without Pyodide the book is
built as well, and each page with such cells says what would be there.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.console import bold

from kvpaged.exercises import exercises

logger = logging.getLogger(__name__)
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYODIDE = ROOT / "tools" / "node_modules" / "pyodide"
CELL = re.compile(r'<div class="cell [^"]*\btag_live\b')
CHECK = re.compile(r"\bcheck\(\s*[\"'](\w+\.\d+)[\"']")
# Rooms of tensors, which a page has no use for: a third of the package.
KINDS = {".py", ".css", ".js", ".toml"}
LEFT_OUT = {"adapters", "cli", "engine", "kernel", "model", "quantised", "recall"}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", add_cells, priority=800)  # before `book` has the last word
    app.connect("html-page-context", add_progress, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": False}  # one page packs Python for all


def add_cells(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give a page with live cells its scripts, and a sentence about them."""
    if not CELL.search(context.get("body", "")):
        return
    if bundle := packed(app):
        megabytes = f"{size_on_the_way(bundle) / 1e6:.1f}"
        # In a file of its own: a page that is not built again finds the newest Python all the same.
        known = json.dumps({"name": bundle.name, "megabytes": megabytes})
        bundle.with_name("bundle.js").write_text(f"globalThis.kvpaged = {{ bundle: {known} }};\n", encoding="utf-8")
        note = (
            "The cells with buttons run in this page. The first change or run fetches Python from this site, "
            f"{megabytes} MB, and starts it: in about three seconds on a laptop once it is here, on a phone in more. "
            "Your browser keeps it, and starts it in about one at the next visit."
            "<noscript> (That needs JavaScript, which is off.)</noscript>"
        )
        app.add_css_file("live/cells.css")
        app.add_css_file("picture.css")
        for script in ("bundle.js", "progress.js", "python.js", "editor.js", "cells.js"):
            app.add_js_file(f"live/{script}", loading_method="defer")
    else:
        note = (
            "Some cells would run here, in the page, had <code>npm ci --prefix tools</code> brought Python for the "
            "browser before the book was built; in a notebook they run as all others do."
        )
    context["body"] = CELL.sub(rf'<p class="live-note">{note}</p>\n\g<0>', context["body"], count=1)


def add_progress(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell the element `progress` of the index which exercises can be answered in the book."""
    if page == app.config.root_doc and '<div id="progress">' in context.get("body", "") and pyodide_is_here():
        numbers = json.dumps(answerable(app))
        context["body"] = context["body"].replace(
            '<div id="progress">', f"<div id='progress' data-exercises='{numbers}'>"
        )
        app.add_js_file("live/progress.js", loading_method="defer")


def answerable(app: Sphinx) -> list[str]:
    """The numbers of the exercises that a live cell of the book checks."""
    cells = [
        cell.astext()
        for page in app.env.found_docs
        for cell in app.env.get_doctree(page).findall(nodes.container)
        if "tag_live" in cell["classes"]
    ]
    live = {number for cell in cells for number in CHECK.findall(cell)}
    return [exercise.number for exercise in exercises() if exercise.number in live]


def pyodide_is_here() -> bool:
    """Whether Python for the browser can be packed: Pyodide's files, and Node, in which it compiles the library."""
    return PYODIDE.is_dir() and shutil.which("node") is not None


def packed(app: Sphinx) -> Path | None:
    """Python for the pages, as one script of the built book; packed anew when something in it changed."""
    if not pyodide_is_here():
        return None
    ours = sources()
    made_of = [PYODIDE / "package.json", *sorted(HERE.glob("*.*")), HERE.parent / "static/live/worker.js"]
    digest = hashlib.sha256(ours + b"".join(path.read_bytes() for path in made_of if path.is_file())).hexdigest()
    folder = Path(app.outdir, "_static", "live")
    bundle = folder / f"kvpaged-python-{digest[:12]}.js"
    if not bundle.exists():
        logger.info(bold("packing Python for the pages... "), nonl=True)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("kvpaged-python-*.js"):
            old.unlink()
        archive = bundle.with_suffix(".zip")
        archive.write_bytes(ours)
        command = ["node", HERE / "pack.mjs", PYODIDE, archive, bundle]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        archive.unlink()
        logger.info("done")
    return bundle


def sources() -> bytes:
    """The book's package and what runs beside it, as a zip file: the same bytes for the same files."""
    package = Path(str(files("kvpaged")))
    inside = {path.relative_to(HERE / "inside"): path for path in (HERE / "inside").glob("*.py")}
    rooms = {path.relative_to(package.parent): path for path in package.rglob("*") if path.suffix in KINDS}
    rooms = {name: path for name, path in rooms.items() if name.parts[1] not in LEFT_OUT}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, path in sorted({**inside, **rooms}.items()):
            archive.writestr(zipfile.ZipInfo(name.as_posix()), path.read_bytes())
    return written.getvalue()


def size_on_the_way(path: Path) -> int:
    """The bytes of a file when a server compresses it."""
    return len(gzip.compress(path.read_bytes(), compresslevel=6))
