"""The one form in which the book's notebooks are stored.

Running a notebook leaves behind times, versions, widget ids and the paths of the machine. None of it says anything
about the book, and all of it changes from run to run. A notebook in normal form holds its cells, its outputs and the
few metadata that the book reads, so a diff shows what changed and nothing else.
"""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
CELL_METADATA = ("mystnb", "tags")  # what myst-nb, nbclient and nbval read
# Folded text has a sign that it unfolds; JupyterLab's extension for such pages takes it away, if nothing is said.
SUMMARY = '<summary style="list-style-type: disclosure-closed">'
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # shows nothing without its kernel, and its id is random

_ansi_colour = re.compile(r"\x1b\[[0-9;]*m")
_rule = re.compile(r"^-{20,}\n", re.MULTILINE)
_library_frame = re.compile(r"^File [^\n]*\n(?:[ -][^\n]*\n)*\n*", re.MULTILINE)


def read(path: Path) -> NotebookNode:
    """The notebook at `path`, as nbformat 4."""
    return nbformat.read(path, as_version=4)


def text(notebook: NotebookNode) -> str:
    """The notebook as the text of its file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy of `notebook` in normal form; its cells keep their ids."""
    cells, count = [], 0
    for cell in notebook.cells:
        kept = NotebookNode(id=cell.id, cell_type=cell.cell_type, source=cell.source.rstrip())
        kept.metadata = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        if cell.cell_type == "markdown":
            kept.source = kept.source.replace("<summary>", SUMMARY)
        if cell.cell_type == "code":
            count += 1
            kept.execution_count = count
            kept.outputs = [_normalise_output(output, count) for output in cell.outputs]
        cells.append(kept)
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": NOTEBOOK_METADATA, "cells": cells})


def trim_traceback(traceback: str) -> str:
    """A traceback without colours, rules and the frames outside the notebook.

    Those frames carry the paths of one machine and the line numbers of one release; the reader needs the line of
    the cell and the message.
    """
    plain = _ansi_colour.sub("", traceback).rstrip("\n") + "\n"
    return _library_frame.sub("", _rule.sub("", plain)).rstrip("\n")


def _normalise_output(output: NotebookNode, count: int) -> NotebookNode:
    output = nbformat.from_dict(output)
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "error":
        output.traceback = trim_traceback("\n".join(output.traceback)).split("\n")
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
    return output
