"""The book's exercises in a shell: a question and what is typed, or a file that is judged."""

import importlib
import io
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from kvpaged.cli import main
from kvpaged.exercises import find

command = importlib.import_module("kvpaged.cli.exercise")  # the function of that name hides the room


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        main(["exercise", *arguments])
    shown = capsys.readouterr()
    code = exit_info.value.code
    return code if isinstance(code, int) else 0, shown.out, shown.err


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def test_without_a_number_it_lists_the_exercises_and_what_is_solved(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert out.startswith("0 of ")
    assert "  4.2  build    give back many pages, or none" in out


def test_a_function_in_a_file_is_judged(capsys: pytest.CaptureFixture[str], written: Path) -> None:
    written.write_text(
        "from kvpaged.mini import release\n\n\ndef release_many(pool, pages):\n    release(pool, pages[0])\n"
    )
    code, out, _ = run(capsys, "4.2", str(written))
    assert code == 1
    assert "✗ 4.2: not yet" in out
    assert "at line 5: `release(pool, pages[0])`" in out


def test_a_question_is_asked_and_what_is_typed_is_judged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvpaged.exercises.asking._asked", Counter())
    right = find("4.1").instance(Random("4.1/1"))  # type: ignore[union-attr]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{right.answer}\n"))
    code, out, _ = run(capsys, "4.1", "--hints", "1")
    assert code == 0
    assert out.startswith("Hint 1 of 2")
    assert right.words in out
    assert "✓ 4.1" in out


def test_words_that_are_no_value_are_an_answer_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("who knows\n"))
    code, out, _ = run(capsys, "4.1")
    assert code == 1
    assert "'who knows' is not what happens" in out


def test_without_a_file_it_says_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "4.2")
    assert code == 0
    assert "Write release_many in a file" in out


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def other(): ...\n", "has no release_many"),
        ("1 / 0\n", "does not run: ZeroDivisionError"),
        ("def release_many(:\n", "does not run: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_judged_gets_one_line(
    capsys: pytest.CaptureFixture[str], written: Path, source: str, said: str
) -> None:
    written.write_text(source)
    code, out, error = run(capsys, "4.2", str(written))
    assert code == 2
    assert out == ""
    assert said in error
    assert error.count("\n") == 1


def test_a_question_takes_no_file_and_an_unknown_number_is_refused(
    capsys: pytest.CaptureFixture[str], written: Path
) -> None:
    written.write_text("")
    assert "asks for a value" in run(capsys, "4.1", str(written))[2]
    assert "no exercise '9.99' to check" in run(capsys, "9.99")[2]


@pytest.mark.parametrize(
    ("typed", "read"),
    [("1 0 2 0", (1, 0, 2, 0)), ("1, 0, 2, 0", (1, 0, 2, 0)), ("(1, 0)", (1, 0)), ("7", 7), ("the attic", "the attic")],
)
def test_several_numbers_may_be_typed_with_blanks_or_commas(
    typed: str, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed + "\n"))
    assert command._typed("4.1") == read


def test_no_answer_is_no_wrong_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "✗ 4.1: not yet: say what you expect" in run(capsys, "4.1")[1]


def test_no_more_hints_are_printed_than_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "4.2", "--hints", "99")[1].count("Hint ") == len(find("4.2").hints)


def test_a_number_without_quotes_is_told_to_have_some() -> None:
    with pytest.raises(TypeError, match="4.1 is no exercise's number: write it in quotes"):
        find(4.1)  # type: ignore[arg-type]
