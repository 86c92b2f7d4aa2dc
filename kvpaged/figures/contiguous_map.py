"""One strip of memory in which each request needs a piece in one piece: allocations, and the gaps between them."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

from kvpaged.figures.language import Owner, owner_colour, owner_name
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label, rect, text_width
from kvpaged.wording import count_of

_WIDTH, _HEIGHT = 740, 44


class Strip(Protocol):
    """What is asked of an allocator (`kvpaged.lab.contiguous.ContiguousAllocator` is one)."""

    num_slots: int

    @property
    def regions(self) -> Iterable[tuple[int, int, Hashable]]:
        """Each allocation: where it starts, how long it is, whose it is."""


def contiguous_map(memory: Strip, *, used: Mapping[Any, int] | None = None, wanted: int | None = None) -> Picture:
    """Draw the strip. `used` says how many slots of its piece an owner has filled (all, if it says nothing).

    `wanted` is a request that looks for a gap: the picture says whether one is large enough.
    """
    regions = sorted((start, length, _owner(owner)) for start, length, owner in memory.regions)
    scale = _WIDTH / memory.num_slots
    filled = dict(used or {})
    drawn, sentences, gaps, at = [], [], [], 0
    for start, length, owner in [*regions, (memory.num_slots, 0, "")]:
        if start > at:
            gaps.append(start - at)
            drawn.append(_gap(2 + at * scale, (start - at) * scale, start - at))
            sentences.append(f"{count_of(start - at, 'slot')} free")
        if length:
            full = filled.get(owner, length)
            drawn.append(_piece(2 + start * scale, length * scale, full * scale, owner, full, length))
            spare = f", {length - full} of them reserved and empty" if full < length else ""
            sentences.append(f"{owner_name(owner)} has {count_of(length, 'slot')} from slot {start}{spare}")
        at = start + length
    alt = f"One strip of {count_of(memory.num_slots, 'slot')}: {'; '.join(sentences)}."
    height = 2 + _HEIGHT + 20
    drawn.append(label(2, height - 8, "slot 0", class_="s d"))
    drawn.append(label(2 + _WIDTH, height - 8, str(memory.num_slots), class_="e s d"))
    if wanted is not None:
        largest = max(gaps, default=0)
        verdict = "fits" if wanted <= largest else "fits nowhere"
        sentence = f"A request for {count_of(wanted, 'slot')} {verdict}: "
        sentence += f"{sum(gaps)} free, {largest} in the largest gap."
        drawn.append(rect(2, height, wanted * scale, 20, class_="r", stroke="currentColor", fill="currentColor"))
        drawn.append(label(8, height + 10.5, f"wanted: {wanted}", class_="s b"))
        drawn.append(label(2, height + 34, sentence))
        height += 46
        alt += " " + sentence
    return Picture("".join(drawn), _WIDTH + 4, height, alt)


def _owner(owner: Hashable) -> Owner:
    return owner if isinstance(owner, int) else str(owner)


def _piece(x: float, width: float, filled: float, owner: Owner, used: int, length: int) -> str:
    colour = owner_colour(owner)
    parts = [rect(x, 2, width, _HEIGHT, fill=colour, class_="r", stroke=colour)]
    parts.append(rect(x, 2, filled, _HEIGHT, fill=colour))
    parts.append(rect(x, 2, width, _HEIGHT, class_="n", stroke="currentColor", stroke_width=1.2))
    name = owner_name(owner)
    if text_width(name) + 2 < filled:
        parts.append(label(x + filled / 2, 18, name, class_="m b o"))
    numbers = str(length) if used == length else f"{used} of {length}"
    if text_width(numbers, 10) + 2 < filled:
        parts.append(label(x + filled / 2, 34, numbers, class_="m s o"))
    return "".join(parts)


def _gap(x: float, width: float, slots: int) -> str:
    parts = rect(x, 2, width, _HEIGHT, class_="f")
    if text_width(str(slots), 10) + 2 < width:
        parts += label(x + width / 2, 24, f"{slots} free" if width > 50 else str(slots), class_="m s d")
    return parts
