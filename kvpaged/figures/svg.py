"""SVG as text: a few marks with rounded coordinates, so that the same picture is the same text."""

import re
from html import escape


def mark(name: str, content: str = "", /, **attributes: object) -> str:
    """Return one element. Attributes that are None are left out; class_ is class, stroke_width is stroke-width."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def rect(x: float, y: float, width: float, height: float, **attributes: object) -> str:
    """A rectangle."""
    return mark("rect", x=x, y=y, width=width, height=height, **attributes)


def label(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text; class m is centred, e ends at x, d is dim, b is bold."""
    return mark("text", escape(content), x=x, y=y, **attributes)


def path(*parts: object, **attributes: object) -> str:
    """A path of letters and numbers: path("M", 0, 0, "L", 9, 9)."""
    return mark("path", d=steps(*parts), **attributes)


def steps(*parts: object) -> str:
    """Letters and numbers of a path, or of any list of numbers, with as few spaces as will do."""
    return re.sub(r" ?([A-Za-z]) ?", r"\1", " ".join(map(_value, parts)))


def box(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as steps of a path: many of them make one element."""
    return steps("M", x, y, "h", width, "v", height, "h", -width, "z")


def hatch(x: float, y: float, width: float, height: float) -> str:
    """Diagonal lines that fill a rectangle, as steps of a path of class h."""
    lines = []
    offset = gap = 5.0
    while offset < width + height:
        x1, y1 = x + max(0.0, offset - height), y + min(offset, height)
        lines.append(steps("M", x1, y1, "L", x + min(offset, width), y + max(0.0, offset - width)))
        offset += gap
    return "".join(lines)


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """A curve that leaves and arrives vertically, with a head at its end; its edge shows it on any background."""
    bend = (y2 - y1) * 0.5
    curve = "M", x1, y1, "C", x1, y1 + bend, x2, y2 - bend - 4, x2, y2 - 6
    head = path("M", x2 - 5, y2 - 8, "L", x2 + 5, y2 - 8, "L", x2, y2, "Z", class_="u", fill=colour)
    return path(*curve, class_="q") + path(*curve, class_="k", stroke=colour) + head


def text_width(content: str, size: float = 12) -> float:
    """Estimate how wide a text is: fonts differ from reader to reader, so this is on the safe side."""
    narrow = sum(character in "iljtfr.,:;|!'()[] I" for character in content)
    wide = sum(character in "mwMW—…%@" for character in content)
    return size * (0.6 * len(content) - 0.25 * narrow + 0.3 * wide)


def shortened(content: str, width: float, size: float = 12) -> str:
    """Cut a text so that it fits, and show the cut."""
    if text_width(content, size) <= width:
        return content
    while content and text_width(content + "…", size) > width:
        content = content[:-1]
    return content + "…"


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.0", "0") if isinstance(value, float) else str(value)
