"""What four other systems call the parts of this one: the data of `name_map.toml`, read when this is imported."""

import tomllib
from importlib.resources import files
from typing import Any, NamedTuple


class System(NamedTuple):
    """Another system, at the version that was read. `source` and a file's path make an address."""

    name: str
    version: str
    source: str


class Place(NamedTuple):
    """Where a system keeps a part, the names there, as `Class.method`, and what is different about it."""

    file: str
    names: tuple[str, ...]
    difference: str


class Part(NamedTuple):
    """A part of this package, or (`ours` empty) something that this package leaves out."""

    name: str
    ours: tuple[str, ...]  # dotted, as they are imported
    does: str
    elsewhere: dict[str, Place]  # by the system's name; a system that has none is not there


def _place(entry: dict[str, Any]) -> Place:
    return Place(entry["file"], tuple(entry["names"]), entry["difference"])


def _part(entry: dict[str, Any]) -> Part:
    elsewhere = {system.name: _place(entry[system.name]) for system in SYSTEMS if system.name in entry}
    return Part(entry["name"], tuple(entry.get("ours", ())), entry["does"], elsewhere)


_DATA = tomllib.loads(files("kvpaged.lab").joinpath("name_map.toml").read_text(encoding="utf-8"))
SYSTEMS = tuple(System(**entry) for entry in _DATA["systems"])
TRANSFORMERS = SYSTEMS[-1]  # the one that is installed beside this package
PARTS = tuple(_part(entry) for entry in _DATA["parts"])
BEYOND = tuple(_part(entry) for entry in _DATA["beyond"])
READING = {system: tuple(map(_place, places)) for system, places in _DATA["reading"].items()}


def find_part(name: str) -> Part:
    """Return the part of that name. Raises ValueError, with all names, when there is none."""
    for part in (*PARTS, *BEYOND):
        if part.name == name:
            return part
    raise ValueError(f"no part is called {name!r}; there are {', '.join(part.name for part in (*PARTS, *BEYOND))}")
