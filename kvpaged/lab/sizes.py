"""Sizes of memory, read and written: 24GiB, 128 KiB."""

import re

_UNITS = {"B": 1}
for _power, _prefix in enumerate("KMGT", 1):
    _UNITS |= {f"{_prefix}B": 1000**_power, f"{_prefix}iB": 1024**_power}


def read_size(text: str) -> int:
    """Return the bytes of a size such as 24GiB, 500 MB or 1.5TiB.

    Raises ValueError; for Gb, which would be bits, with a word about it.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2] not in _UNITS:
        bits = "; a small b is for bits, of which a byte has eight" if found and found[2].endswith("b") else ""
        raise ValueError(f"{text!r} is no size of memory: give a number and one of {', '.join(_UNITS)}{bits}".strip())
    return int(float(found[1]) * _UNITS[found[2]])


def written_size(num_bytes: float) -> str:
    """Write a number of bytes with the unit that suits it: 128 KiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}" if num_bytes < 1000 else f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"
