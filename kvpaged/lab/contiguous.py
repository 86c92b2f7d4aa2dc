"""Memory as it was handed out before pages: one contiguous run of slots for each request, first fit."""

from collections.abc import Hashable
from typing import NamedTuple

from kvpaged.checks import positive_int


class NoContiguousSpace(RuntimeError):
    """No gap is long enough, whatever the gaps add up to."""


class Region(NamedTuple):
    """A run of slots that somebody holds."""

    start: int
    length: int
    owner: Hashable


class ContiguousAllocator:
    """A strip of slots in which each owner holds one contiguous run.

    The honest baseline of chapter 2. It places a run in the first gap that is long enough, joins the gaps of neighbours
    when a run is given back, and never moves a run: moving K and V costs their whole size in copies.
    """

    def __init__(self, num_slots: int) -> None:
        """Raises ValueError or TypeError if `num_slots` is not an int of at least 1."""
        self.num_slots = positive_int("num_slots", num_slots)
        self.regions: list[Region] = []  # in order of their start

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The free runs as (start, length), from the front."""
        ends = [0, *(region.start + region.length for region in self.regions)]
        starts = [*(region.start for region in self.regions), self.num_slots]
        return [(end, start - end) for end, start in zip(ends, starts, strict=True) if start > end]

    @property
    def num_free(self) -> int:
        """Free slots, in all gaps together."""
        return sum(length for _, length in self.gaps)

    @property
    def largest_free(self) -> int:
        """Slots in the longest gap: the longest run that can be allocated."""
        return max((length for _, length in self.gaps), default=0)

    def allocate(self, owner: Hashable, length: int) -> int:
        """Give `owner` a run of `length` slots; return where it starts.

        Raises NoContiguousSpace if no gap is that long, ValueError if the owner holds a run already.
        """
        positive_int("length", length)
        if any(region.owner == owner for region in self.regions):
            raise ValueError(f"{owner!r} holds a run already; release it first")
        for start, available in self.gaps:
            if available >= length:
                self.regions.append(Region(start, length, owner))
                self.regions.sort(key=lambda region: region.start)
                return start
        raise NoContiguousSpace(
            f"{owner!r} asks for {length} slots in a row: {self.num_free} are free, but the longest gap is "
            f"{self.largest_free}"
        )

    def release(self, owner: Hashable) -> None:
        """Take back the owner's run. Raises ValueError if it holds none."""
        kept = [region for region in self.regions if region.owner != owner]
        if len(kept) == len(self.regions):
            raise ValueError(f"{owner!r} holds no run")
        self.regions = kept
