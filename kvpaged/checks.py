"""The checks that every room makes of its numbers, so that bad input gets one clear message and changes nothing."""

import math
from collections.abc import Hashable
from numbers import Integral, Real
from operator import index

MOST = 2**63 - 1  # what a tensor of integers can hold


def positive_int(name: str, value: int) -> int:
    """Return `value` if it is an int of at least 1; raise ValueError or TypeError naming it otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; it must be an int of at least 1")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


def int_within(name: str, value: object, least: int, most: int = MOST, meaning: str = "") -> int:
    """Return `value` as an int if it is a whole number from `least` to `most`; raise ValueError naming it otherwise.

    Any kind of integer is one, numpy's too; True and False are none. meaning: what to say beside the limit.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    number = int(value)
    shown = number if number.bit_length() <= MOST.bit_length() else f"an int of {number.bit_length():,} bits"
    if number > most:
        raise ValueError(f"{name} is {shown}; it must be at most {most}")
    if number < least:
        raise ValueError(f"{name} is {shown}; it must be at least {least}" + (f": {meaning}" if meaning else ""))
    return number


def finite_float(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number; raise ValueError naming it otherwise."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; it must be a finite number")
    return number


def flag(name: str, value: object) -> bool:
    """Return `value` as a bool if it is True or False; raise ValueError naming it otherwise: "no" would mean yes."""
    if value not in (True, False):
        raise ValueError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def whole(name: str, value: int) -> int:
    """Return an integer of any kind (numpy's, torch's) as a plain int; raise TypeError naming it if it is none."""
    try:
        return int(index(value))
    except TypeError:
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; it must be an int") from None


def check_salt(cache_salt: Hashable) -> None:
    """Raise TypeError unless it is None, a str, bytes, an int, or a tuple of these.

    Who has an equal salt shares, so no salt may equal what is another one (as True, 1 and 1.0 do), or change.
    """
    if cache_salt is None or type(cache_salt) in (str, bytes, int):
        return
    if type(cache_salt) is tuple:
        for part in cache_salt:
            check_salt(part)
    else:
        raise TypeError(
            f"cache_salt has {cache_salt!r}, a {type(cache_salt).__name__}, which may equal another; "
            "give None, a str, bytes, an int, or a tuple of these"
        )
