"""Notebooks in normal form: what a run leaves behind and no reader needs is gone, and the rest is untouched."""

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebook_form import normalise, text, trim_traceback

TRACEBACK = """\
---------------------------------------------------------------------------
\x1b[31mOutOfPages\x1b[39m                    Traceback (most recent call last)
\x1b[36mCell\x1b[39m In[3], line 1
----> 1 pool.allocate()

File ~/book/kvpaged/page_pool.py:65, in PagePool.allocate(self)
     64 if full:
---> 65     raise OutOfPages(self._shortage(1))
     66 return page_id

OutOfPages: 1 page wanted, 0 free"""


def fresh_run() -> NotebookNode:
    """A notebook as Jupyter leaves it after a run."""
    cell = new_code_cell(
        "1 + 1\n", execution_count=17, metadata={"execution": {"iopub.status.busy": "now"}, "tags": ["x"]}
    )
    cell.outputs = [
        new_output("execute_result", {"text/plain": "2"}, execution_count=17),
        new_output("error", ename="OutOfPages", evalue="1 page wanted, 0 free", traceback=TRACEBACK.split("\n")),
        new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "f00"}, "text/plain": "w"}
        ),
    ]
    metadata = {"language_info": {"name": "python", "version": "3.11.7"}, "widgets": {"state": {}}}
    return new_notebook(cells=[new_markdown_cell("Words.", metadata={"editable": True}), cell], metadata=metadata)


def test_a_traceback_keeps_the_line_of_the_cell_and_the_message() -> None:
    assert trim_traceback(TRACEBACK) == (
        "OutOfPages                    Traceback (most recent call last)\n"
        "Cell In[3], line 1\n"
        "----> 1 pool.allocate()\n"
        "\n"
        "OutOfPages: 1 page wanted, 0 free"
    )


def test_normal_form_drops_times_versions_and_widgets() -> None:
    stored = text(normalise(fresh_run()))
    for noise in ("iopub", "3.11.7", "widget", "model_id", "editable", 'count": 17', "page_pool.py"):
        assert noise not in stored


def test_normal_form_keeps_cells_ids_tags_and_outputs() -> None:
    before = fresh_run()
    after = normalise(before)
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert after.cells[1].metadata == {"tags": ["x"]}
    assert after.cells[1].outputs[0].data == {"text/plain": "2"}
    assert after.cells[1].outputs[1].evalue == "1 page wanted, 0 free"


def test_code_cells_count_from_one() -> None:
    cell = normalise(fresh_run()).cells[1]
    assert cell.execution_count == cell.outputs[0].execution_count == 1


def test_normal_form_is_valid_and_its_own_normal_form() -> None:
    once = normalise(fresh_run())
    nbformat.validate(once)
    assert text(normalise(once)) == text(once)


def test_normalising_changes_only_the_copy() -> None:
    notebook = fresh_run()
    before = text(notebook)
    normalise(notebook)
    assert text(notebook) == before


def test_folded_text_shows_in_jupyterlab_too_that_it_unfolds() -> None:
    folded = nbformat.v4.new_markdown_cell("<details>\n<summary>Hint</summary>\n\nCount.\n\n</details>")
    once = normalise(nbformat.v4.new_notebook(cells=[folded]))
    assert '<summary style="list-style-type: disclosure-closed">Hint</summary>' in once.cells[0].source
    assert text(normalise(once)) == text(once)
