"""The shape of a page, the same in every picture: a box of slots in rows of four, under its number and its owners."""

from collections.abc import Sequence
from itertools import pairwise

from kvpaged.figures.language import NEUTRAL, owner_colour, owner_name
from kvpaged.figures.page_view import PageView
from kvpaged.figures.svg import box, hatch, label, mark, path, rect, shortened, steps, text_width

_HEAD, _PAD = 18, 4
_NARROWEST = 50  # a number of two digits, a count of owners and a bookmark stand side by side


class PageShape:
    """Sizes of a page's box. Slots are small squares, or as wide as the words in them."""

    def __init__(self, page_size: int, slot_width: float = 15, slot_height: float = 13) -> None:
        self.page_size = page_size
        self.columns = min(4, page_size)
        self.slot_width = slot_width
        self.slot_height = slot_height
        self.width = max(_NARROWEST, self.columns * slot_width + 2 * _PAD)
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
        if page.moving:  # two arrows: bytes are on their way
            out, back = ("h", 6, "v", -3, "l", 4, 4.5, "h", -10), ("h", -6, "v", 3, "l", -4, -4.5, "h", 10)
            parts.append(path("M", right - 9, y + 7, *out, "M", right, y + 13, *back, class_="i"))
            right -= 13
        chips = [(owner_name(owner), owner_colour(owner)) for owner, use in page.uses.items() for _ in range(use.times)]
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
        """A slot has a band in the colour of each owner that has a token in it, pale where it is not computed.

        Slots in a row that look alike are drawn together: a book has many pages.
        """
        drawn, start = [], 0
        looks = [self._look(page, index) for index in range(self.page_size)]
        for stop in range(1, self.page_size + 1):
            if stop == self.page_size or looks[stop] != looks[start]:
                drawn.append(self._alike(x, y, page, start, stop))
                start = stop
        return "".join(drawn)

    def _look(self, page: PageView, index: int) -> tuple[object, ...]:
        users = [(owner, index < use.computed) for owner, use in page.uses.items() if index < use.tokens]
        return (*users, not users and index < page.cached)

    def _alike(self, x: float, y: float, page: PageView, start: int, stop: int) -> str:
        """Draw slots start to stop - 1, which look alike."""
        users = [(owner, start < use.computed) for owner, use in page.uses.items() if start < use.tokens]
        hatched = not users and start < page.cached
        if not users and page.unknown == page.ref_count:
            return self._filled(x, y, start, stop, NEUTRAL)
        if not users:
            boxes = mark("path", d=self._boxes(x, y, start, stop), class_="c")
            return self._hatched(x, y, start, stop) + boxes if hatched else boxes
        if len(users) == 1 and users[0][1]:
            return self._filled(x, y, start, stop, owner_colour(users[0][0]))
        drawn = []
        for number, (owner, computed) in enumerate(users):
            colour, places = owner_colour(owner), self._boxes(x, y, start, stop, number, len(users))
            drawn.append(mark("path", d=places, fill=colour, **({} if computed else {"class": "r", "stroke": colour})))
        return "".join(drawn)

    def _boxes(self, x: float, y: float, start: int, stop: int, band: int = 0, bands: int = 1) -> str:
        """Each slot, or the same one of several bands of each, as steps of a path."""
        width = (self.slot_width - 1) / bands
        places = [self.slot(x, y, index) for index in range(start, stop)]
        return "".join(box(left + 0.5 + band * width, top + 0.5, width, self.slot_height - 1) for left, top in places)

    def _rows(self, x: float, y: float, start: int, stop: int) -> list[tuple[float, float, int]]:
        """The rows of slots start to stop - 1: the corner of each, and how many slots it has."""
        firsts = [start, *range(start - start % self.columns + self.columns, stop, self.columns)]
        return [(*self.slot(x, y, one), after - one) for one, after in pairwise([*firsts, stop])]

    def _filled(self, x: float, y: float, start: int, stop: int, colour: str) -> str:
        """Slots in one colour: each row is one thick line, dashed between the slots."""
        middle = self.slot_height / 2
        lines = [
            steps("M", left + 0.5, top + middle, "h", n * self.slot_width - 1)
            for left, top, n in self._rows(x, y, start, stop)
        ]
        dashes = steps(self.slot_width - 1, 1)
        return mark("path", d="".join(lines), stroke=colour, stroke_width=self.slot_height - 1, stroke_dasharray=dashes)

    def _hatched(self, x: float, y: float, start: int, stop: int) -> str:
        rows = self._rows(x, y, start, stop)
        whole = [row for row in rows if row[2] == self.columns]
        parts = [(left, top, n, 1) for left, top, n in rows if n < self.columns]
        parts += [(*whole[0], len(whole))] if whole else []
        lines = [
            hatch(left + 0.5, top + 0.5, n * self.slot_width - 1, high * self.slot_height - 1)
            for left, top, n, high in parts
        ]
        return mark("path", d="".join(lines), class_="h")

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
