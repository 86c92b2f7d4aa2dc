"""Live cells: the runner that runs them, what the page is sent, and what it says where that is not to be had."""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "_ext"))

import live


def inside(name: str) -> ModuleType:
    """A module that runs in the page, loaded by hand: beside them stands a torch that is none."""
    spec = importlib.util.spec_from_file_location(f"page_{name}", live.HERE / "inside" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = inside("runner")

CELL = '<div class="cell tag_exercise tag_live docutils container">…</div>'
IN_TIME = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python tells where it is from 3.12 on, as in the page")


def run(source: str, cell: str = "cell 1") -> dict[str, Any]:
    return json.loads(runner.answer(json.dumps({"do": "run", "cell": cell, "source": source})))


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    runner.NAMESPACE.clear()
    runner.NAMESPACE["__name__"] = "__main__"


def test_a_cell_shows_what_it_prints_and_the_value_at_its_end() -> None:
    assert run("print('so')\n6 * 7") == {"printed": "so\n", "text": "42"}
    assert run("x = 1") == {"printed": ""}
    assert run("None") == {"printed": ""}
    assert run("") == {"printed": ""}


def test_cells_share_their_names() -> None:
    run("def double(x):\n    return 2 * x")
    assert run("double(x=4)", "cell 2")["text"] == "8"


def test_a_picture_is_drawn_in_the_page_itself() -> None:
    html = run("from kvpaged import PagePool\nfrom kvpaged.figures import page_map\npage_map(PagePool(4))")["html"]
    assert html.startswith('<figure class="kvf">')
    assert "0 used, 4 free" in html


def test_a_verdict_says_its_number_and_whether_it_passed() -> None:
    cell = "from kvpaged.exercises import check\n"
    cell += "def release_many(pool, pages): {}\ncheck('4.2', release_many, keep_it=False)"
    failed = run(cell.format("..."))
    assert (failed["number"], failed["passed"]) == ("4.2", False)
    assert "not yet" in failed["html"]
    again = run(cell.format("pool.lost"))
    assert "at line 2: <code>def release_many(pool, pages): pool.lost</code>" in again["html"]


def test_an_error_is_told_by_the_lines_of_cells_alone() -> None:
    run("def half(x):\n    return 1 / x", "cell 1")
    failed = run("# a comment\nhalf(0)", "cell 2")
    assert failed["line"] == 2
    assert failed["error"].startswith(
        'Traceback (most recent call last):\n  File "<cell 2>", line 2, in <module>\n    half(0)\n'
    )
    assert 'File "<cell 1>", line 2, in half\n    return 1 / x\n' in failed["error"]
    assert failed["error"].endswith("ZeroDivisionError: division by zero")
    assert "runner.py" not in failed["error"]


def test_an_error_that_came_from_another_is_told_without_the_books_lines() -> None:
    failed = run(
        "from kvpaged import PagePool\ntry:\n    PagePool(1).release(0)\nexcept ValueError as error:\n"
        "    raise KeyError(1) from error"
    )
    assert "page_pool.py" not in failed["error"]
    assert failed["line"] == 5


def test_a_syntax_error_is_told_at_its_line() -> None:
    failed = run("x = 1\ndef f(:\n")
    assert failed["line"] == 2
    assert "SyntaxError" in failed["error"]


@pytest.mark.parametrize("error", ["SystemExit()", "KeyboardInterrupt()"])
def test_a_cell_that_gives_up_does_not_end_python(error: str) -> None:
    assert error[:-2] in run(f"raise {error}")["error"]


def test_what_is_printed_without_end_is_cut() -> None:
    printed = run(f"for _ in range(10):\n    print('x' * {runner.MOST // 4})")["printed"]
    assert len(printed) == runner.MOST


@IN_TIME
@pytest.mark.parametrize(
    "source", ["while True: pass", "def f():\n    try:\n        while True: 1\n    except Exception: f()\nf()"]
)
def test_a_cell_without_end_is_stopped_and_the_next_is_well(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(runner, "SECONDS", 0.2)
    assert "TimeUp: stopped after 0.2 seconds" in run(source)["error"]
    assert run("1 + 1")["text"] == "2"


def test_a_playground_is_worked_by_questions() -> None:
    shown = run("from kvpaged.figures.playground import PoolPlayground\nPoolPlayground(2)", "cell 7")["playground"]
    assert [control["label"] for control in shown["controls"]] == ["allocate", "page", "share", "release"]
    pressed = json.loads(runner.answer(json.dumps({"do": "press", "cell": "cell 7", "label": "allocate"})))[
        "playground"
    ]
    assert pressed["sentence"] == "allocate() returned page 0."
    assert pressed["picture"] != shown["picture"]
    filled = json.loads(runner.answer(json.dumps({"do": "fill", "cell": "cell 7", "label": "page", "value": 1})))[
        "playground"
    ]
    assert filled["controls"][1]["value"] == 1


def test_a_playground_of_a_python_that_was_ended_does_not_answer() -> None:
    assert runner.answer(json.dumps({"do": "press", "cell": "cell 99", "label": "allocate"})) == "{}"


def test_what_is_not_in_the_page_is_told_so() -> None:
    assert run("import numpyy")["error"].endswith("\nnumpyy is not in the page: run this chapter in Jupyter.")


def test_what_needs_torch_says_so_in_the_page() -> None:
    torch = inside("torch")
    assert torch.no_grad()(run) is run
    with pytest.raises(
        RuntimeError, match="torch is not in the page, and this needs torch.zeros: run this chapter in Jupyter"
    ):
        torch.zeros(3)
    assert not hasattr(torch, "__path__")


def test_the_page_is_sent_sources_and_no_weights_in_the_same_bytes_each_time() -> None:
    archive = live.sources()
    assert archive == live.sources()
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert {"runner.py", "torch.py", "kvpaged/mini.py", "kvpaged/exercises/__init__.py"} <= set(names)
    assert not [name for name in names if "weights" in name or "__pycache__" in name]


@pytest.mark.skipif(not live.pyodide_is_here(), reason="needs Node and `npm ci --prefix tools`")
def test_python_is_packed_in_the_same_bytes_each_time(tmp_path: Path) -> None:
    sources = tmp_path / "sources.zip"
    sources.write_bytes(live.sources())
    made = []
    for target in (tmp_path / "a.js", tmp_path / "b.js"):
        subprocess.run(["node", live.HERE / "pack.mjs", live.PYODIDE, sources, target], check=True)
        made.append(hashlib.sha256(target.read_bytes()).hexdigest())
    assert made[0] == made[1]
    assert live.size_on_the_way(target) < 7e6, "what a first use fetches"


class Page:
    """A Sphinx that notes which files a page is given."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.config = SimpleNamespace(root_doc="chapters/index")

    def add_js_file(self, name: str, **options: str) -> None:
        self.files.append(name)

    add_css_file = add_js_file


def body_of(monkeypatch: pytest.MonkeyPatch, bundle: Path | None, body: str) -> tuple[str, list[str]]:
    monkeypatch.setattr(live, "packed", lambda app: bundle)
    app, context = Page(), {"body": body}
    live.add_cells(app, "chapters/04", "page.html", context, None)
    return context["body"], app.files


def test_a_page_with_live_cells_says_once_what_they_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "kvpaged-python-0.js"
    bundle.write_bytes(bytes(range(256)) * 400)
    body, files = body_of(monkeypatch, bundle, f"<p>before</p>{CELL}<p>between</p>{CELL}")
    assert body.count("live-note") == 1
    assert body.index("live-note") < body.index("tag_live")
    assert "0.0 MB" in body
    assert "live/python.js" in files


def test_without_pyodide_a_page_says_what_would_be_there_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    body, files = body_of(monkeypatch, None, CELL)
    assert "<code>npm ci --prefix tools</code>" in body
    assert body.endswith(CELL)
    assert files == []


def test_a_page_without_live_cells_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    page = '<div class="cell docutils container">a cell that speaks of tag_live</div>'
    assert body_of(monkeypatch, None, page) == (page, [])
