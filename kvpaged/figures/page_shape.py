"""The shape of a page, the same in every picture: a box of slots in rows of four, under its number and its owners."""

from collections.abc import Sequence

from kvpaged.figures.language import NEUTRAL, owner_colour, owner_name
from kvpaged.figures.page_view import PageView
from kvpaged.figures.svg import box, hatch, label, mark, path, rect, shortened, text_width

_HEAD, _PAD = 18, 4


class PageShape:
    """Sizes of a page's box. Slots are small squares, or as wide as the words in them."""

    def __init__(self, page_size: int, slot_width: float = 15, slot_height: float = 13) -> None:
        self.page_size = page_size
        self.columns = min(4, page_size)
        self.slot_width = slot_width
        self.slot_height = slot_height
        self.width = self.columns * slot_width + 2 * _PAD
        self.height = _HEAD + -(-page_size // self.columns) * slot_height + _PAD

    def slot(self, x: float, y: float, index: int) -> tuple[float, float]:
        """Return the top left corner of a slot, in a page whose corner is (x, y)."""
        row, column = divmod(index, self.columns)
        return x + _PAD + column * self.slot_width, y + _HEAD + row * self.slot_height

    def draw(self, x: float, y: float, page: PageView, words: Sequence[str] = ()) -> str:
        """Draw a page; `words` stand in its first slots."""
        if page.free:
            return rect(x, y, self.width, self.height, rx=4, class_="f") + label(
                x + 5, y + 10, str(page.page_id), class_="d s"
            )
        parts = [rect(x, y, self.width, self.height, rx=4, class_="p")]
        parts.append(label(x + 5, y + 10, str(page.page_id), class_="b s"))
        parts.append(self._owners(x, y, page))
        parts.append(self._slots(x, y, page))
        parts += [self._word(x, y, page, index, word) for index, word in enumerate(words)]
        return "".join(parts)

    def _owners(self, x: float, y: float, page: PageView) -> str:
        """Chips from the right: the prefix cache's bookmark, then owners by name as far as there is room."""
        parts, right = [], x + self.width - 4
        left = x + 8 + text_width(str(page.page_id), 10)
        if page.cached:
            parts.append(path("M", right - 7, y + 4, "h", 7, "v", 11, "l", -3.5, -3, "l", -3.5, 3, "z", class_="i"))
            right -= 10
        chips = [(owner_name(owner), owner_colour(owner)) for owner in page.uses]
        if page.unknown > 0:
            chips.append((f"+{page.unknown}" if chips or page.cached else f"×{page.unknown}", NEUTRAL))
        widths = [text_width(name, 10) + 4 for name, _ in chips]
        if right - sum(widths) - len(widths) < left and len(chips) > 1:
            chips = [(f"{len(chips)} owners" if self.width > 100 else f"×{len(chips)}", NEUTRAL)]
            widths = [text_width(chips[0][0], 10) + 4]
        for (name, colour), width in zip(reversed(chips), reversed(widths), strict=True):
            right -= width
            parts.append(rect(right, y + 3.5, width, 12, rx=3, fill=colour))
            parts.append(label(right + width / 2, y + 10, name, class_="m s o b"))
            right -= 1
        return "".join(parts)

    def _slots(self, x: float, y: float, page: PageView) -> str:
        """A slot has a band in the colour of each owner that has a token in it, pale where it is not computed."""
        width, height = self.slot_width - 1, self.slot_height - 1
        boxes: dict[tuple[str, str], list[str]] = {}
        hatches = []
        for index in range(self.page_size):
            left, top = self.slot(x, y, index)
            users = [(owner, index < use.computed) for owner, use in page.uses.items() if index < use.tokens]
            band = width / max(1, len(users))
            for number, (owner, computed) in enumerate(users):
                place = box(left + 0.5 + number * band, top + 0.5, band, height)
                boxes.setdefault(("" if computed else "r", owner_colour(owner)), []).append(place)
            if users:
                continue
            if index < page.cached:
                hatches.append(hatch(left + 0.5, top + 0.5, width, height))
            if page.unknown == page.ref_count:
                boxes.setdefault(("", NEUTRAL), []).append(box(left + 0.5, top + 0.5, width, height))
            else:
                boxes.setdefault(("c", ""), []).append(box(left + 0.5, top + 0.5, width, height))
        drawn = []
        for (kind, colour), places in boxes.items():
            paint = {"fill": colour, "stroke": colour if kind else None} if colour else {}
            drawn.append(mark("path", d="".join(places), class_=kind or None, **paint))
        return "".join(drawn) + (mark("path", d="".join(hatches), class_="h") if hatches else "")

    def _word(self, x: float, y: float, page: PageView, index: int, word: str) -> str:
        left, top = self.slot(x, y, index)
        covered = any(index < use.computed for use in page.uses.values())
        parts = []
        if not covered and index < page.cached:  # words are not read through a hatch
            parts.append(rect(left + 3, top + 3, self.slot_width - 6, self.slot_height - 6, class_="w"))
        kind = "m o" if covered else "m"
        fitting = shortened(word, self.slot_width - 3, 11)
        parts.append(label(left + self.slot_width / 2, top + self.slot_height / 2, fitting, class_=kind, font_size=11))
        return "".join(parts)


def slot_width_for(words: Sequence[str]) -> float:
    """Return how wide slots must be for these words: all alike, at most 84."""
    return min(84.0, max([26.0, *(text_width(word, 11) + 8 for word in words)]))


def visible(word: str) -> str:
    """Show a token as a word: without the space before it, and with line ends that can be seen."""
    return word.strip(" ").replace("\n", "⏎").replace("\t", "⇥") or "␣"
