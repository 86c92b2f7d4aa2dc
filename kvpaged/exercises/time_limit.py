"""A limit for code that may never end."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, process_time


class Stopped(BaseException):
    """The code ran out of time. No `except Exception` of a reader catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Stopped in this thread, at whatever line it is, if the block takes longer than that.

    What counts is the processor's time, since a machine may be busy with other things; or ten times as long on the
    clock, for who waits computes nothing. It is raised again and again until the block ends: a bare `except:` in an
    endless loop swallows only some. Where there are no threads (in a browser) there is no limit; the page has a button
    to stop what runs.
    """
    done, reader = threading.Event(), ctypes.c_ulong(threading.get_ident())
    turn = threading.Lock()

    computed, started = process_time(), monotonic()

    def watch() -> None:
        while not done.wait(0.1):
            with turn:
                late = process_time() - computed > seconds or monotonic() - started > 10 * seconds
                if late and not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(reader, ctypes.py_object(Stopped))

    watcher = threading.Thread(target=watch, daemon=True)
    with suppress(RuntimeError):  # no threads here
        watcher.start()
    try:
        yield
    finally:
        _end(done, turn)


def _end(done: threading.Event, turn: threading.Lock) -> None:
    """Let the watcher send nothing more. What it sent last may still be on its way: it arrives here.

    To take it back instead (by sending None) would leave Python's own mark that something is on its way, for ever: code
    that is traced afterwards, by a debugger say, would wait for it without end.
    """
    ended = False
    while not ended:
        try:
            with turn:
                done.set()
            for _ in range(9):  # something that is on its way arrives where a loop turns
                pass
            ended = True
        except Stopped:
            continue
