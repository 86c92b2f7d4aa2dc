"""The same requests in one strip of memory and in pages, moment by moment: where the one fails, the other need not."""

from collections.abc import Iterable
from typing import NamedTuple

from kvpaged.cache import PagedKVCache
from kvpaged.figures.contiguous_map import contiguous_map
from kvpaged.figures.language import listed, owner_colour, pages_named
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_view import pages_of_cache
from kvpaged.figures.player_shell import player_html
from kvpaged.lab.contiguous import ContiguousAllocator, NoContiguousSpace
from kvpaged.page_pool import OutOfPages
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of


class Arrive(NamedTuple):
    """A request arrives with `tokens`, and may grow to `max_tokens`: contiguous memory reserves that many."""

    owner: str
    tokens: int
    max_tokens: int


class Grow(NamedTuple):
    """A request that runs gets more tokens."""

    owner: str
    tokens: int


class Leave(NamedTuple):
    """A request ends and gives its memory back."""

    owner: str


class ContiguousPlayer:
    """A player in which contiguous allocation and paging serve the same requests, with the same number of slots.

    A request that does not fit waits, and is tried again whenever another leaves.
    """

    def __init__(self, steps: Iterable[Arrive | Grow | Leave], num_slots: int, page_size: int) -> None:
        """Raises ValueError when `num_slots` is no multiple of `page_size`, or a step names an owner never seen."""
        if num_slots % page_size:
            raise ValueError(f"{num_slots} slots are no whole number of pages of {page_size}; take a multiple")
        self.page_size = page_size
        self.strip = ContiguousAllocator(num_slots)
        self.cache = PagedKVCache(num_slots // page_size, page_size, prefix_caching=False)
        self.lengths: dict[str, int] = {}
        self.max_tokens: dict[str, int] = {}
        self.sequences: dict[str, Sequence] = {}
        self.waiting: list[str] = []  # for a piece of the strip
        self.waiting_for_pages: list[str] = []
        self.frames = [self._frame("Nothing has happened yet: both memories are empty.")]
        self.stops: list[int] = []
        for step in steps:
            failures = len(self.waiting) + len(self.waiting_for_pages)
            sentence = self._take(step)
            if len(self.waiting) + len(self.waiting_for_pages) > failures:
                self.stops.append(len(self.frames))
            self.frames.append(self._frame(sentence))

    def _take(self, step: Arrive | Grow | Leave) -> str:
        owner = step.owner
        if isinstance(step, Arrive):
            self.lengths[owner], self.max_tokens[owner] = step.tokens, step.max_tokens
            arrival = f"{owner} arrives with {count_of(step.tokens, 'token')} and may grow to {step.max_tokens}."
            return f"{arrival} {self._place(owner)} {self._page(owner)}"
        if owner not in self.lengths:
            raise ValueError(f"{owner} has not arrived; begin with Arrive({owner!r}, ...)")
        if isinstance(step, Grow):
            self.lengths[owner] += step.tokens
            if self.lengths[owner] > self.max_tokens[owner]:
                raise ValueError(f"{owner} has {self.lengths[owner]} tokens, more than its {self.max_tokens[owner]}")
            sequence = self.sequences.get(owner)
            before = len(sequence.table.page_ids) if sequence else 0
            for _ in range(step.tokens if sequence else 0):
                self.sequences[owner].append(0)
            taken = sequence.table.page_ids[before:] if sequence else []
            reserve = "it waits still" if owner in self.waiting else "there is room in what it reserved"
            pages = f"it takes {pages_named(taken)}" if taken else "there is room in its last page"
            pages = pages if sequence else "it waits still"
            return f"{owner} gets {count_of(step.tokens, 'more token')}. Contiguous: {reserve}. Paged: {pages}."
        return self._leave(owner)

    def _leave(self, owner: str) -> str:
        words = [f"{owner} ends and gives its memory back."]
        if owner in self.waiting:
            self.waiting.remove(owner)
        else:
            self.strip.release(owner)
        if owner in self.sequences:
            self.sequences.pop(owner).release()
        else:
            self.waiting_for_pages.remove(owner)
        waiting, self.waiting = self.waiting, []
        words += [self._place(each) for each in waiting]
        waiting, self.waiting_for_pages = self.waiting_for_pages, []
        words += [self._page(each) for each in waiting]
        return " ".join(words)

    def _place(self, owner: str) -> str:
        wanted, strip = self.max_tokens[owner], self.strip
        try:
            start = strip.allocate(owner, wanted)
        except NoContiguousSpace:
            self.waiting.append(owner)
            return (
                f"Contiguous: it needs {wanted} slots in one piece; {strip.num_free} are free, but the largest gap "
                f"has {strip.largest_free}. {owner} waits."
            )
        return f"Contiguous: {owner} reserves slots {start}–{start + wanted - 1}."

    def _page(self, owner: str) -> str:
        try:
            self.sequences[owner] = self.cache.sequence(range(self.lengths[owner]))
        except OutOfPages:
            self.waiting_for_pages.append(owner)
            return f"Paged: the free pages do not suffice. {owner} waits."
        return f"Paged: {owner} takes {pages_named(self.sequences[owner].table.page_ids)}."

    def _frame(self, sentence: str) -> tuple[str, list[object], list[object], str, str]:
        """What happened, the regions, the tables, and a line about each memory."""
        for sequence in self.sequences.values():
            sequence.mark_computed()
        regions: list[object] = [
            (region.start, region.length, self.lengths[str(region.owner)], str(region.owner))
            for region in self.strip.regions
        ]
        tables: list[object] = [
            (owner, list(sequence.table.page_ids), len(sequence)) for owner, sequence in self.sequences.items()
        ]
        filled = sum(self.lengths[str(region.owner)] for region in self.strip.regions)
        reserved = self.strip.num_slots - self.strip.num_free
        contiguous = f"Contiguous: {reserved} of {self.strip.num_slots} slots reserved, {filled} filled."
        used = self.cache.pool.num_used * self.page_size
        in_pages = sum(map(len, self.sequences.values()))
        paged = f"Paged: {used} of {self.strip.num_slots} slots in used pages, {in_pages} filled."
        return sentence, regions, tables, contiguous + _waits(self.waiting), paged + _waits(self.waiting_for_pages)

    def _repr_html_(self) -> str:
        data: dict[str, object] = {
            "size": self.page_size,
            "slots": self.strip.num_slots,
            "total": self.cache.pool.num_pages,
            "owners": {owner: (owner, owner_colour(owner)) for owner in self.lengths},
            "stops": self.stops,
            "opening": self.stops[0] if self.stops else len(self.frames) - 1,
            "frames": self.frames,
        }
        names = {sequence.id: owner for owner, sequence in self.sequences.items()}
        strip = contiguous_map(self.strip, used={**self.lengths})._repr_html_()
        pages = draw_pages(pages_of_cache(self.cache, names), self.page_size)._repr_html_()
        _, _, _, contiguous, paged = self.frames[-1]
        frame = f"{strip}<p>{contiguous}</p>{pages}<p>{paged}</p>"
        return player_html(repr(self), data, self.frames[-1][0], frame)

    def __repr__(self) -> str:
        _, _, _, contiguous, paged = self.frames[-1]
        steps = count_of(len(self.frames) - 1, "step")
        return f"Player: {steps}, contiguous beside paged. At the end: {contiguous} {paged}"


def _waits(owners: list[str]) -> str:
    return f" {listed(owners)} {'waits' if len(owners) == 1 else 'wait'}." if owners else ""
