"""The contiguous allocator of chapter 2."""

import pytest

from kvpaged.lab.contiguous import ContiguousAllocator, NoContiguousSpace, Region


def test_runs_are_placed_in_the_first_gap_that_is_long_enough() -> None:
    memory = ContiguousAllocator(10)
    assert [memory.allocate("A", 3), memory.allocate("B", 2), memory.allocate("C", 3)] == [0, 3, 5]
    memory.release("A")
    assert memory.allocate("D", 2) == 0
    assert memory.regions == [Region(0, 2, "D"), Region(3, 2, "B"), Region(5, 3, "C")]
    assert memory.gaps == [(2, 1), (8, 2)]


def test_enough_free_slots_in_pieces_are_not_enough() -> None:
    memory = ContiguousAllocator(9)
    for owner in "ABC":
        memory.allocate(owner, 3)
    memory.release("A")
    memory.release("C")
    with pytest.raises(NoContiguousSpace, match="'D' asks for 6 slots in a row: 6 are free, but the longest gap is 3"):
        memory.allocate("D", 6)
    memory.release("B")
    assert (memory.num_free, memory.largest_free) == (9, 9)
    assert memory.allocate("D", 6) == 0


def test_an_owner_holds_one_run() -> None:
    memory = ContiguousAllocator(4)
    memory.allocate("A", 1)
    with pytest.raises(ValueError, match="'A' holds a run already"):
        memory.allocate("A", 1)
    with pytest.raises(ValueError, match="'B' holds no run"):
        memory.release("B")
    with pytest.raises(ValueError, match="length is 0"):
        memory.allocate("B", 0)
