"""Work, counted in lines of Python: the same number on every machine, where a clock would give another each time."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(action: Callable[[], object]) -> int:
    """Return how many lines of Python a call of `action` executes.

    What is compiled counts nothing: `list.sort` is one line, however long the list. A tracer that was set, such as a
    debugger's, is set again afterwards.
    """
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
