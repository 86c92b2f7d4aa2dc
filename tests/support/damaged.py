"""Damage done to files, for the tests of what reads them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damage(draw: st.DrawFn, within: int) -> Callable[[bytes], bytes]:
    """A function that cuts bytes short, or changes or adds some of the first `within`."""
    how, at = draw(st.sampled_from(["cut", "change", "add"])), draw(st.integers(0, within - 1))
    strange = draw(st.sampled_from([b'"', b"{", b"}", b"[", b"]", b"-", b"9", b"999999999999", b"\n", b"\xff", b"\0"]))

    def damaged(whole: bytes) -> bytes:
        place = at % len(whole)
        if how == "cut":
            return whole[:place]
        return whole[:place] + strange + whole[place + len(strange) * (how == "change") :]

    return damaged


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)
