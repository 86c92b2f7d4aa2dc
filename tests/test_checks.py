"""The checks that rooms make of what comes in: what passes, and what is said of what does not."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from kvpaged.checks import MOST, check_salt, finite_float, flag, int_within, positive_int, whole


def refused(kind: type[Exception], check: Callable[[], object]) -> str:
    with pytest.raises(kind) as refusal:
        check()
    return str(refusal.value)


def test_a_size_is_an_int_of_at_least_1() -> None:
    assert [positive_int("size", value) for value in (1, 2, 10**30)] == [1, 2, 10**30]
    assert refused(ValueError, lambda: positive_int("size", 0)) == "size is 0; it must be at least 1"
    for wrong in (True, 1.0, "1", None):
        told = f"size is {wrong!r}, a {type(wrong).__name__}; it must be an int of at least 1"
        assert refused(TypeError, lambda wrong=wrong: positive_int("size", wrong)) == told


def test_a_whole_number_of_any_kind_is_held_between_its_limits() -> None:
    for value in (2, 3, np.int64(5), np.uint8(4)):
        number = int_within("k", value, 2, 5)
        assert (number, type(number)) == (value, int)
    assert int_within("k", MOST, 0) == MOST
    assert refused(ValueError, lambda: int_within("k", 6, 2, 5)) == "k is 6; it must be at most 5"
    assert refused(ValueError, lambda: int_within("k", 1, 2, 5)) == "k is 1; it must be at least 2"
    assert refused(ValueError, lambda: int_within("k", 1, 2, meaning="why")) == "k is 1; it must be at least 2: why"
    for wrong in (True, 2.0, "2", None):
        told = f"k is {wrong!r}; it must be a whole number"
        assert refused(ValueError, lambda wrong=wrong: int_within("k", wrong, 0)) == told


def test_a_number_too_long_to_print_is_told_by_its_length() -> None:
    assert refused(ValueError, lambda: int_within("k", MOST + 1, 0)) == (
        f"k is an int of 64 bits; it must be at most {MOST}"
    )
    assert refused(ValueError, lambda: int_within("k", 10**5000, 0)) == (
        f"k is an int of 16,610 bits; it must be at most {MOST}"
    )
    assert refused(ValueError, lambda: int_within("k", -MOST, 0)) == f"k is {-MOST}; it must be at least 0"


def test_a_share_is_a_finite_number() -> None:
    for value in (1, 0.5, np.float32(0.25)):
        number = finite_float("p", value)
        assert (number, type(number)) == (value, float)
    for wrong in (True, "1", None, 1j):
        told = f"p is {wrong!r}; it must be a finite number"
        assert refused(ValueError, lambda wrong=wrong: finite_float("p", wrong)) == told
    for wrong, shown in ((float("nan"), "nan"), (float("-inf"), "-inf"), (10**400, "inf")):
        told = f"p is {shown}; it must be a finite number"
        assert refused(ValueError, lambda wrong=wrong: finite_float("p", wrong)) == told


def test_a_flag_is_true_or_false() -> None:
    for value in (True, False, np.True_, np.False_):
        assert flag("echo", value) is bool(value)
    for wrong in ("no", 2, None):
        told = f"echo is {wrong!r}; it must be True or False"
        assert refused(ValueError, lambda wrong=wrong: flag("echo", wrong)) == told


def test_an_integer_of_any_kind_is_made_a_plain_one() -> None:
    for value in (-3, np.int32(7), True):
        number = whole("n", value)
        assert (number, type(number)) == (value, int)
    for wrong in (1.0, "1", None):
        told = f"n is {wrong!r}, a {type(wrong).__name__}; it must be an int"
        assert refused(TypeError, lambda wrong=wrong: whole("n", wrong)) == told


@pytest.mark.parametrize(
    "wrong", [True, 1.0, np.int64(1), type("Name", (str,), {})("a"), ["a"], ("a", (b"b", 1.0)), object()]
)
def test_what_may_equal_another_is_no_salt(wrong: object) -> None:
    for salt in (None, "a", b"a", 7, (), ("a", (b"b", 1, None))):
        check_salt(salt)
    part = wrong[1][1] if isinstance(wrong, tuple) else wrong
    told = (
        f"cache_salt has {part!r}, a {type(part).__name__}, which may equal another; "
        "give None, a str, bytes, an int, or a tuple of these"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(told)}$"):
        check_salt(wrong)
