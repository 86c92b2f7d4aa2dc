"""A notebook that is opened alone installs what it misses."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebook_form import normalise, read, text
from open_alone import open_alone


def test_the_first_cell_installs_the_package_from_the_repository_unless_it_is_there(tmp_path: Path) -> None:
    notebook = tmp_path / "chapter.ipynb"
    cells = [new_markdown_cell("# A chapter"), new_code_cell("import kvpaged")]
    notebook.write_text(text(normalise(new_notebook(cells=cells))), encoding="utf-8")
    for _ in range(2):  # twice is once
        open_alone(notebook, "https://example.org/a/fork@0123abc")
    found = read(notebook)
    nbformat.validate(found)
    assert [cell.cell_type for cell in found.cells] == ["code", "markdown", "code"]
    assert 'if find_spec("kvpaged") is None:' in found.cells[0].source
    assert '"kvpaged[all] @ git+https://example.org/a/fork@0123abc"' in found.cells[0].source, "at that version"
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in found.cells[0].source, "no CUDA libraries"
    assert found.cells[0].metadata.tags == ["remove-cell"], "the book does not show it"
    assert found.cells[0].outputs == []
    assert text(normalise(found)) == notebook.read_text(encoding="utf-8")
