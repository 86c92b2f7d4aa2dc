"""The four words a reader says: `ask`, `check`, `hint`, `progress`."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Predict, Question
from kvpaged.exercises.progress import keep
from kvpaged.exercises.shelf import find
from kvpaged.exercises.trial import Failure, try_out
from kvpaged.exercises.verdict import Verdict, paragraphs

_asked: Counter[str] = Counter()
_hinted: Counter[str] = Counter()


class Words(str):
    """Words that show themselves, code between backticks."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return paragraphs(self)


def ask(number: str) -> Words:
    """Ask the question of a *predict* exercise; each time with other numbers, in the same order for everybody.

    Raises ValueError for an exercise that is not of this kind, or not there.
    """
    exercise = _predict(number)
    _asked[number] += 1
    return Words(_instance(exercise).words)


def check(number: str, answer: Any, keep_it: bool = True) -> Verdict:
    """Judge an answer: a value for a *predict* exercise, as asked last; a function for *build* and *debug*.

    Remembers what is solved, if `keep_it`. Raises ValueError for a number that is no exercise's.
    """
    exercise = find(number)
    verdict = _judge_value(exercise, answer) if isinstance(exercise, Predict) else _judge(exercise, answer)
    if verdict.passed and keep_it:
        keep(number)
    return verdict


def hint(number: str) -> Words:
    """One more hint, each time it is called."""
    hints = find(number).hints
    _hinted[number] += 1
    shown = min(_hinted[number], len(hints))
    more = f"{len(hints) - shown} more" if shown < len(hints) else "the last; the solution is folded below the exercise"
    return Words(f"Hint {shown} of {len(hints)} ({more}): {hints[shown - 1]}")


def _predict(number: str) -> Predict:
    exercise = find(number)
    if not isinstance(exercise, Predict):
        raise ValueError(f"exercise {number} is to {exercise.kind}: write {exercise.name}, and check({number!r}, ...)")
    return exercise


def _instance(exercise: Predict) -> Question:
    return exercise.instance(Random(f"{exercise.number}/{max(1, _asked[exercise.number])}"))


def _judge_value(exercise: Predict, answer: Any) -> Verdict:
    question = _instance(exercise)
    if answer is None or answer is ...:
        return Verdict(
            exercise.number, False, ("not yet: say what you expect.", question.words), hint=exercise.hints[0]
        )
    if _plain(answer) == _plain(question.answer):
        return Verdict(exercise.number, True, (f"right. `ask({exercise.number!r})` asks with other numbers.",))
    words = (f"{answer!r} is not what happens.", question.words)
    return Verdict(exercise.number, False, words, hint=exercise.hints[0])


def _plain(value: Any) -> Any:
    """Lists and tuples alike, whatever is in them; words whatever their case."""
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    return value.strip().lower() if isinstance(value, str) else value


def _judge(exercise: Build, function: Any) -> Verdict:
    if not callable(function):
        return Verdict(exercise.number, False, (f"check wants the function {exercise.name} itself, not {function!r}.",))
    if str(getattr(function, "__module__", "")).partition(".")[0] == "kvpaged":
        return Verdict(exercise.number, False, (f"that {exercise.name} is the book's: write your own.",))
    tried, failure = try_out(exercise, function)
    if failure is None:
        return Verdict(exercise.number, True, (f"right, in {tried} random cases beside {exercise.against}.",))
    return _tell(exercise, tried, failure)


def _tell(exercise: Build, tried: int, failure: Failure) -> Verdict:
    words = [f"not yet. {tried} random cases were tried; this is the smallest that fails:", failure.case.words]
    if failure.error:
        words.append(f"There {failure.error}.")
    rows, pictures = failure.differences(), failure.pictures()
    return Verdict(exercise.number, False, words, rows, pictures, failure.printed, hint=exercise.hints[0])
