"""What happened to memory, in order. The log holds enough to rebuild every state the memory went through."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class EventKind(StrEnum):
    """What an event says; in brackets, which fields of `Event` it uses besides `sequence`.

    Rooms above add kinds of their own: the log takes any word.
    """

    BEGIN = "begin"  # a sequence starts [tokens: its prompt; number: how many of them the prefix cache knew]
    SHARE = "share"  # it becomes one more owner of pages that the prefix cache holds [pages]
    ALLOCATE = "allocate"  # it becomes the first owner of free pages, at the end of its table [pages]
    COPY = "copy"  # it swaps a shared page for a private copy of it [pages: source, target; number: slots copied]
    APPEND = "append"  # one more token has a slot [tokens]
    COMPUTE = "compute"  # K and V are stored for its first `number` tokens [number]
    FORK = "fork"  # a child becomes one more owner of all its pages [pages; number: the child's id]
    TRUNCATE = "truncate"  # it forgets its tail and gives pages back [pages; number: tokens kept]
    RELEASE = "release"  # it ends and gives its pages back [pages]
    INSERT = "insert"  # the prefix cache becomes one more owner [pages; number: tokens in them, all full but the last]
    EVICT = "evict"  # the prefix cache gives pages back [pages]


class Event(NamedTuple):
    """One thing that happened. Fields an event does not use are empty."""

    kind: str
    sequence: int | None = None
    pages: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    number: int = 0


class EventLog:
    """Events in the order in which they happened; a log that is not recording stays empty and costs nothing."""

    __slots__ = ("_events", "recording")

    def __init__(self, recording: bool = True) -> None:
        self.recording = recording
        self._events: list[tuple[str, int | None, tuple[int, ...], tuple[int, ...], int]] = []

    def add(
        self,
        kind: str,
        sequence: int | None = None,
        pages: tuple[int, ...] = (),
        tokens: tuple[int, ...] = (),
        number: int = 0,
    ) -> None:
        """Write one event down, if the log is recording."""
        if self.recording:
            self._events.append((kind, sequence, pages, tokens, number))  # an Event costs four times as much to make

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return map(Event._make, self._events)

    def __getitem__(self, index: int) -> Event:
        return Event._make(self._events[index])

    def __repr__(self) -> str:
        return f"EventLog({len(self)} events{'' if self.recording else ', not recording'})"
