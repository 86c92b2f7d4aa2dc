"""A limit for code that may never end."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Stopped(BaseException):
    """The code ran out of time. No `except Exception` of a reader catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Stopped in this thread, at whatever line it is, if the block takes longer than that.

    It is raised again and again until the block ends: a bare `except:` in an endless loop swallows only some. Where
    there are no threads (in a browser) there is no limit; the page has a button to stop what runs.
    """
    done, reader = threading.Event(), ctypes.c_ulong(threading.get_ident())
    turn = threading.Lock()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            with turn:
                if not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(reader, ctypes.py_object(Stopped))
            wait = 0.2

    watcher = threading.Thread(target=watch, daemon=True)
    with suppress(RuntimeError):  # no threads here
        watcher.start()
    try:
        yield
    finally:
        with turn:
            done.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(reader, None)  # one that is on its way comes too late
