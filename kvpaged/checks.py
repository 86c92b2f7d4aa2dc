"""The checks that every room makes of its numbers, so that bad input gets one clear message and changes nothing."""


def positive_int(name: str, value: int) -> int:
    """Return `value` if it is an int of at least 1; raise ValueError or TypeError naming it otherwise."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; it must be an int of at least 1")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value
