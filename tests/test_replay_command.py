"""A run that is written down can be seen by anybody: `--events`, then `replay`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvpaged import EventLog, PagedKVCache, Replay
from kvpaged.cli import main
from kvpaged.engine import Engine


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Four sequences of a small cache, written down."""
    cache = PagedKVCache(num_pages=12, page_size=4, events=EventLog())
    first = cache.sequence(range(10))
    first.mark_computed()
    first.fork().append(3)
    cache.sequence([0, 1, 2, 3, 4])
    first.release()
    cache.events.save(tmp_path / "story.log")
    return tmp_path / "story.log"


def test_a_log_becomes_a_page_that_needs_nothing_else(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    code, out, err = run(capsys, "replay", str(log))
    page = log.with_name("story.log.html")
    html = page.read_text(encoding="utf-8")
    assert (code, err) == (0, "")
    assert out == f"{len(EventLog.load(log))} events written to {page}: open it in a browser, or say --open\n"
    assert html.startswith("<!DOCTYPE html>")
    assert "What happened in story.log" in html
    assert "in a pool of 12 pages of 4 slots" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert html.count('<script type="application/json">') == 1


def test_the_page_goes_where_it_is_wanted_and_is_opened_if_asked(
    capsys: pytest.CaptureFixture[str], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = log.with_name("page.html")
    assert run(capsys, "replay", str(log), "--output", str(page), "--open")[0] == 0
    assert opened == [page.as_uri()]
    assert page.is_file()


@pytest.mark.parametrize("command", ["generate", "serve-sim"])
def test_a_run_is_written_down_with_the_words_of_its_tokens(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    arguments = {
        "generate": ["Ada hid the coin in the attic. Bo looks for the coin", "--num-pages", "20", "--max-tokens", "4"],
        "serve-sim": ["--requests", "4", "--rate", "1000", "--num-pages", "40", "--max-tokens", "3"],
    }[command]
    assert run(capsys, command, *arguments, "--events", str(log))[0] == 0
    events = EventLog.load(log)
    assert events.about["page_size"] == 16
    assert Replay(16).apply_all(events).num_used > 0
    assert {str(token) for event in events for token in event.tokens} == set(events.about["words"])
    assert run(capsys, "replay", str(log))[0] == 0
    html = log.with_name("run.log.html").read_text(encoding="utf-8")
    played = json.loads(html.partition('<script type="application/json">')[2].partition("</script>")[0])
    assert "hid" in {word.strip("·␣ ") for word in played["words"]}


def test_a_run_that_is_interrupted_is_written_down_as_far_as_it_went(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pass = Engine.run_pass

    def interrupted(engine: Engine) -> None:
        if engine.metrics().generated_tokens == 3:
            raise KeyboardInterrupt
        run_pass(engine)

    monkeypatch.setattr(Engine, "run_pass", interrupted)
    log = tmp_path / "run.log"
    assert run(capsys, "generate", "Ada hid the coin", "--events", str(log))[0] == 130
    assert [event.kind for event in EventLog.load(log)].count("step") == 3


def test_replaying_needs_no_torch(log: Path) -> None:
    script = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; from kvpaged.cli import main; main()"
    subprocess.run([sys.executable, "-c", script, "replay", str(log)], check=True)


def test_what_cannot_be_replayed_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    def refusal(*arguments: str) -> str:
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err.removeprefix("error: ").rstrip("\n")

    assert refusal("replay", str(log.with_name("none.log"))).endswith("none.log: No such file or directory")
    assert refusal("replay", __file__) == f"{__file__} is no event log: give a file that EventLog.save wrote"
    assert "No such file or directory" in refusal("replay", str(log), "--output", "/no/such/page.html")
    log.write_bytes(log.read_bytes().replace(b"allocate", b"relocate"))
    assert refusal("replay", str(log)).startswith(f"{log} is damaged")
    EventLog().save(log)
    assert "does not say how large its pages and its pool were" in refusal("replay", str(log))
    PagedKVCache(4, 4, events=(empty := EventLog()))
    empty.save(log)
    assert refusal("replay", str(log)).startswith("the log is empty")
    assert "No such file or directory" in refusal("generate", "Ada", "--events", "/no/such/run.log")
