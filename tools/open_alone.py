"""Let each notebook install what it misses: `python tools/open_alone.py https://github.com/you/your-fork@COMMIT`.

A notebook that is opened alone, in Colab say, has no package beside it. This puts a cell before its first that fetches
the package from that repository, as it was at that commit, unless it is there; and PyTorch's CPU build, where PyTorch
is missing or too old. The workflow that publishes the book does so on a branch of its own, `notebooks`, which the
book's launch buttons open; the notebooks on `main` stay as they are.
"""

import sys
from pathlib import Path

from nbformat.v4 import new_code_cell

from notebook_form import normalise, read, text

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
CHAPTERS = Path(__file__).parents[1] / "chapters"
INSTALL = """\
# Opened alone, without the book around it? Then this installs the package; else it does nothing.
from importlib.util import find_spec

if find_spec("kvpaged") is None:
    %pip install --quiet --extra-index-url {cpu_builds} "kvpaged[all] @ git+{address}"\
"""


def open_alone(notebook: Path, address: str) -> None:
    """Put the installing cell at the top of a notebook, in place of one that is there already."""
    found = read(notebook)
    if found.cells and found.cells[0].id == "install":
        del found.cells[0]
    install = INSTALL.format(address=address, cpu_builds=CPU_BUILDS)
    cell = new_code_cell(install, id="install", metadata={"tags": ["remove-cell"]})
    found.cells.insert(0, cell)
    notebook.write_text(text(normalise(found)), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("https://"):
        sys.exit("say where the package is: python tools/open_alone.py https://github.com/you/your-fork@COMMIT")
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        open_alone(path, sys.argv[1].removesuffix("/"))
