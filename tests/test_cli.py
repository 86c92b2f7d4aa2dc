"""The command line: what it prints, what it refuses, and that it teaches."""

import io
import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from kvpaged import PagedKVCache
from kvpaged.cli import main
from kvpaged.cli.generate import _view
from kvpaged.cli.pool_map import pool_map
from kvpaged.engine import Engine, Request
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
        (["generate", PROMPT, "--max-tokens", "0"], "'--max-tokens': 0; it must be at least 1"),
        (["generate", PROMPT, "--top-p", "1.5"], "top_p is 1.5"),
        (["generate", PROMPT, "--n", "2"], "n is 2, but temperature 0"),
        (["generate", PROMPT, "--beam-width", "9"], "beam_width is 9; it must be at most 8"),
        (["generate", PROMPT, "--num-pages", "-3"], "'--num-pages': -3; it must be at least 1"),
        (["generate", PROMPT, "--num-pages", "2"], "and the pool has 2: open a larger pool"),
        (["generate", "Ada " * 3000], "leaves no room to generate in a context of 2048"),
        (["generate", PROMPT, "--max-tokens", "many"], "Invalid value for '--max-tokens'"),
        (["generate", PROMPT, "--model", "/no/such"], "no folder /no/such"),
        (["generate", "--file", "/no/such.txt"], "/no/such.txt: No such file or directory"),
        (["generate", "--nonsense"], "No such option: --nonsense"),
        (
            ["generate", PROMPT, "--num-pages", "99999999999"],
            "GB of keys and as much of values: lower --num-pages or --page-size",
        ),
        (
            ["generate", PROMPT, "--page-size", "10000000"],
            "GB of keys and as much of values: lower --num-pages or --page-size",
        ),
        (["generate", PROMPT, "--temperature", "nan"], "'--temperature': nan; it must be at least 0"),
        (
            ["generate", PROMPT, "--beam-width", "4", "--stop", "."],
            "--stop is of no use to a search with --beam-width 4",
        ),
        (
            ["compare", "--page-size", "1000000000"],
            "GB of keys and as much of values: lower --num-pages or --page-size",
        ),
        (
            ["generate", PROMPT, "--beam-width", "4", "--speculate", "2"],
            "--speculate is of no use to a search with --beam-width 4",
        ),
        (
            ["serve-sim", "--num-pages", "1" + 30 * "0"],
            "GB of keys and as much of values: lower --num-pages or --page-size",
        ),
        (["compare", "--branches", "100000"], "--branches is 100000; each begins with another token"),
        (["serve-sim", "--requests", "1000000000000"], "it must be at least 1 and at most 1,000,000"),
        (["compare", "--branches", "0"], "'--branches': 0; it must be at least 1"),
        (["compare", "--page-size", "0"], "'--page-size': 0; it must be at least 1"),
        (["compare", "--prompt", ""], "the prompt is empty"),
        (["compare", "--max-tokens", "3000"], "exceed the context of 2048"),
        (["serve-sim", "--requests", "0"], "'--requests': 0; it must be at least 1"),
        (["serve-sim", "--rate", "-1"], "rate is -1.0"),
        (["serve-sim", "--max-batched-tokens", "-1"], "'--max-batched-tokens': -1; it must be at least 1"),
        (["workload", "nonsense"], "Invalid value for"),
        (["workload", "chats", "--requests", "0"], "'--requests': 0; it must be at least 1"),
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
    assert (code, err) == (2, f"error: {file}: byte 0xff at offset 7 is not UTF-8: save the file as UTF-8\n")


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


@pytest.mark.parametrize("module", ["typer", "numpy.exceptions", "numba"])
def test_an_interrupt_while_something_is_loaded_ends_a_command_as_quietly(module: str) -> None:
    script = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from kvpaged.__main__ import main; main()"
    )
    found = subprocess.run([sys.executable, "-c", script, "generate", PROMPT], check=False, capture_output=True)
    assert (found.stdout, found.stderr) == (b"", b"")
    assert found.returncode in (130, -2)  # Python dies of the signal if it came while a string was executed


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


def test_an_interrupt_of_serve_sim_leaves_the_report_of_what_was_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Engine.step

    def interrupted(engine: Engine) -> list[Request]:
        if engine.metrics().requests_finished >= 2:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    code, out, err = run(capsys, "serve-sim", "--requests", "50", "--rate", "20", "--max-tokens", "2", "--json")
    assert code == 130
    assert 2 <= json.loads(out)["requests"] < 50
    assert err == f"note: interrupted: {json.loads(out)['requests']} of 50 requests were served\n"


def test_an_interrupt_of_serve_sim_before_anything_was_served_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Engine) -> list[Request]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "step", interrupted)
    told = "note: interrupted: 0 of 5 requests were served\n"
    assert run(capsys, "serve-sim", "--requests", "5") == (130, "", told)


def test_words_that_the_model_does_not_know_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = "note: the model does not know 'zebra', 'zoo'; it reads <unk> instead\n"
    story = "Ada hid the zebra in the attic. Bo hid the coin in the zoo. Where is the coin?"
    code, _, err = run(capsys, "generate", story, "--max-tokens", "2")
    assert (code, err) == (0, told)
    assert run(capsys, "compare", "--prompt", story, "--max-tokens", "1", "--json")[2] == told
    assert run(capsys, "generate", PROMPT, "--max-tokens", "2")[2] == ""


def test_a_text_that_fills_the_context_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "generate", "Ada " * 2040 + "hid", "--max-tokens", "100")
    assert (code, err) == (0, "note: the model's context of 2048 tokens was full before --max-tokens\n")


def test_prompts_can_be_piped_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PROMPT}\n".encode())))
    code, out, _ = run(capsys, "generate", "--file", "-", "--max-tokens", "4")
    assert (code, out) == (0, f"{PROMPT}{ANSWER}\n")


@pytest.mark.parametrize("command", ["generate", "compare", "serve-sim"])
def test_a_person_is_told_at_once_what_they_wait_for(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_: object) -> None:
        raise ValueError("the model is asked for")

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("kvpaged.model.loading.load_model", not_yet)
    _, _, err = run(capsys, command, *([PROMPT] if command == "generate" else []))
    assert err == "loading PyTorch and the model ...\nerror: the model is asked for\n"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert "Begin with 'compare'" in " ".join(out.split())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"kvpaged {version('kvpaged')}\n", "")


def test_a_shell_completes_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_KVPAGED_COMPLETE", "complete_zsh"), ("_TYPER_COMPLETE_ARGS", "kvpaged ser")):
        monkeypatch.setenv(name, value)
    assert "serve-sim" in run(capsys)[1]


@pytest.mark.parametrize("missing", ["typer", "torch"])
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from kvpaged.__main__ import main; main()"
    found = subprocess.run([sys.executable, "-c", script, "compare"], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"error: {missing} is not installed: pip install 'kvpaged[cli]'\n"


@pytest.mark.parametrize("room", ["engine", "model"])
def test_a_room_that_needs_torch_says_what_to_install(room: str) -> None:
    script = f"import sys; sys.modules['torch'] = None; import kvpaged.{room}"
    found = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    told = "torch is not installed, and the model and the engine need it: pip install 'kvpaged[torch]'"
    assert found.stderr.splitlines()[-1] == f"ModuleNotFoundError: {told}"


def test_the_map_stays_in_sight_however_long_the_texts_are() -> None:
    console = Console(width=60, height=24, file=io.StringIO())
    cache = PagedKVCache(num_pages=2000, page_size=16)
    texts = [Text("once upon a time " * 200 + f"the end of {number}") for number in range(3)]
    lines = console.render_lines(_view(console, cache, texts))
    shown = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert len(lines) < 24
    assert [line for line in shown if line.startswith("·" * 60)]
    assert shown[-1].startswith("· free")
    assert all(any(f"the end of {number}" in line for line in shown) for number in range(3))


def test_compare_fits_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run(capsys, "compare", "--prompt", PROMPT, "--max-tokens", "4")
    table = [line for line in out.splitlines() if line.startswith("│")]
    assert len(table) == 4
    assert not any("…" in line for line in table)
    assert [re.search(r"[\d,.]+ [Mk]B", line) is not None for line in table] == [True] * 4
    assert re.search(r"Pages hold [\d.]+ times less memory than a reservation", out)


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
    cache = PagedKVCache(num_pages=18, page_size=2)
    gone = cache.sequence([1, 2, 3, 4])
    gone.mark_computed()
    gone.release()
    alone = cache.sequence([5, 6, 7])
    alone.mark_computed()
    shared = cache.sequence([8, 9, 8, 9])
    children = [shared.fork() for _ in range(2)]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(pool_map(cache, width=16, max_rows=1))
    rows = capture.get().splitlines()
    assert rows[0] == "░░██33··········"
    assert rows[1] == "and 2 more pages"
    assert rows[2].startswith("· free")
    assert len(children) == 2
