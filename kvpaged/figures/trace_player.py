"""The trace player: any event log, played again step by step in the page itself."""

from collections.abc import Iterable
from html import escape

from kvpaged.events import Event, EventKind
from kvpaged.figures.language import owner_colour
from kvpaged.figures.page_map import draw_pages
from kvpaged.figures.page_shape import visible
from kvpaged.figures.page_view import pages_of_replay
from kvpaged.figures.player_shell import player_html
from kvpaged.figures.rows import Decode
from kvpaged.figures.sequence_names import request_names, sequence_names
from kvpaged.figures.whole_page import whole_page
from kvpaged.replay import Replay
from kvpaged.wording import count_of

INTERESTING = (
    EventKind.SHARE,
    EventKind.COPY,
    EventKind.FORK,
    EventKind.TRUNCATE,
    EventKind.GIVE_BACK,
    EventKind.EVICT,
    EventKind.TRANSFER,
    "preempt",
)
_MOST_PAGES = 50  # of a larger pool, only the pages that somebody ever owns are drawn
_MOST_TEXTS = 8


class TracePlayer:
    """A player for an event log: the pool, the tables and the text of the live sequences, and what happened and why.

    It needs no kernel and no network. Without JavaScript it shows the memory as it was at the end.
    """

    def __init__(
        self,
        events: Iterable[Event],
        page_size: int,
        num_pages: int,
        decode: Decode | None = None,
        stop_at: Iterable[str] = INTERESTING,
    ) -> None:
        """`decode` turns a token into its word; without it the token ids are shown. It pauses at kinds in `stop_at`.

        Raises ValueError when there are no events, or one names a page that a pool of `num_pages` does not have.
        """
        self.events = list(events)
        if not self.events:
            raise ValueError("the log is empty; hand the cache an EventLog() before it runs")
        self.page_size = page_size
        self.num_pages = num_pages
        self.decode = decode
        self.stop_at = tuple(map(str, stop_at))
        touched = {page_id for event in self.events for page_id in event.pages}
        if touched and max(touched) >= num_pages:
            raise ValueError(
                f"the log names page {max(touched)}, but a pool of {num_pages} pages ends at {num_pages - 1}"
            )
        self._pages = list(range(num_pages)) if num_pages <= _MOST_PAGES else sorted(touched)
        self._end = Replay(page_size).apply_all(self.events)

    @property
    def stops(self) -> list[int]:
        """The positions at which it pauses: events that have happened by then."""
        return [index for index, event in enumerate(self.events, start=1) if event.kind in self.stop_at]

    @property
    def opening(self) -> int:
        """The position that it opens at: the mark at which most pages are used, or the event, if it has no marks."""
        replay, used = Replay(self.page_size), [0]
        for event in self.events:
            replay.apply(event)
            used.append(replay.num_used)
        return max(self.stops or range(1, len(used)), key=used.__getitem__)

    def page(self, title: str) -> str:
        """Return a whole HTML page with the player in it, which needs nothing else."""
        return whole_page(title, f"<h1>{escape(title)}</h1><p>{escape(self._measures())}</p>", self._repr_html_())

    def _repr_html_(self) -> str:
        return player_html(repr(self), self._data(), self._summary(), self._last_frame())

    def __repr__(self) -> str:
        return f"Trace player: {self._measures()} {self._summary()}"

    def _measures(self) -> str:
        events, pages = count_of(len(self.events), "event"), count_of(self.num_pages, "page")
        return f"{events} in a pool of {pages} of {self.page_size} slots."

    def _data(self) -> dict[str, object]:
        """What the script plays: events as [kind, sequence, pages, tokens, number], each word once."""
        kinds = list(dict.fromkeys(event.kind for event in self.events))
        place: dict[int, int] = {}
        for event in self.events:
            for token in event.tokens:
                place.setdefault(token, len(place))
        names = sequence_names(self.events)
        return {
            "size": self.page_size,
            "total": self.num_pages,
            "pages": self._pages,
            "kinds": [str(kind) for kind in kinds],
            "words": [self._word(token) for token in place],
            "owners": {sequence: [name, owner_colour(name)] for sequence, name in names.items()},
            "requests": request_names(self.events),
            "stops": self.stops,
            "opening": self.opening,
            "events": [_packed(event, kinds.index(event.kind), place) for event in self.events],
        }

    def _word(self, token: int) -> str:
        return visible(self.decode(token)) if self.decode else str(token)

    def _summary(self) -> str:
        end = self._end
        idle = f", {end.num_idle} of them by the prefix cache alone" if end.num_idle else ""
        free = self.num_pages - end.num_used
        verb = "is" if end.num_used == 1 else "are"
        return f"At the end, {count_of(end.num_used, 'page')} {verb} used{idle}, {free} free."

    def _last_frame(self) -> str:
        """The memory at the end, for readers without JavaScript: the pages, and the text of the last sequences."""
        names = sequence_names(self.events)
        pages = pages_of_replay(self._end, self._pages, names)
        picture = draw_pages(pages[:_MOST_PAGES], self.page_size)._repr_html_()
        if len(pages) > _MOST_PAGES:
            picture += f"<p>and {count_of(len(pages) - _MOST_PAGES, 'more page')}.</p>"
        texts = [
            f"<li><b>{names[sequence]}</b>{'' if sequence in self._end.tables else ' (ended)'}: "
            f"{escape(' '.join(map(self._word, tokens)))}</li>"
            for sequence, tokens in list(self._end.tokens.items())[-_MOST_TEXTS:]
        ]
        return f"{picture}<ol>{''.join(texts)}</ol>"


def _packed(event: Event, kind: int, place: dict[int, int]) -> list[object]:
    """Write an event without the empty fields at its end."""
    packed: list[object] = [
        kind,
        event.sequence,
        list(event.pages),
        [place[token] for token in event.tokens],
        event.number,
    ]
    while len(packed) > 2 and not packed[-1]:
        packed.pop()
    return [0 if part == [] else part for part in packed]
