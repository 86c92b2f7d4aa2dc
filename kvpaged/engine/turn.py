"""One caller at a time: a thread that comes while another is at work gets an error, not a corrupted pool."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from types import CodeType, FrameType


class Turn:
    """Whose turn it is. Within its own turn a thread may take more: `generate` holds one over all its steps."""

    def __init__(self) -> None:
        self._holder: dict[str, int] = {}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn. Raises RuntimeError when another thread has it."""
        me, is_first = get_ident(), not self._holder
        if self._holder.setdefault("thread", me) != me:  # one operation for all threads: there is no in-between
            raise RuntimeError("this engine is at work in another thread: give each thread its own, or take turns")
        try:
            yield
        finally:
            if is_first:
                self._holder.clear()


def is_running(code: CodeType, owner: object) -> bool:
    """Whether a method with this code is at work on `owner` now, called from wherever, in this thread.

    No flag could say so: who is interrupted leaves a flag as it was.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (frame.f_code is code and frame.f_locals["self"] is owner):
        frame = frame.f_back
    return frame is not None
