"""A log played again: the state of the memory after each of its events, rebuilt from the log alone."""

from collections import Counter
from collections.abc import Iterable, Iterator

from kvpaged.events import Event, EventKind


class Replay:
    """Pages, tables and tokens as they were after the events applied so far.

    Kinds of events that are not the memory's own (an engine's, say) pass through without effect.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.ref_counts: Counter[int] = Counter()  # page id -> owners; a free page has no entry
        self.cached: dict[int, int] = {}  # page id -> tokens in it, of the pages that the prefix cache owns
        self.moving: Counter[int] = Counter()  # page id -> transfers that own it
        self.tables: dict[int, list[int]] = {}  # sequence id -> page ids, of the live sequences
        self.tokens: dict[int, list[int]] = {}  # sequence id -> its tokens; released sequences keep theirs
        self.num_computed: dict[int, int] = {}
        self.null_page: int | None = None  # stands in tables where there is no page, and is counted in none of them

    def apply(self, event: Event) -> None:
        """Go one event further."""
        kind, sequence, pages, tokens, number = event
        if kind == EventKind.INSERT:
            self._take(pages)
            for index, page_id in enumerate(pages):
                self.cached[page_id] = min(self.page_size, number - index * self.page_size)
        elif kind == EventKind.EVICT:
            self._give_back(pages)
            for page_id in pages:
                self.cached.pop(page_id, None)  # a page cached under two salts leaves twice
        elif kind == EventKind.TRANSFER:
            self._take(pages) if number else self._give_back(pages)
            self.moving.update(pages) if number else self.moving.subtract(pages)
        elif kind == EventKind.SET_ASIDE:
            self._take(pages)
            (self.null_page,) = pages
        elif kind == EventKind.SALVAGE:
            for state in (self.ref_counts, self.cached, self.moving, self.tables, self.num_computed):
                state.clear()
        elif sequence is None:
            return
        elif kind == EventKind.BEGIN:
            self.tables[sequence] = []
            self.tokens[sequence] = list(tokens)
            self.num_computed[sequence] = number
        elif kind in (EventKind.SHARE, EventKind.ALLOCATE):
            self._take(pages)
            self.tables[sequence] += pages
        elif kind == EventKind.COPY:
            source, target = pages
            table = self.tables[sequence]
            table.remove(target)
            table[table.index(source)] = target
            self._give_back((source,))
        elif kind == EventKind.APPEND:
            self.tokens[sequence] += tokens
        elif kind == EventKind.COMPUTE:
            self.num_computed[sequence] = number
        elif kind == EventKind.FORK:
            self._take(pages)
            self.tables[number] = list(pages)
            self.tokens[number] = list(self.tokens[sequence])
            self.num_computed[number] = self.num_computed[sequence]
        elif kind == EventKind.TRUNCATE:
            self._give_back(pages)
            table = self.tables[sequence]
            del table[len(table) - len(pages) :]
            del self.tokens[sequence][number:]
            self.num_computed[sequence] = min(self.num_computed[sequence], number)
        elif kind == EventKind.GIVE_BACK:
            if self.null_page is None:
                raise ValueError(f"sequence {sequence} gives pages back early, but no null page was set aside")
            self._give_back(pages)
            table = self.tables[sequence]
            for page_id in pages:
                table[table.index(page_id)] = self.null_page
        elif kind == EventKind.RELEASE:
            self._give_back(pages)
            del self.tables[sequence]

    def play(self, events: Iterable[Event]) -> Iterator[Event]:
        """Apply events, and yield each. Raises ValueError at an event that cannot follow those before it."""
        for index, event in enumerate(events):
            try:
                self.apply(event)
            except (KeyError, ValueError):
                raise ValueError(
                    f"event {index} cannot follow those before it: {event}; record the log again, from when the cache "
                    "is new"
                ) from None
            yield event

    def apply_all(self, events: Iterable[Event]) -> "Replay":
        """Apply all events; return this replay. Raises ValueError as `play` does."""
        for _ in self.play(events):
            pass
        return self

    @property
    def num_used(self) -> int:
        """Pages that somebody owns."""
        return len(self.ref_counts)

    @property
    def num_idle(self) -> int:
        """Pages that only the prefix cache owns: evictable, when pages are short."""
        return sum(self.ref_counts[page_id] == 1 for page_id in self.cached)

    @property
    def num_mapped(self) -> int:
        """Entries in the tables of live sequences: the pages they would need if they shared none."""
        return sum(page_id != self.null_page for table in self.tables.values() for page_id in table)

    @property
    def num_in_tables(self) -> int:
        """Different pages in the tables of live sequences."""
        return len({page_id for table in self.tables.values() for page_id in table} - {self.null_page})

    def slots_used(self) -> dict[int, int]:
        """Return, for each page that somebody owns, how many of its slots hold a token."""
        used = {page_id: self.cached.get(page_id, 0) for page_id in self.ref_counts}
        for sequence, table in self.tables.items():
            length = len(self.tokens[sequence])
            for index, page_id in enumerate(table):
                if page_id == self.null_page:
                    continue
                used[page_id] = max(used[page_id], min(self.page_size, length - index * self.page_size))
        return used

    def _take(self, pages: tuple[int, ...]) -> None:
        for page_id in pages:
            if page_id != self.null_page:
                self.ref_counts[page_id] += 1

    def _give_back(self, pages: tuple[int, ...]) -> None:
        for page_id in pages:
            if not self.ref_counts[page_id]:
                raise ValueError(f"nobody owns page {page_id}")
            self.ref_counts[page_id] -= 1
            if not self.ref_counts[page_id]:
                del self.ref_counts[page_id]
