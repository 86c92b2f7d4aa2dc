"""The buddy allocator, beside one that looks at every slot."""

import random

import pytest

from kvpaged.lab.buddy import BuddyAllocator, order_of
from kvpaged.lab.contiguous import NoContiguousSpace, Region


class SlotBySlot:
    """The rules, read from a map of all slots: the free runs are the longest aligned ones, whoever was there before."""

    def __init__(self, num_slots: int) -> None:
        self.owner_of: list[object] = [None] * num_slots

    def free_runs(self) -> list[tuple[int, int]]:
        runs, start = [], 0
        while start < len(self.owner_of):
            length = 1
            while start % (2 * length) == 0 and self.is_free(start, 2 * length):
                length *= 2
            if self.is_free(start, length):
                runs.append((start, length))
            start += length
        return runs

    def is_free(self, start: int, length: int) -> bool:
        slots = self.owner_of[start : start + length]
        return len(slots) == length and not any(slots)

    def allocate(self, owner: object, length: int) -> int | None:
        rounded = 1
        while rounded < length:
            rounded *= 2
        fitting = [(size, start) for start, size in self.free_runs() if size >= rounded]
        if not fitting:
            return None
        _, start = min(fitting)
        self.owner_of[start : start + rounded] = [owner] * rounded
        return start

    def release(self, owner: object) -> None:
        self.owner_of = [None if each == owner else each for each in self.owner_of]


@pytest.mark.parametrize("num_slots", [1, 16, 48, 61, 100])
def test_it_places_frees_and_joins_as_the_slots_themselves_say(num_slots: int) -> None:
    fast, slow, rng, living = BuddyAllocator(num_slots), SlotBySlot(num_slots), random.Random(num_slots), []
    for owner in range(1, 300):
        if living and rng.random() < 0.45:
            gone = living.pop(rng.randrange(len(living)))
            fast.release(gone)
            slow.release(gone)
        else:
            length = rng.randint(1, max(1, num_slots // 3))
            expected = slow.allocate(owner, length)
            assert fast.fits(length) == (expected is not None)
            if expected is None:
                with pytest.raises(NoContiguousSpace):
                    fast.allocate(owner, length)
            else:
                assert fast.allocate(owner, length) == expected
                living.append(owner)
        assert fast.gaps == slow.free_runs()
        assert fast.num_free == slow.owner_of.count(None)
        assert fast.largest_free == max((length for _, length in slow.free_runs()), default=0)
        assert [region.owner for region in fast.regions] == list(dict.fromkeys(filter(None, slow.owner_of)))


def test_a_run_is_a_power_of_two_and_stands_at_a_multiple_of_it() -> None:
    memory = BuddyAllocator(32)
    assert [memory.allocate("A", 5), memory.allocate("B", 3), memory.allocate("C", 9)] == [0, 8, 16]
    assert memory.regions == [Region(0, 8, "A"), Region(8, 4, "B"), Region(16, 16, "C")]
    assert memory.gaps == [(12, 4)]
    memory.release("B")
    assert memory.gaps == [(8, 8)]
    memory.release("A")
    assert memory.gaps == [(0, 16)]


def test_it_says_what_was_rounded_and_what_is_free_and_changes_nothing() -> None:
    memory = BuddyAllocator(16)
    memory.allocate("A", 5)
    with pytest.raises(NoContiguousSpace, match="'B' asks for 9 slots in a row, rounded up to 16: 8 are free, but the"):
        memory.allocate("B", 9)
    with pytest.raises(ValueError, match="'A' holds a run already"):
        memory.allocate("A", 1)
    with pytest.raises(ValueError, match="'B' holds no run"):
        memory.release("B")
    with pytest.raises(ValueError, match="length is 0"):
        memory.allocate("B", 0)
    assert memory.regions == [Region(0, 8, "A")]


def test_order_of_is_the_next_power_of_two() -> None:
    assert [order_of(length) for length in (1, 2, 3, 4, 5, 25, 32, 33)] == [0, 1, 2, 2, 3, 5, 5, 6]
