"""Where a chapter shows source code, a link to the page of that file, at the place where the code stands."""

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import viewcode
from sphinx.pycode import ModuleAnalyzer

FILE = re.compile(r"\.\./(kvpaged(?:/\w+)*?)(?:/__init__)?\.py")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("viewcode-find-source", read_source)
    app.connect("viewcode-follow-imported", home_of_property)
    app.connect("doctree-read", link_sources)
    app.connect("env-updated", link_back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_source(app: Sphinx, module: str) -> tuple[str, dict[str, tuple[str, int, int]]]:
    """The code of a module, and where its names stand. What is handed over so, viewcode writes anew in each build."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.find_tags()
    return analyzer.code, analyzer.tags


def home_of_property(app: Sphinx, module: str, name: str) -> str | None:
    """The module of a property, which does not say it itself, so that viewcode would pass it over."""
    owner, _, attribute = name.rpartition(".")
    kind = getattr(import_module(module), owner, None)
    return module if isinstance(getattr(kind, attribute, None), property) else None


def link_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Turn the links of `show_source`, to files of the repository, into links to the pages that viewcode makes of them.

    viewcode marks on those pages what the book describes, and links back. So it is handed a description of each name
    that the link's title lists, and the paragraph with the link is where it links back to.
    """
    for link in list(doctree.findall(nodes.reference)):
        if not (found := FILE.fullmatch(link.get("refuri", ""))):
            continue
        module, names = found[1].replace("/", "."), link["reftitle"].split(", ")
        for name in names:
            signature = addnodes.desc_signature(module=module, fullname=name)
            viewcode.doctree_read(app, addnodes.desc("", signature, domain="py"))
            if not signature.children:
                raise ValueError(f"viewcode finds no {name} in {module}")
            if (place := f"{module}.{name}") not in doctree.ids:
                link.parent["ids"].append(place)
                doctree.ids[place] = link.parent
        page = app.builder.get_relative_uri(app.env.docname, signature[0]["reftarget"])
        link["refuri"] = f"{page}#{names[0]}"


def link_back(app: Sphinx, env: BuildEnvironment) -> None:
    """Let what the API page describes link back to there, and not to the page that happened to be read last."""
    described = env.get_domain("py").data["objects"]
    for module, entry in env._viewcode_modules.items():  # type: ignore[attr-defined]
        for name in entry[2] if entry else ():
            if found := described.get(f"{module}.{name}"):
                entry[2][name] = found.docname
