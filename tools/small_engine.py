"""The small engine, `kvpaged/mini.py`, is the cells of the chapters that carry the tag `mini`, one after another.

So the reader runs, in the chapters, the very code that the package holds and the tests use as an oracle.
`tools/refresh.py` writes the file anew; a test holds it to the cells, letter for letter.
"""

from collections.abc import Iterator
from pathlib import Path

from notebook_form import read

ROOT = Path(__file__).parents[1]
FILE = ROOT / "kvpaged" / "mini.py"
TAG = "mini"
HEADER = '''\
"""The small engine, as chapters 3 to 10 build it: put together from their cells by `python tools/refresh.py`."""

import torch
'''


def small_engine() -> str:
    """The text of `kvpaged/mini.py`, put together from the chapters in their order."""
    parts = [HEADER.rstrip()]
    for number, title, cells in _chapters():
        parts += [f"# Chapter {number}: {title[0].lower()}{title[1:]}", *cells]
    text = "\n\n\n".join(parts) + "\n"
    return text.replace("import torch\n\n\n#", "import torch\n\n#", 1)


def _chapters() -> Iterator[tuple[int, str, list[str]]]:
    """Number, title and pieces of each chapter that has any."""
    for path in sorted((ROOT / "chapters").glob("[0-9][0-9]-*.ipynb")):
        cells = read(path).cells
        pieces = [cell.source.strip() for cell in cells if TAG in cell.metadata.get("tags", [])]
        if pieces:
            title = cells[0].source.split("\n")[0].removeprefix("# ")
            yield int(path.name[:2]), title, pieces
