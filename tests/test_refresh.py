"""The refresh command, on small notebooks of its own."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from notebook_form import read

REFRESH = Path(__file__).parents[1] / "tools" / "refresh.py"


def refresh(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, REFRESH, *map(str, arguments)], capture_output=True, text=True, check=False)


def write(path: Path, *cells: tuple[str, list[str]]) -> Path:
    """A notebook that was never run; each cell is a source and its tags."""
    nbformat.write(new_notebook(cells=[new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]), path)
    return path


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of notebooks after one refresh of all of them, and what it said."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(folder / "sound.ipynb", ("print('hello')", []), ("1 / 0", ["raises-exception"]), ("6 * 7", []))
    write(folder / "broken.ipynb", ("print('hello')", []), ("1 / 0", []))
    write(folder / "tame.ipynb", ("1 / 1", ["raises-exception"]))
    done = refresh(*folder.glob("*.ipynb"))
    assert done.returncode == 1
    return folder, done.stderr


def test_outputs_are_stored_and_a_cell_that_must_raise_does_not_stop_the_run(refreshed: tuple[Path, str]) -> None:
    hello, error, product = read(refreshed[0] / "sound.ipynb").cells
    assert hello.outputs[0].text == "hello\n"
    assert error.outputs[0].ename == "ZeroDivisionError"
    assert product.outputs[0].data["text/plain"] == "42"


def test_a_notebook_that_fails_is_named_and_left_as_it_was(refreshed: tuple[Path, str]) -> None:
    folder, said = refreshed
    assert "broken.ipynb failed and was left as it was" in said
    assert "ZeroDivisionError: division by zero" in said
    assert not read(folder / "broken.ipynb").cells[0].outputs


def test_a_cell_that_must_raise_and_does_not_is_refused(refreshed: tuple[Path, str]) -> None:
    folder, said = refreshed
    assert "tame.ipynb was left as it was: a cell tagged raises-exception raises none" in said
    assert not read(folder / "tame.ipynb").cells[0].outputs


def test_a_second_refresh_changes_nothing(refreshed: tuple[Path, str]) -> None:
    sound = refreshed[0] / "sound.ipynb"
    before = sound.read_text(encoding="utf-8")
    again = refresh(sound)
    assert again.returncode == 0
    assert "stored" not in again.stderr + again.stdout
    assert sound.read_text(encoding="utf-8") == before


def test_check_runs_nothing_and_names_what_is_not_in_normal_form(refreshed: tuple[Path, str]) -> None:
    folder, _ = refreshed
    assert refresh("--check", folder / "sound.ipynb").returncode == 0
    checked = refresh("--check", folder / "sound.ipynb", folder / "broken.ipynb")
    assert checked.returncode == 1
    assert "broken.ipynb is not in normal form" in checked.stderr
    assert "sound.ipynb" not in checked.stderr
