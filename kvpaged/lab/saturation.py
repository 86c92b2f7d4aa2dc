"""How much of the memory holds anything, when more requests wait than it can take: Figures 2 and 13 of the paper.

Bookkeeping alone: no model, no bytes, no clock. In a step each running request generates a token; who is done leaves,
and who waits is let in, first come, first served, as long as there is room. Kwon et al. 2023, sections 3 and 6.1.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import count
from typing import NamedTuple, Protocol

from kvpaged.cache import PagedKVCache
from kvpaged.lab.buddy import BuddyAllocator, order_of
from kvpaged.lab.published import LONGEST
from kvpaged.page_pool import OutOfPages
from kvpaged.page_table import pages_for
from kvpaged.sequence import Sequence


class Job(NamedTuple):
    """A request that waits, in tokens."""

    known: int  # the prompt, and what it had generated before it had to go
    final: int  # tokens that will have a slot at its end: the last token generated needs none


class Room(Protocol):
    """The memory of one running request."""

    @property
    def held(self) -> int:
        """Slots that nobody else can have, with a token or not."""

    def grow(self) -> bool:
        """Take one token more; False if there is no room."""

    def leave(self) -> None:
        """Give everything back."""


class Memory(Protocol):
    """A way to give requests room."""

    num_slots: int

    def admit(self, job: Job) -> Room | None:
        """Give a request room for what is known of it; None if there is none."""


class Reserving:
    """One contiguous run for each request, reserved when it is let in, placed by a buddy allocator."""

    def __init__(self, num_slots: int, reserve: Callable[[Job], int]) -> None:
        """`reserve` says how many slots a request gets."""
        self.num_slots = num_slots
        self.reserve = reserve
        self.allocator = BuddyAllocator(num_slots)
        self._owners = count()

    def admit(self, job: Job) -> Room | None:
        """Reserve a run, if there is one."""
        length = self.reserve(job)
        if not self.allocator.fits(length):
            return None
        owner = next(self._owners)
        self.allocator.allocate(owner, length)
        return _Run(self.allocator, owner, 1 << order_of(length))


class _Run:
    def __init__(self, allocator: BuddyAllocator, owner: int, held: int) -> None:
        self.allocator = allocator
        self.owner = owner
        self.held = held

    def grow(self) -> bool:
        return True

    def leave(self) -> None:
        self.allocator.release(self.owner)


def orca_max(job: Job) -> int:
    """Reserve for the longest request there may be."""
    return LONGEST


def orca_pow2(job: Job) -> int:
    """Guess the output's length, too high by less than a factor of two: the next power of two. 25 reserves 32."""
    output = job.final + 1 - job.known
    return job.known + (1 << order_of(output))


def orca_oracle(job: Job) -> int:
    """Know the output's length: what nobody can."""
    return job.final


class Paging:
    """Pages, one at a time, as they are needed."""

    def __init__(self, num_slots: int, page_size: int) -> None:
        self.num_slots = num_slots
        self.cache = PagedKVCache(num_slots // page_size, page_size, prefix_caching=False)

    def admit(self, job: Job) -> Room | None:
        """Begin a sequence, if there are pages for what is known."""
        if pages_for(job.known, self.cache.page_size) > self.cache.pool.num_free:
            return None
        return PagedRoom(self.cache.sequence([0] * job.known))


class PagedRoom:
    """The pages of one running request: one more when the last is full."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence

    @property
    def held(self) -> int:
        """Slots of its pages."""
        table = self.sequence.table
        return len(table.page_ids) * table.page_size

    def grow(self) -> bool:
        """Take a slot, and a page if there is none left; False if no page is free."""
        try:
            self.sequence.append(0)
        except OutOfPages:
            return False
        return True

    def leave(self) -> None:
        """Give the pages back."""
        self.sequence.release()


@dataclass
class Occupancy:
    """Averages over steps. The first four are shares of all slots, and add up to 1."""

    filled: float = 0.0  # hold a token
    reserved: float = 0.0  # held by a request that will fill them later
    never_filled: float = 0.0  # held by a request that will not: internal fragmentation
    not_given: float = 0.0  # nobody's, though requests wait: external fragmentation, and what is left over
    running: float = 0.0  # requests at once
    steps: int = 0
    preemptions: int = 0


class _Running(NamedTuple):
    job: Job
    room: Room


def serve(memory: Memory, lengths: Iterable[tuple[int, int]]) -> Occupancy:
    """Serve requests of these prompt and output lengths, all waiting from the start.

    Averages are over the steps in which somebody still waits, from the first departure on: before, the memory fills up;
    behind, it empties. When it runs out, who came last gives way and begins again later with all that it knows.
    Raises ValueError for a request that the memory cannot take even when it is empty.
    """
    waiting = deque(Job(prompt, prompt + output - 1) for prompt, output in lengths)
    for job in waiting:
        if job.final > memory.num_slots:
            raise ValueError(_too_long(job, memory))
    running: list[_Running] = []
    tokens: list[int] = []  # that each of the running has slots for
    totals, departed = Occupancy(), False
    while waiting:
        room_for_more = grow_all(running, tokens, waiting, totals)
        while room_for_more and waiting and (room := memory.admit(waiting[0])) is not None:
            running.append(_Running(waiting.popleft(), room))
            tokens.append(running[-1].job.known)
        if not running:
            raise ValueError(_too_long(waiting[0], memory))
        if departed and waiting:
            _count(running, tokens, memory.num_slots, totals)
        for index in reversed(range(len(running))):
            if tokens[index] == running[index].job.final:
                running.pop(index).room.leave()
                tokens.pop(index)
                departed = True
    for field in fields(totals)[:5]:
        setattr(totals, field.name, getattr(totals, field.name) / max(1, totals.steps))
    return totals


def _too_long(job: Job, memory: Memory) -> str:
    return f"a request of {job.final} tokens does not fit into {memory.num_slots} slots; give it more, or leave it out"


def grow_all(running: list[_Running], tokens: list[int], waiting: deque[Job], totals: Occupancy) -> bool:
    """Give each a slot for the token that it generated last; return whether nobody had to go."""
    index, preemptions = 0, 0
    while index < len(running):
        if running[index].room.grow():
            tokens[index] += 1
            index += 1
            continue
        last = running.pop()
        last.room.leave()
        # The last has not grown in this step: its newest token is known, and has no slot yet.
        waiting.appendleft(Job(tokens.pop() + 1, last.job.final))
        preemptions += 1
    totals.preemptions += preemptions
    return not preemptions


def _count(running: list[_Running], tokens: list[int], num_slots: int, totals: Occupancy) -> None:
    filled = reserved = held = 0
    for (job, room), length in zip(running, tokens, strict=True):
        filled += length
        reserved += min(room.held, job.final) - length
        held += room.held
    totals.steps += 1
    totals.running += len(running)
    totals.filled += filled / num_slots
    totals.reserved += reserved / num_slots
    totals.never_filled += (held - filled - reserved) / num_slots
    totals.not_given += 1 - held / num_slots
