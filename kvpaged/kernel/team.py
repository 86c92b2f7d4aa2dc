"""Runs compiled functions, on one thread or on several.

A function gets the address of a block of integers, in which its work items are counted off: each thread takes one after
another until none is left. So it does not matter how many threads there are, nor when each begins.

On Linux they are the threads of the OpenMP runtime that torch has loaded: a second set of threads, numba's own or
Python's, would fight with them for the cores. They wait by spinning, which is quick as long as each has a core. Where
other programs are busy, let them sleep: OMP_WAIT_POLICY=passive, set before Python starts. Elsewhere they are Python
threads around compiled code, which holds no lock.
"""

# What numba compiles has no annotations.
# mypy: disallow-untyped-calls=False

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from numba import cfunc, types

from kvpaged.kernel.compiled import BLOCK_SIZE, PHASES

WORTH_A_THREAD = 1 << 20  # multiplications; below it, waking a second thread costs more than it brings
_Block = ctypes.c_int64 * BLOCK_SIZE
_NOTHING_DONE = (0,) * (2 * PHASES)


def run(function: Callable[[Any], None], work: int, *arguments: int) -> None:
    """Run a function of `kvpaged.kernel.compiled` that takes a block; return when all its items are done.

    work: about how many multiplications that is. Uses as many threads as torch does, if it is worth it.
    """
    compiled = compile_once(function)
    block = _Block(*_NOTHING_DONE, *arguments)
    threads = torch.get_num_threads() if work >= WORTH_A_THREAD else 1
    if threads == 1:
        compiled.ctypes(block)
    elif in_parallel := _openmp():
        in_parallel(compiled.address, block, threads, 0)
    else:
        _in_python_threads(compiled.ctypes, block, threads)


def _in_python_threads(function: Callable[..., None], block: Any, threads: int) -> None:
    others = [_helpers(threads - 1).submit(function, block) for _ in range(1, threads)]
    function(block)
    for other in others:
        other.result()


@functools.cache
def compile_once(function: Callable[[Any], None]) -> Any:
    """The function as one of C, compiled or loaded now; a person who must wait for that is told."""
    with announced():
        return cfunc(types.void(types.CPointer(types.int64)), cache=True)(function)


@functools.cache
def _openmp() -> Any:
    """The function of torch's OpenMP runtime that runs another in all its threads; None where torch brings none."""
    for path in Path(torch.__file__).parent.glob("lib/libgomp*"):
        in_parallel = ctypes.CDLL(str(path)).GOMP_parallel  # the library is loaded already: this names it
        in_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        in_parallel.restype = None
        return in_parallel
    return None


@functools.cache
def _helpers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="kvpaged")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_helpers.cache_clear)


class announced:
    """Tells a person what they wait for, when a call takes a second: compiled code does not, but compiling does."""

    def __enter__(self) -> None:
        self.timer = None
        if sys.stderr.isatty():
            self.timer = threading.Timer(1.0, _announce)
            self.timer.daemon = True
            self.timer.start()

    def __exit__(self, *_: object) -> None:
        if self.timer:
            self.timer.cancel()


@functools.cache  # the functions are compiled one by one; who waits for several is told once
def _announce() -> None:
    print("kvpaged: compiling the kernel for this processor, once; about 25 seconds ...", file=sys.stderr, flush=True)
