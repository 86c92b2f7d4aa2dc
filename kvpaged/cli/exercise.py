"""`exercise`: the book's exercises in a shell."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

_NUMBER = typer.Argument(help="Such as 4.2, or M.3 of the museum. Without it: which there are, and which are solved.")


def exercise(
    number: Annotated[str | None, _NUMBER] = None,
    file: Annotated[Path | None, typer.Argument(help="Python, with the function that the exercise asks for.")] = None,
    hints: Annotated[int, typer.Option("--hints", min=0, help="Show so many hints.")] = 0,
) -> None:
    """Ask a question and judge what is typed, or judge the function in a file.

    What is solved is kept in a file of this folder, .kvpaged-progress.json.
    """
    from kvpaged.exercises import check, exercises, find, hint, progress
    from kvpaged.exercises.exercise import Build

    if number is None:
        print(progress())
        print()
        for each in exercises():
            print(f"{each.number:>5}  {each.kind:<8} {each.title}")
        return
    asked = find(number)
    for _ in range(min(hints, len(asked.hints))):
        print(hint(number))
    if isinstance(asked, Build):
        if file is None:
            print(f"{number}, {asked.kind}: {asked.title}. Write {asked.name} in a file, and give its name:")
            print(f"    python -m kvpaged exercise {number} FILE.py")
            print("What it shall do is told in the book, under that number.")
            return
        verdict = check(number, _function(file, asked.name))
    else:
        if file is not None:
            raise ValueError(f"exercise {number} asks for a value: leave {file} away, and type it")
        verdict = check(number, _typed(number))
    print(verdict)
    if not verdict.passed:
        raise typer.Exit(code=1)


def _function(file: Path, name: str) -> Callable[..., Any]:
    """What a file calls by that name, after it has run. Raises ValueError if it fails or has none."""
    from kvpaged.exercises.time_limit import Stopped, time_limit

    source = file.read_text(encoding="utf-8")
    linecache.cache[str(file)] = (len(source), None, source.splitlines(keepends=True), str(file))
    names: dict[str, Any] = {"__name__": "answer", "__file__": str(file)}
    try:
        with time_limit(5):
            exec(compile(source, str(file), "exec"), names)
    except Stopped:
        raise ValueError(f"{file} did not come to its end within 5 seconds: leave only definitions in it") from None
    except Exception as error:
        raise ValueError(f"{file} does not run: {type(error).__name__}: {error}") from error
    if name not in names:
        raise ValueError(f"{file} has no {name}: the exercise asks for a function of that name")
    return names[name]  # type: ignore[no-any-return]


def _typed(number: str) -> Any:
    """What is typed in answer to the question: Python's words for a number or several, or a word."""
    import ast

    from kvpaged.exercises import ask

    print(ask(number))
    print("your answer: ", end="", flush=True)
    typed = sys.stdin.readline().strip()
    if not typed:
        return ...  # as in the book, where nobody has answered yet
    for written in (typed, ",".join(typed.split())):  # numbers may be told apart by blanks
        try:
            return ast.literal_eval(written)
        except (ValueError, SyntaxError):
            continue
    return typed
