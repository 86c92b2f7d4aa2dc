"""What a cell prints is one text, in however many pieces the kernel sent it.

A kernel sends what was printed when some time is up, perhaps in the middle of a line. myst-nb joins the pieces and ends
each of them with a newline, so that now and then a page had an empty line that nobody had printed.
"""

from typing import Any

from myst_nb.core import render
from sphinx.application import Sphinx

join_outputs = render.coalesce_streams


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    render.coalesce_streams = lambda outputs: join_outputs(whole(outputs))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def whole(outputs: list[Any]) -> list[Any]:
    """Join the pieces of each stream to the first of them, as they came."""
    first: dict[str, Any] = {}
    kept = []
    for output in outputs:
        name = output["name"] if output["output_type"] == "stream" else ""
        if name in first:
            first[name]["text"] += output["text"]
            continue
        if name:
            first[name] = output
        kept.append(output)
    return kept
