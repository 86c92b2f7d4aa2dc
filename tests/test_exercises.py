"""The book's exercises, judged both ways: what is right passes; what is blank or wrong fails, and hears why."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kvpaged.exercises import ask, check, exercises, find, hint, progress
from kvpaged.exercises.exercise import Build, Predict
from notebook_form import read

CHAPTERS = Path(__file__).parents[1] / "chapters"
CHECKED = re.compile(r'check\("([\dM]+\.\d+)"')
BUILDS = [each for each in exercises() if isinstance(each, Build)]
PREDICTIONS = [each for each in exercises() if isinstance(each, Predict)]


def cells(*tags: str) -> dict[str, str]:
    """The cells of the book with these tags, by the number of the exercise that they check."""
    found: dict[str, str] = {}
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        for cell in read(path).cells:
            if {*tags} <= {*cell.metadata.get("tags", [])}:
                number = CHECKED.search(cell.source)
                assert number, f"nothing is checked in this cell of {path.name}:\n{cell.source}"
                assert number[1] not in found, f"{number[1]} has two cells tagged {tags}"
                found[number[1]] = cell.source
    return found


STUBS, SOLUTIONS = cells("exercise"), cells("solution")


def explained() -> dict[str, str]:
    """What stands folded away behind the stub of each exercise that has no solution in code."""
    found = {}
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        for cell, following in pairwise(read(path).cells):
            if "exercise" in cell.metadata.get("tags", []) and following.cell_type == "markdown":
                found[CHECKED.search(cell.source)[1]] = following.source.partition("</details>")[0]  # type: ignore[index]
    return found


EXPLAINED = explained()


def run(source: str) -> Any:
    """The value of a cell's last line, as a notebook shows it."""
    tree, names = ast.parse(source), dict[str, Any](__name__="reader")
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def wrong_answers(exercise: Build) -> list[tuple[Callable[..., Any], str]]:
    """Planted wrong answers, and words that the verdict must say."""
    chapter = exercise.number.partition(".")[0]
    shelf = "museum" if chapter == "M" else f"chapter_{int(chapter):02d}"
    return import_module(f"support.wrong_answers.{shelf}").WRONG[exercise.number]  # type: ignore[no-any-return]


WRONG = [
    pytest.param(each, wrong, words, id=f"{each.number}-{wrong.__name__}")
    for each in BUILDS
    for wrong, words in wrong_answers(each)
]


def numbered(each: Build | Predict) -> str:
    return each.number


def test_each_exercise_has_a_stub_in_the_book_and_each_build_a_solution() -> None:
    assert STUBS.keys() == {each.number for each in exercises()}
    assert SOLUTIONS.keys() == {each.number for each in BUILDS}


def test_there_are_enough_of_each_kind_and_no_number_comes_twice() -> None:
    numbers = [each.number for each in exercises()]
    assert len(numbers) == len({*numbers})
    assert {each.kind for each in exercises()} >= {"predict", "build"}


@pytest.mark.parametrize("exercise", BUILDS, ids=numbered)
def test_the_solution_in_the_book_passes(exercise: Build) -> None:
    assert run(SOLUTIONS[exercise.number]).passed


WITHOUT_TORCH = """
import json, sys, types
sys.modules["numpy"] = None
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.no_grad = lambda: lambda function: function  # what the small engine asks for when it is imported
for cell in json.load(sys.stdin):
    names = {"__name__": "reader"}
    before, _, last = cell.rpartition("\\n")
    exec(before, names)
    assert eval(last, names).passed == ("keep_it=False" in last), cell
"""


def test_a_cell_that_is_live_needs_neither_numpy_nor_torch() -> None:
    live = cells("exercise", "live")
    sources = [*live.values(), *(SOLUTIONS[number] for number in live if number in SOLUTIONS)]
    asked = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], input=json.dumps(sources), text=True, check=False)
    assert asked.returncode == 0


@pytest.mark.parametrize("exercise", exercises(), ids=numbered)
def test_the_stub_in_the_book_fails_and_hears_a_hint(exercise: Build | Predict) -> None:
    verdict = run(STUBS[exercise.number])
    assert not verdict.passed
    assert "not yet" in str(verdict)
    assert f"Hint: {exercise.hints[0]}" in str(verdict)


@pytest.mark.parametrize(("exercise", "wrong", "words"), WRONG)
def test_a_wrong_answer_fails_and_hears_what_is_wrong(exercise: Build, wrong: Callable[..., Any], words: str) -> None:
    verdict = check(exercise.number, wrong)
    assert not verdict.passed
    assert words in str(verdict)
    assert words in verdict._repr_html_().replace("&#x27;", "'") or "&" in words


@pytest.mark.parametrize("exercise", BUILDS, ids=numbered)
def test_three_wrong_answers_are_planted(exercise: Build) -> None:
    assert len(wrong_answers(exercise)) >= 3


@pytest.mark.parametrize("exercise", BUILDS, ids=numbered)
def test_it_is_the_readers_function_that_is_judged(exercise: Build) -> None:
    calls = 0

    def spy(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return exercise.reference(*arguments, **named)

    assert check(exercise.number, spy).passed
    assert calls >= exercise.sizes * exercise.cases_per_size
    assert not check(exercise.number, exercise.reference).passed, "the book's own function is no answer"


@pytest.mark.parametrize("exercise", PREDICTIONS, ids=numbered)
def test_the_right_value_passes_and_another_does_not_however_often_one_asks(
    exercise: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvpaged.exercises.asking._asked", Counter())
    chance = Random(1)
    for _ in range(50):
        question = exercise.instance(chance)
        assert question.words
        assert question.answer is not None
    asked = set()
    for time in range(1, 11):
        question = exercise.instance(Random(f"{exercise.number}/{time}"))
        asked.add(str(ask(exercise.number)))
        assert question.words in asked
        assert check(exercise.number, question.answer).passed
        for wrong in others(question.answer):
            assert not check(exercise.number, wrong).passed
    assert len(asked) > 3, "it asks the same again"


@pytest.mark.parametrize("exercise", PREDICTIONS, ids=numbered)
def test_the_answer_to_the_first_question_is_the_one_that_the_book_explains(exercise: Predict) -> None:
    words = re.findall(r"[-−]?[\w,]*\w", EXPLAINED[exercise.number])
    said = {word.replace(",", "").replace("−", "-") for word in words}
    for each in parts(exercise.instance(Random(f"{exercise.number}/1")).answer):
        assert str(each) in said


def parts(answer: Any) -> list[Any]:
    """The numbers and words that an answer consists of."""
    return [part for each in answer for part in parts(each)] if isinstance(answer, tuple | list) else [answer]


def others(answer: Any) -> list[Any]:
    """Three values beside the right one."""
    if answer in ((), []):
        return [(0,), None, 1]
    if isinstance(answer, tuple | list):
        return [(*answer[:-1], others(answer[-1])[0]), (*answer, 0), answer[:-1]]
    if isinstance(answer, str):
        return [answer + "?", "", "perhaps"]
    return [answer + 1, -answer - 1, None]


def test_code_that_never_ends_is_stopped_at_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvpaged.exercises.trial.SECONDS", 0.2)

    def release_many(pool: Any, pages: list[int]) -> None:
        while True:
            try:
                pool.ref_counts[0] = 1
            except:  # noqa: E722 (the worst a reader can write)
                continue

    verdict = check("4.2", release_many)
    assert not verdict.passed
    assert "did not end within 0.2 seconds" in str(verdict)


def test_code_can_be_traced_after_a_check_whether_or_not_it_was_stopped() -> None:
    script = (
        "import sys\n"
        "import kvpaged.exercises.trial as trial\n"
        "from kvpaged.exercises import check\n"
        "trial.SECONDS = 0.2\n"
        "def release_many(pool, pages):\n"
        "    while True: pass\n"
        "for answer in (release_many, lambda pool, pages: None):\n"
        "    assert not check('4.2', answer).passed\n"
        "    sys.settrace(lambda *_: None)\n"
        "    sorted([2, 1], key=lambda each: each)\n"
        "    sys.settrace(None)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_an_exception_is_told_with_the_readers_own_line() -> None:
    def release_many(pool: Any, pages: list[int]) -> None:
        print("so far, so good")
        pool.give_back(pages)

    verdict = check("4.2", release_many)
    assert "it raised AttributeError: 'Pool' object has no attribute 'give_back', at line" in str(verdict)
    assert "`pool.give_back(pages)`" in str(verdict)
    assert "so far, so good" in str(verdict)


def test_an_answer_that_differs_from_call_to_call_is_not_drawn_and_hurts_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0

    def release_many(pool: Any, pages: list[int]) -> None:
        nonlocal calls
        calls += 1
        print("called")
        if calls > 30:
            raise RuntimeError("tired")

    assert not check("4.2", release_many).passed
    assert capsys.readouterr().out == ""


def test_what_is_not_a_function_is_no_answer() -> None:
    assert "wants the function release_many itself, not [1, 2]" in str(check("4.2", [1, 2]))


def test_an_exercise_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no exercise '4\.99' to check: there are 4\.1, 4\.2"):
        check("4.99", None)
    with pytest.raises(ValueError, match=r"no exercise 'x' to check: there are chapters"):
        find("x")
    with pytest.raises(ValueError, match=r"exercise 4\.2 is to build: write release_many"):
        ask("4.2")


def test_hints_go_a_step_further_each_time_and_then_say_where_the_solution_is() -> None:
    hints = find("4.2").hints
    said = [str(hint("4.2")) for _ in range(len(hints) + 1)]
    assert all(words in heard for words, heard in zip([*hints, hints[-1]], said, strict=True))
    assert "the solution is folded" in said[-1]


def test_no_hint_has_mathematics_which_a_verdict_cannot_draw() -> None:
    assert not [each.number for each in exercises() if "$" in "".join(each.hints)]


def test_what_is_solved_is_kept_in_the_folder_and_only_what_is_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVPAGED_PROGRESS")
    assert str(progress()).startswith("0 of ")
    check("4.1", (9, 9, 9, 9))
    assert not (tmp_path / ".kvpaged-progress.json").exists()
    ask("4.1")
    right = find("4.1").instance(Random("4.1/1"))  # type: ignore[union-attr]
    monkeypatch.setattr("kvpaged.exercises.asking._asked", Counter({"4.1": 1}))
    check("4.1", right.answer, keep_it=False)
    assert str(progress()).startswith("0 of ")
    check("4.1", right.answer)
    assert json.loads((tmp_path / ".kvpaged-progress.json").read_text()) == ["4.1"]
    assert "✓ 4.1" in str(progress())
    assert str(progress()).startswith("1 of ")


def test_a_damaged_record_of_progress_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVPAGED_PROGRESS")
    (tmp_path / ".kvpaged-progress.json").write_text("{", encoding="utf-8")
    assert str(progress()).startswith("0 of ")
