"""The command line: what it prints, what it refuses, and that it teaches."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from kvpaged import PagedKVCache
from kvpaged.cli import main
from kvpaged.cli.page_map import page_map
from kvpaged.lab.workload import stories
from kvpaged.model import load_model
from kvpaged.recall.text import ask, make_story

STORY = make_story(3, seed=1)
PROMPT = STORY.text + ask(STORY.facts[1]).prompt
ANSWER = ask(STORY.facts[1]).answer


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err


def test_generate_prints_each_prompt_with_its_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "generate", PROMPT, STORY.text, "--max-tokens", "4")
    assert code == 0
    assert out.splitlines()[0] == PROMPT + ANSWER
    assert out.splitlines()[1].startswith(STORY.text)


def test_generate_reads_prompts_from_a_file_and_prints_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"{PROMPT}\n\n{STORY.text}\n", encoding="utf-8")
    arguments = ["--file", str(file), "--json", "--n", "2", "--temperature", "1.5", "--seed", "3", "--max-tokens", "5"]
    code, out, _ = run(capsys, "generate", *arguments)
    found = json.loads(out)
    assert code == 0
    assert [output["prompt"] for output in found] == [PROMPT, STORY.text]
    assert [len(output["outputs"]) for output in found] == [2, 2]
    assert run(capsys, "generate", *arguments)[1].count('"tokens"') == 4


def test_generate_searches_with_beams(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "generate", PROMPT, "--beam-width", "3", "--max-tokens", "4")
    assert code == 0
    assert out.splitlines()[0] == PROMPT + ANSWER
    assert len(out.splitlines()) == 3


def test_compare_finds_the_same_tokens_in_less_memory(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "--max-tokens", "6", "--json")
    found = json.loads(out)
    ways = {way["name"]: way for way in found["ways"]}
    assert code == 0
    assert found["same_tokens"]
    assert ways["none"]["tokens_computed"] > 4 * ways["paged"]["tokens_computed"]
    assert ways["growing"]["tokens_computed"] == ways["reserved"]["tokens_computed"] == ways["paged"]["tokens_computed"]
    assert 0 < ways["paged"]["bytes_held"] < ways["growing"]["bytes_held"] < ways["reserved"]["bytes_held"]
    assert 0 < ways["paged"]["bytes_copied"] < ways["reserved"]["bytes_copied"] < ways["growing"]["bytes_copied"]


def test_compare_shows_a_table_and_the_continuations(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "--prompt", PROMPT, "--max-tokens", "4", "--branches", "2")
    assert code == 0
    assert "All four gave the same tokens." in out
    assert ANSWER in out


def test_serve_sim_reports_every_request_with_the_right_answer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["serve-sim", "--requests", "12", "--rate", "500", "--num-pages", "24", "--max-tokens", "6"]
    code, out, _ = run(capsys, *arguments, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["requests"] == report["engine"]["requests_finished"] == 12
    assert report["right_answers"] >= 11
    assert report["engine"]["peak_pages"] <= 24
    assert 0 <= report["queue_time"]["p50"] <= report["time_to_first_token"]["p50"] <= report["total_time"]["p95"]
    code, out, _ = run(capsys, *arguments, "--no-prefix-caching", "--speculate", "3")
    assert code == 0
    assert "tokens found there after a preemption" in out


def test_workload_writes_lines_to_the_terminal_or_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "workload", "prefix", "--requests", "7", "--seed", "3")
    assert code == 0
    assert [set(json.loads(line)) >= {"prompt", "output_tokens"} for line in out.splitlines()] == [True] * 7
    file = tmp_path / "requests.jsonl"
    assert run(capsys, "workload", "prefix", "--requests", "7", "--seed", "3", "--output", str(file))[0] == 0
    assert file.read_text(encoding="utf-8") == out


def test_workload_stories_are_what_serve_sim_serves(capsys: pytest.CaptureFixture[str]) -> None:
    served = stories(5, 20.0, seed=0, num_stories=16, output_tokens=32)  # the defaults of serve-sim
    _, out, _ = run(capsys, "workload", "stories", "--requests", "5", "--rate", "20")
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == [arrival.prompt for arrival in served]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "no prompt: give one in quotes, or a --file"),
        (["generate", PROMPT, "--max-tokens", "0"], "max_tokens is 0; it must be at least 1"),
        (["generate", PROMPT, "--top-p", "1.5"], "top_p is 1.5"),
        (["generate", PROMPT, "--n", "2"], "n is 2, but temperature 0"),
        (["generate", PROMPT, "--beam-width", "9"], "beam_width is 9; it must be at most 8"),
        (["generate", PROMPT, "--num-pages", "-3"], "num_pages is -3"),
        (["generate", PROMPT, "--num-pages", "2"], "and the pool has 2: open a larger pool"),
        (["generate", "Ada " * 3000], "leaves no room to generate in a context of 2048"),
        (["generate", PROMPT, "--max-tokens", "many"], "Invalid value for '--max-tokens'"),
        (["generate", PROMPT, "--model", "/no/such"], "no folder /no/such"),
        (["generate", "--file", "/no/such.txt"], "/no/such.txt: No such file or directory"),
        (["generate", "--nonsense"], "No such option: --nonsense"),
        (["compare", "--branches", "0"], "--branches is 0; it must be at least 1"),
        (["compare", "--page-size", "0"], "--page-size is 0; it must be at least 1"),
        (["compare", "--prompt", ""], "the prompt is empty"),
        (["compare", "--max-tokens", "3000"], "exceed the context of 2048"),
        (["serve-sim", "--requests", "0"], "--requests is 0; it must be above 0"),
        (["serve-sim", "--rate", "-1"], "--rate is -1.0"),
        (["serve-sim", "--max-batched-tokens", "-1"], "max_batched_tokens is -1"),
        (["workload", "nonsense"], "Invalid value for"),
        (["workload", "chats", "--requests", "0"], "requests is 0; it must be at least 1"),
        (["workload", "chats", "--rate", "0"], "rate is 0.0"),
        (["workload", "chats", "--output", "/no/such/file"], "/no/such/file: No such file or directory"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"Ada hid\xff\n")
    code, _, err = run(capsys, "generate", "--file", str(file))
    assert (code, err) == (2, "error: byte 0xff at offset 7 is not UTF-8: save the file as UTF-8\n")


@pytest.mark.parametrize("command", ["compare", "generate", "serve-sim"])
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "page" in out
    assert "Slots in a page" in out


def test_in_a_terminal_generate_shows_the_pages_while_it_runs_and_leaves_the_texts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")  # no colours, no moving cursor: the text alone
    code, out, _ = run(capsys, "generate", PROMPT, PROMPT, "--max-tokens", "4", "--num-pages", "32")
    out = out.replace(" \n", " ").replace("\n", " ")  # a narrow terminal breaks lines
    assert code == 0
    assert out.count(PROMPT + ANSWER) == 2
    assert "8 tokens in 5 steps" in out
    assert "of 32 pages at the peak, 0 preemptions." in out


def test_in_a_terminal_serve_sim_shows_the_queue_and_the_pool(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[object] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(Live, "update", lambda live, view: views.append(view))
    arguments = ["--requests", "3", "--rate", "4", "--num-pages", "40", "--max-tokens", "3", "--stories", "1"]
    code, out, _ = run(capsys, "serve-sim", *arguments)
    assert code == 0
    assert "Served" in out
    console = Console(width=200)
    with console.capture() as capture:
        console.print(views[-1])
    shown = capture.get()
    assert "waiting" in shown
    assert "of 3 finished" in shown
    assert "queue" in shown
    assert "░ cached only" in shown


def test_an_interrupt_ends_a_command_with_the_shells_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kvpaged.engine.Engine.generate", interrupted)
    assert run(capsys, "generate", PROMPT) == (130, "", "")


def test_compare_fails_and_says_so_when_one_way_gives_other_tokens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvpaged.model.compute.continue_paged", lambda *_: [0])
    code, out, _ = run(capsys, "compare", "--prompt", PROMPT, "--max-tokens", "2", "--branches", "1")
    assert code == 1
    assert "The tokens differ." in out


def test_compare_needs_a_tokenizer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("recall")
    model.checkpoint = None
    monkeypatch.setattr("kvpaged.model.loading.load_model", lambda _: model)
    code, _, err = run(capsys, "compare", "--prompt", PROMPT)
    assert (code, err) == (2, "error: the model has no tokenizer\n")


def test_the_package_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kvpaged", "--help"])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module("kvpaged", run_name="__main__")
    assert exit_info.value.code == 0
    assert "Paged KV caching, to try out" in capsys.readouterr().out


def test_help_comes_without_loading_torch() -> None:
    script = "import sys, kvpaged.cli; assert not {'torch', 'numpy', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_page_map_tells_free_cached_owned_and_shared_pages_apart() -> None:
    cache = PagedKVCache(num_pages=10, page_size=2)
    gone = cache.sequence([1, 2, 3, 4])
    gone.mark_computed()
    gone.release()
    alone = cache.sequence([5, 6, 7])
    alone.mark_computed()
    shared = cache.sequence([8, 9, 8, 9])
    children = [shared.fork() for _ in range(2)]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(page_map(cache, width=8, max_rows=1))
    rows = capture.get().splitlines()
    assert rows[0] == "░░██33··"
    assert rows[1] == "and 2 more pages"
    assert rows[2].startswith("· free")
    assert len(children) == 2
