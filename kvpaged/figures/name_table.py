"""What other systems call a part, as a table that a phone can show, and ways through their sources, as lists."""

import re
from collections.abc import Mapping
from html import escape

from kvpaged.figures.language import listed
from kvpaged.lab.name_map import READING, SYSTEMS, Part, Place, System, find_part

# Roles are spelled out: a table whose rows are stacked on a phone would not be one for a screen reader otherwise.
_STYLE = (
    ".kvn.kvn{display:table;table-layout:fixed!important;width:100%;margin:.5em 0;border-collapse:collapse;"
    "font-size:.875rem;line-height:1.45}"
    ".kvn caption{caption-side:top;padding:0 0 .5em;text-align:left;color:inherit}"
    ".kvn.kvn :is(th,td){padding:.5em 1em .5em 0;border:0;border-top:1px solid var(--pst-color-border,#b5b5b5);"
    "text-align:left!important;vertical-align:top;white-space:normal;overflow-wrap:anywhere}"
    ".kvn.kvn th{width:42%;font-weight:400}.kvn code{font-size:.8125rem}"
    "@media(max-width:600px){.kvn.kvn :is(th,td){display:block;width:100%;padding-right:0}"
    ".kvn.kvn td{padding-top:0;border-top:0}}"
)


class NameTable:
    """A part of the name map. Shows itself in a notebook; as plain text it has the same words."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def _repr_html_(self) -> str:
        name, ours, does, elsewhere = self.part
        rows = [_row("here", "".join(f"<br>{_code(each)}" for each in ours), does)] if ours else []
        for system in SYSTEMS:
            if (place := elsewhere.get(system.name)) is not None:
                names = "".join(f"<br>{_code(each)}" for each in place.names)
                rows.append(_row(system.name, f"{names}<br>{_link(system, place)}", place.difference))
        title = f"<b>{escape(name[0].upper() + name[1:])}</b>" + ("" if ours else f": {_prose(does)}")
        missing = _without(elsewhere)
        title += f" None was found in {listed(missing)}." if missing else ""
        return (
            f'<style>{_STYLE}</style><table class="kvn" role="table"><caption>{title}</caption>{"".join(rows)}</table>'
        )

    def __repr__(self) -> str:
        name, ours, does, elsewhere = self.part
        lines = [f"{name}: {does}", *(f"  here: {each}" for each in ours)]
        for system, place in elsewhere.items():
            lines.append(f"  {system}: {', '.join(place.names)} ({place.file}). {place.difference}")
        lines += [f"  {listed(missing)}: none found"] if (missing := _without(elsewhere)) else []
        return "\n".join(lines)


def name_table(part: str) -> NameTable:
    """Show what other systems call a part of the name map, where, and what is different there.

    Raises ValueError when no part has that name.
    """
    return NameTable(find_part(part))


class ReadingPath:
    """An order in which to read a system's source. Shows itself in a notebook; as plain text it has the same words."""

    def __init__(self, system: System, places: tuple[Place, ...]) -> None:
        self.system = system
        self.places = places

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li>{_link(self.system, place)}: {listed(map(_code, place.names))}. {_prose(place.difference)}</li>"
            for place in self.places
        )
        return f"<p><b>{self.system.name} {self.system.version}</b>, in this order:</p><ol>{items}</ol>"

    def __repr__(self) -> str:
        lines = [f"{self.system.name} {self.system.version}, in this order:"]
        for number, place in enumerate(self.places, start=1):
            lines.append(f"  {number}. {place.file}: {listed(place.names)}. {place.difference}")
        return "\n".join(lines)


def reading_path(system: str) -> ReadingPath:
    """Show the shortest way through a system's source. Raises ValueError when there is none."""
    for each in SYSTEMS:
        if each.name == system:
            return ReadingPath(each, READING[each.name])
    raise ValueError(f"no way through {system!r} is known; there are {listed(READING)}")


def _without(elsewhere: Mapping[str, Place]) -> list[str]:
    return [system.name for system in SYSTEMS if system.name not in elsewhere]


def _code(name: str) -> str:
    return f"<code>{escape(name)}</code>"


def _link(system: System, place: Place) -> str:
    return f'<a href="{escape(system.source + place.file)}">{escape(place.file)}</a>'


def _row(system: str, names: str, words: str) -> str:
    head = f'<th scope="row" role="rowheader"><b>{system}</b>{names}</th>'
    return f'<tr role="row">{head}<td role="cell">{_prose(words)}</td></tr>'


def _prose(words: str) -> str:
    """Escape, and set what stands between backticks as code, what stands between stars as emphasis."""
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", words)
