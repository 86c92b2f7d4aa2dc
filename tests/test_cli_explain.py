"""`python -m kvpaged explain`: from a file or a pipe, as text, as JSON and as a page."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from test_cli import run

TRACE = "".join(
    json.dumps({"id": f"chat-{day}", "tokens": [7, 7, day, *range(1000, 1064), 2000 + day]}) + "\n" for day in range(30)
)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A trace in which all prompts but the first differ from another in a date, near their beginning."""
    file = tmp_path / "dates.jsonl"
    file.write_text(TRACE, encoding="utf-8")
    return str(file)


def test_explain_accounts_for_each_token(capsys: pytest.CaptureFixture[str], trace: str) -> None:
    code, out, err = run(capsys, "explain", trace)
    words = " ".join(out.split())
    assert (code, err) == (0, "")
    assert "dates.jsonl: 30 requests of 2,040 prompt tokens, in pages of 16 tokens." in words
    assert re.search(r"behind another beginning\W+1,856 ", out)
    assert "29 requests part from others, after 2 tokens: line 2 (chat-1) parts from line 1 (chat-0) there" in words
    assert "is an upper bound" in words


def test_explain_reads_from_a_pipe_and_prints_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(TRACE.encode())))
    code, out, _ = run(capsys, "explain", "-", "--json", "--num-pages", "4")
    found = json.loads(out)
    assert code == 0
    assert (found["trace"], found["requests"], found["num_pages"]) == ("standard input", 30, 4)
    assert found["tokens"]["elsewhere"] == 29 * 64
    assert found["verdicts"][7]["relative"] == "line 7 (chat-6)"
    assert set(found["kept"]) == {"LRU", "LFU", "FIFO", "oracle"}


def test_explain_writes_a_page_that_loads_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trace: str
) -> None:
    page = tmp_path / "page.html"
    code, _, _ = run(capsys, "explain", trace, "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert code == 0
    assert html.startswith("<!DOCTYPE html>")
    assert html.count("<svg") == 2
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:(?!//www\.w3\.org)", html)
    assert "prefers-color-scheme:dark" in html
    assert "line 2 (chat-1)" in html


def test_the_smallest_trace_has_a_page_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, page = tmp_path / "[one].jsonl", tmp_path / "page.html"
    file.write_text("[1, 2, 3]\n", encoding="utf-8")
    code, out, _ = run(capsys, "explain", str(file), "--html", str(page))
    assert code == 0
    assert "[one].jsonl: 1 request of 3 prompt tokens" in out
    assert page.is_file()


def test_explain_shows_its_progress_where_somebody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _, _, err = run(capsys, "explain", trace)
    assert "reading" in err
    assert "evicting" in err


def test_explain_names_a_malformed_line_and_reads_the_rest_on_request(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "torn.jsonl"
    file.write_text('[1, 2, 3]\n{"tokens": [1, 2\n[1, 2, 4]\n', encoding="utf-8")
    code, out, err = run(capsys, "explain", str(file))
    assert (code, out) == (2, "")
    assert err.startswith("error: torn.jsonl, line 2: it is no JSON")
    code, out, err = run(capsys, "explain", str(file), "--skip-malformed")
    assert code == 0
    assert "2 requests of 6 prompt tokens" in out
    assert err.startswith("left out: torn.jsonl, line 2: it is no JSON")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such.jsonl"], "no/such.jsonl: No such file or directory"),
        (["{trace}", "--page-size", "0"], "page_size is 0; it must be at least 1"),
        (["{trace}", "--num-pages", "0"], "num_pages is 0; it must be at least 1"),
        (["{trace}", "--tokenizer", "/no/such"], "give a tokenizer.json, or a folder that has one"),
        (["/dev/null"], "null has no request: there is nothing to explain"),
    ],
)
def test_bad_input_gets_one_clear_line(
    capsys: pytest.CaptureFixture[str], trace: str, arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, "explain", *(each.format(trace=trace) for each in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
