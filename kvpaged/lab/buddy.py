"""Contiguous memory in powers of two, the buddy system: so the baselines of the PagedAttention paper place K and V."""

from collections.abc import Hashable

from kvpaged.checks import positive_int
from kvpaged.lab.contiguous import NoContiguousSpace, Region


class BuddyAllocator:
    """A strip of slots in which each owner holds one run, whose length is a power of two and divides its start.

    A request is rounded up. A run is cut from the smallest free one that is long enough, by halving; when it comes back
    it is joined with its buddy, the other half, if that is free too, and so on (Knowlton 1965; Wilson et al. 1995).
    So what is free is always in as few runs as these rules allow.
    """

    def __init__(self, num_slots: int) -> None:
        """Raises ValueError or TypeError if `num_slots` is not an int of at least 1."""
        self.num_slots = positive_int("num_slots", num_slots)
        self.num_free = num_slots
        self._runs: dict[Hashable, tuple[int, int]] = {}  # owner -> start, order: a run of order k has 2**k slots
        self._free: list[set[int]] = [set() for _ in range(num_slots.bit_length())]  # by order, the starts
        start = 0
        while start < num_slots:
            order = (num_slots - start).bit_length() - 1
            if start:
                order = min(order, (start & -start).bit_length() - 1)
            self._free[order].add(start)
            start += 1 << order

    @property
    def regions(self) -> list[Region]:
        """Who holds what, in order of the start."""
        return sorted(Region(start, 1 << order, owner) for owner, (start, order) in self._runs.items())

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The free runs as (start, length), from the front. Neighbours that are not buddies stay apart."""
        return sorted((start, 1 << order) for order, starts in enumerate(self._free) for start in starts)

    @property
    def largest_free(self) -> int:
        """Slots in the longest free run: the longest that can be allocated."""
        return max((1 << order for order, starts in enumerate(self._free) if starts), default=0)

    def fits(self, length: int) -> bool:
        """Whether a run of `length` slots can be allocated now."""
        return any(self._free[order_of(length) :])

    def allocate(self, owner: Hashable, length: int) -> int:
        """Give `owner` a run of at least `length` slots; return where it starts.

        Raises NoContiguousSpace if no free run is long enough, ValueError if the owner holds a run already.
        """
        wanted = order_of(positive_int("length", length))
        if owner in self._runs:
            raise ValueError(f"{owner!r} holds a run already; release it first")
        order = next((order for order in range(wanted, len(self._free)) if self._free[order]), None)
        if order is None:
            raise NoContiguousSpace(
                f"{owner!r} asks for {length} slots in a row, rounded up to {1 << wanted}: {self.num_free} are free, "
                f"but the longest run is {self.largest_free}"
            )
        start = min(self._free[order])
        self._free[order].remove(start)
        while order > wanted:
            order -= 1
            self._free[order].add(start + (1 << order))
        self._runs[owner] = start, order
        self.num_free -= 1 << order
        return start

    def release(self, owner: Hashable) -> None:
        """Take back the owner's run, and join it with its buddies. Raises ValueError if it holds none."""
        if owner not in self._runs:
            raise ValueError(f"{owner!r} holds no run")
        start, order = self._runs.pop(owner)
        self.num_free += 1 << order
        while order + 1 < len(self._free) and (buddy := start ^ (1 << order)) in self._free[order]:
            self._free[order].remove(buddy)
            start = min(start, buddy)
            order += 1
        self._free[order].add(start)


def order_of(length: int) -> int:
    """The smallest k with 2**k >= length."""
    return (length - 1).bit_length()
