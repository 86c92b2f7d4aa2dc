"""What other systems call a part, as a table: a row for each system, readable on a phone."""

import re
from collections.abc import Mapping
from html import escape

from kvpaged.figures.language import listed
from kvpaged.lab.name_map import SYSTEMS, Part, Place, find_part

_STYLE = (
    ".kvn{width:100%;table-layout:fixed;border-collapse:collapse;font-size:.875rem;line-height:1.4}"
    ".kvn caption{caption-side:top;text-align:left;padding:0 0 .5em;color:inherit}"
    ".kvn :is(th,td){width:58%;padding:.5em .6em .5em 0;border-top:1px solid var(--pst-color-border,#b5b5b5);"
    "text-align:left!important;vertical-align:top;white-space:normal;overflow-wrap:anywhere;background:none}"
    ".kvn th{width:42%;font-weight:400}.kvn code{font-size:.8125rem}"
)


class NameTable:
    """A part of the name map. Shows itself in a notebook; as plain text it has the same words."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def _repr_html_(self) -> str:
        name, ours, does, elsewhere = self.part
        rows = [_row("here", "".join(f"<br><code>{escape(each)}</code>" for each in ours), does)] if ours else []
        for system in SYSTEMS:
            if (place := elsewhere.get(system.name)) is not None:
                names = "".join(f"<br><code>{escape(each)}</code>" for each in place.names)
                file = f'<a href="{escape(system.source + place.file)}">{escape(place.file)}</a>'
                rows.append(_row(system.name, f"{names}<br>{file}", place.difference))
        title = f"<b>{escape(name[0].upper() + name[1:])}</b>" + ("" if ours else f": {_prose(does)}")
        missing = _without(elsewhere)
        title += f" None was found in {listed(missing)}." if missing else ""
        return f'<style>{_STYLE}</style><table class="kvn"><caption>{title}</caption>{"".join(rows)}</table>'

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


def _without(elsewhere: Mapping[str, Place]) -> list[str]:
    return [system.name for system in SYSTEMS if system.name not in elsewhere]


def _row(system: str, names: str, words: str) -> str:
    return f'<tr><th scope="row"><b>{system}</b>{names}</th><td>{_prose(words)}</td></tr>'


def _prose(words: str) -> str:
    """Escape, and set what stands between backticks as code, what stands between stars as emphasis."""
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", words)
