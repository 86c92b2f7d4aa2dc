"""What happened to memory, in order: a log that can be saved, and from which every state can be rebuilt."""

import json
from collections.abc import Callable, Iterator
from operator import index
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from kvpaged.wording import count_of

FORMAT, VERSION = "kvpaged event log", 2


class EventKind:
    """The words for what an event says; in brackets, which fields of `Event` it uses besides `sequence`.

    Plain strings: to look up an Enum's member would cost as much as to write the event down. Rooms above add kinds of
    their own: the log takes any word.
    """

    BEGIN = "begin"  # a sequence starts [tokens: its prompt; number: how many of them the prefix cache knew]
    SHARE = "share"  # it becomes one more owner of pages that the prefix cache holds [pages]
    ALLOCATE = "allocate"  # it becomes the first owner of free pages, at the end of its table [pages]
    COPY = "copy"  # it swaps a shared page for a private copy of it [pages: source, target; number: slots copied]
    APPEND = "append"  # one more token has a slot [tokens]
    COMPUTE = "compute"  # K and V are stored for its first `number` tokens [number]
    FORK = "fork"  # a child becomes one more owner of all its pages [pages; number: the child's id]
    TRUNCATE = "truncate"  # it forgets its tail and gives pages back [pages; number: tokens kept]
    GIVE_BACK = "give back"  # it lives on without these pages of its table: the null page stands for them [pages]
    RELEASE = "release"  # it ends and gives its pages back [pages]
    INSERT = "insert"  # the prefix cache becomes one more owner [pages; number: tokens in them, all full but the last]
    EVICT = "evict"  # the prefix cache gives pages back [pages]
    TRANSFER = "transfer"  # a transfer becomes one more owner of pages, or gives them back [pages; number: 1, or 0]
    SET_ASIDE = "set aside"  # the null page is named: it stands in tables where there is no page [pages]
    SALVAGE = "salvage"  # after an interrupt everybody gives everything back; what is kept then begins anew []


Fields = tuple[str, int | None, tuple[int, ...], tuple[int, ...], int]


class Event(NamedTuple):
    """One thing that happened. Fields an event does not use are empty."""

    kind: str
    sequence: int | None = None
    pages: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    number: int = 0


class EventLog:
    """Events in the order in which they happened; a log that is not recording stays empty and costs nothing.

    listeners: called with each event as it happens, a plain tuple of `Event`'s fields. (An Event costs four times as
    much to make, and most listeners want a field or two.) None may raise: it is called in the middle of an operation. A
    log that is recording is its own first listener.
    about: what a reader of a saved log needs beside the events, as JSON. The cache says `page_size` and `num_pages`;
    `words`, from token ids (as strings) to texts, is added where they are known.
    """

    __slots__ = ("_events", "about", "listeners")

    def __init__(self, recording: bool = True) -> None:
        self._events: list[Fields] = []
        self.listeners: list[Callable[[Fields], object]] = [self._events.append] if recording else []
        self.about: dict[str, Any] = {}

    @property
    def recording(self) -> bool:
        """Whether events are written down."""
        return self._events.append in self.listeners

    def add(
        self,
        kind: str,
        sequence: int | None = None,
        pages: tuple[int, ...] = (),
        tokens: tuple[int, ...] = (),
        number: int = 0,
    ) -> None:
        """Tell the listeners of one event."""
        for listener in self.listeners:
            listener((kind, sequence, pages, tokens, number))

    def save(self, path: str | Path) -> None:
        """Write the log to a file: a line of JSON that says what it is, then a line for each event."""
        lines = "".join(f"{json.dumps(event, default=index)}\n" for event in self._events).encode()
        header = {"format": FORMAT, "version": VERSION, "about": self.about, "crc32": _checksum(self.about, lines)}
        Path(path).write_bytes(json.dumps(header).encode() + b"\n" + lines)

    @classmethod
    def load(cls, path: str | Path) -> "EventLog":
        """Read a log that `save` wrote. Raises ValueError for any other file, OSError for one that cannot be read."""
        first, _, lines = Path(path).read_bytes().partition(b"\n")
        try:
            header = json.loads(first)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"{path} is no event log: give a file that EventLog.save wrote")
        if header.get("version") != VERSION:
            version = header.get("version")
            raise ValueError(
                f"{path} is an event log of version {version!r}, and this kvpaged reads version {VERSION}: "
                "record it again"
            )
        about = header.get("about")
        if not isinstance(about, dict) or header.get("crc32") != _checksum(about, lines):
            raise ValueError(f"{path} is damaged: its events are not those that were saved; save the log again")
        log = cls()
        log.about = about
        for line in lines.splitlines():
            kind, sequence, pages, tokens, number = json.loads(line)
            log.add(kind, sequence, tuple(pages), tuple(tokens), number)
        return log

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return map(Event._make, self._events)

    def __getitem__(self, index: int) -> Event:
        return Event._make(self._events[index])

    def __repr__(self) -> str:
        return f"EventLog({count_of(len(self), 'event')}{'' if self.recording else ', not recording'})"


def _checksum(about: dict[str, Any], lines: bytes) -> int:
    return crc32(lines, crc32(json.dumps(about).encode()))
