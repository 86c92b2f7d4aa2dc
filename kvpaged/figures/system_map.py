"""The map of the whole system, at the head of each chapter: its room lit, earlier ones built, later ones to come.

In the built book its rooms are links: there, `_ext/book.py` gives each the address of its chapter.
"""

from typing import NamedTuple

from kvpaged.figures.language import listed
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label, mark, path, rect


class Room(NamedTuple):
    """One room of the house: its chapter, its name, what it does, and where it stands."""

    chapter: int
    name: str
    does: str
    x: float
    y: float
    width: float


_HEIGHT = 46
ROOMS = (
    Room(10, "Engine", "scheduler, batches, preemption, sampling", 16, 40, 556),
    Room(9, "Copy-on-write", "sequences, forks", 25, 134, 114),
    Room(5, "Page table", "token → page, slot", 145, 134, 100),
    Room(4, "Page pool", "who owns a page", 251, 134, 100),
    Room(7, "Prefix cache", "pages found again", 357, 134, 108),
    Room(8, "Tenants", "walls inside it", 471, 134, 92),
    Room(2, "Naive cache", "the one we leave", 25, 234, 130),
    Room(3, "Pages", "K and V in slots", 161, 234, 130),
    Room(6, "Paged attention", "reads by the table", 297, 234, 130),
    Room(12, "Kernel", "the same, compiled", 433, 234, 130),
    Room(1, "Attention", "why it needs a cache", 606, 134, 122),
    Room(13, "Real models", "unmodified", 606, 234, 122),
    Room(11, "Measuring it", "events, metrics, simulations", 16, 308, 556),
    Room(14, "vLLM, SGLang", "from here to there", 596, 308, 142),
    Room(15, "Layers of several kinds", "a table for each group, one pool", 25, 398, 230),
    Room(16, "Pages of fewer bits", "more tokens in the same bytes", 261, 398, 230),
    Room(17, "A second tier", "and a second machine", 497, 398, 232),
)


def system_map(lit: int | str | None = None) -> Picture:
    """Draw the map. `lit` is a chapter's number, or the name of its room; None lights nothing and shows all built.

    Raises ValueError when there is no such room.
    """
    room = None if lit is None else _find(lit)
    chapter = 99 if room is None else room.chapter
    parts = [
        label(16, 16, "Requests", class_="b"),
        label(92, 16, "prompts in, tokens out", class_="d"),
        _band(16, 112, 556, "Bookkeeping decides", "integers only"),
        _band(16, 212, 556, "Storage obeys", "tensors"),
        _band(596, 112, 142, "The model", "q, k, v", 178),
        _band(16, 376, 722, "Memory since 2024", "what the newest models ask for"),
        _way(294, 24, 294, 38),
        _way(294, 88, 294, 110),
        _way(294, 190, 294, 210, "page ids, slots"),
        _way(573, 257, 595, 257),
        _way(595, 249, 573, 249),
    ]
    parts += [_draw(each, chapter) for each in ROOMS]
    return Picture("".join(parts), 754, 460, _describe(room))


def _find(lit: int | str) -> Room:
    for room in ROOMS:
        if lit == room.chapter or (isinstance(lit, str) and lit.lower() == room.name.lower()):
            return room
    names = ", ".join(f"{room.chapter} {room.name}" for room in sorted(ROOMS))
    raise ValueError(f"there is no room {lit!r} on the map; its rooms are {names}")


def _band(x: float, y: float, width: float, name: str, does: str, height: float = 78) -> str:
    return (
        rect(x, y, width, height, rx=8, class_="z")
        + label(x + 12, y + 12, name, class_="b s")
        + label(x + width - 12, y + 12, does, class_="e s d")
    )


def _way(x1: float, y1: float, x2: float, y2: float, words: str = "") -> str:
    """A short straight arrow."""
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    x, y = x2 - 6 * dx, y2 - 6 * dy
    head = path("M", x2, y2, "L", x - 4 * dy, y - 4 * dx, "L", x + 4 * dy, y + 4 * dx, "Z", class_="i")
    line = path("M", x1, y1, "L", x, y, class_="a")
    return line + head + (label(x1 + 10, (y1 + y2) / 2, words, class_="s d") if words else "")


def _draw(room: Room, chapter: int) -> str:
    lit, later = room.chapter == chapter, room.chapter > chapter
    middle = room.x + room.width / 2
    name = f"{room.chapter}  {room.name}"
    box = rect(room.x, room.y, room.width, _HEIGHT, rx=6, class_="t" if lit else "p c" if later else "p")
    ink = "x b" if lit else "d" if later else "b"
    words = label(middle, room.y + 16, name, class_=f"m {ink}")
    words += label(middle, room.y + 33, room.does, class_=f"m s {'x' if lit else 'd'}")
    return mark("a", box + words, data_chapter=room.chapter, aria_current="page" if lit else None)


def _describe(lit: Room | None) -> str:
    if lit is None:
        rooms = listed(f"{room.name} ({room.chapter})" for room in sorted(ROOMS))
        return f"Map of the whole system, with the chapter of each room: {rooms}."
    words = [f"Map of the system. Here: chapter {lit.chapter}, {lit.name}, {lit.does}."]
    built = [room.name for room in sorted(ROOMS) if room.chapter < lit.chapter]
    coming = [room.name for room in sorted(ROOMS) if room.chapter > lit.chapter]
    if built:
        words.append(f"Built already: {listed(built)}.")
    if coming:
        words.append(f"To come: {listed(coming)}.")
    return " ".join(words)
