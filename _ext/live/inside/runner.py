"""Runs the cells of a page, one at a time, in one namespace, and says what came of each.

A cell ends, like one of a notebook, in an expression whose value is shown. An error is told by the lines of cells
alone: what is between them and the fault is the book's own. A cell that does not end is stopped after some seconds,
where Python can tell (3.12 and newer); the page can end it at any time.
"""

import ast
import io
import json
import linecache
import random
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from types import CodeType
from typing import Any

from kvpaged.figures.picture import inline_pictures

SECONDS = 10  # for one cell
MOST = 100_000  # characters that a cell prints
NAMESPACE: dict[str, Any] = {"__name__": "__main__"}
SHOWN: dict[str, Any] = {}  # by cell: the playground in it


class TimeUp(BaseException):
    """The cell took too long. No `except Exception` of a reader's or of a check's catches it."""

    __module__ = "builtins"  # told without the name of this file


class Printed(io.StringIO):
    """What a cell prints: its beginning, if it is too much."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, MOST - self.tell())])
        return len(text)


def answer(request: str) -> str:
    """Answer a request of the page, in JSON: `{"do": "run", "cell": ..., "source": ...}`, or a playground's."""
    given = json.loads(request)
    do = given.pop("do")
    if do == "run":
        return json.dumps(run(**given))
    if not (playground := SHOWN.get(given["cell"])):  # Python was ended since
        return "{}"
    if do == "press":
        playground.press(given["label"])
    else:
        playground.fill(given["label"], given["value"])
    return json.dumps({"playground": state(playground)})


def run(cell: str, source: str) -> dict[str, Any]:
    """Run the source of a cell.

    Returns what it printed; the shown value as `html` or `text`; a playground's `playground`; a verdict's `number` and
    whether it `passed`; after an error `error` and the `line` of the cell.
    """
    name = f"<{cell}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    printed, outcome = Printed(), {}
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            body, last = halves(source, name)
            value = within_time([code for code in (body, last) if code], SECONDS)
            outcome = shown(cell, value)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError):
            error.add_note(f"{error.name} is not in the page: run this chapter in Jupyter.")
        outcome = {"error": told(error), "line": line_of(error, name)}
    return {"printed": printed.getvalue(), **outcome}


def halves(source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """The statements of a cell, and the expression at its end, if there is one."""
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = compile(ast.Expression(tree.body.pop().value), name, "eval")
    return compile(tree, name, "exec"), last


def within_time(codes: list[CodeType], seconds: float) -> Any:
    """Run the codes in the namespace, and return the value of the last. Raises TimeUp."""
    watch = getattr(sys, "monitoring", None)
    deadline = time.monotonic() + seconds

    def look(*_: object) -> None:
        if time.monotonic() > deadline:
            raise TimeUp(f"stopped after {seconds} seconds: does it end?")

    value = None
    if watch:
        tool, events = watch.DEBUGGER_ID, watch.events.PY_START | watch.events.JUMP
        watch.use_tool_id(tool, "the runner of the page")
        for event in (watch.events.PY_START, watch.events.JUMP):
            watch.register_callback(tool, event, look)
        for code in codes:
            for each in inner(code):
                watch.set_local_events(tool, each, events)
    try:
        for code in codes:
            value = eval(code, NAMESPACE)
    finally:
        if watch:
            watch.free_tool_id(tool)
    return value


def inner(code: CodeType) -> Iterator[CodeType]:
    """A code, and that of each function written in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from inner(constant)


def shown(cell: str, value: Any) -> dict[str, Any]:
    """How a value is shown: as a playground, in its own HTML or drawing, or as text."""
    outcome: dict[str, Any] = {}
    if isinstance(passed := getattr(value, "passed", None), bool):
        outcome = {"passed": passed, "number": str(getattr(value, "number", ""))}
    if hasattr(value, "controls") and hasattr(value, "press"):
        SHOWN[cell] = value
        return {"playground": state(value)}
    for way in ("_repr_html_", "_repr_svg_"):
        if callable(draw := getattr(value, way, None)) and (html := draw()):
            return outcome | {"html": inline_pictures(html)}
    return outcome if value is None else outcome | {"text": repr(value)}


def state(playground: Any) -> dict[str, Any]:
    """What the page shows of a playground: its controls, what it says, its picture."""
    return {
        "controls": [vars(control) for control in playground.controls],
        "sentence": playground.sentence,
        "picture": playground.picture().inline(),
    }


def told(error: BaseException) -> str:
    """The error as Python tells it, from the lines of cells alone."""
    report = traceback.TracebackException.from_exception(error, compact=True)
    for each in chain(report):
        each.stack = traceback.StackSummary.from_list(
            [frame for frame in each.stack if frame.filename.startswith("<cell")]
        )
    return "".join(report.format()).strip()


def chain(report: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    """A report, and those of what it came from."""
    while report:
        yield report
        report = report.__cause__ or report.__context__


def line_of(error: BaseException, name: str) -> int | None:
    """The line of the cell at which it failed: the last one that Python was at."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None


def awake() -> None:
    """After a sleep in a snapshot, every random generator would say again what it said before."""
    random.seed()
