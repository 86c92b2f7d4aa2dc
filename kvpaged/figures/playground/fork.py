"""A sequence to fork and to write to, and the copies that this makes."""

from collections.abc import Callable

from ipywidgets import Dropdown, Layout, Text

from kvpaged.cache import PagedKVCache
from kvpaged.events import EventKind, EventLog
from kvpaged.figures.language import count_of, owner_name
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import PAGE_SIZE, Playground
from kvpaged.figures.rows import Decode
from kvpaged.figures.sharing_map import sharing_map


class ForkPlayground(Playground):
    """A list of sequences, of which one is chosen; `fork` forks it, `write` appends the text of a field to it."""

    name = "Copy-on-write playground"
    does = "you fork sequences and write to them, and see which pages are copied"

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        decode: Decode,
        prompt: str = "Ada hid the coin in the",
        num_pages: int = 16,
    ) -> None:
        self._encode, self._decode = encode, decode
        self.cache = PagedKVCache(num_pages, PAGE_SIZE, prefix_caching=False, events=EventLog())
        a = self.cache.sequence(encode(prompt))
        a.mark_computed()
        look = {"layout": Layout(width="auto"), "style": {"description_width": "initial"}}
        self.sequence = Dropdown(options=[("A", a)], description="sequence", **look)
        self.text = Text(" attic", description="text", **look)
        controls = [self.sequence, self.button("fork", self.fork), self.text, self.button("write", self.write)]
        super().__init__(controls, f"A has {count_of(len(a), 'token')}, and every page to itself.")

    def picture(self) -> Picture:
        """Draw the sequences and the pages they share."""
        return sharing_map(self.cache, decode=self._decode)

    def fork(self) -> str:
        """Fork the chosen sequence, and choose the fork."""
        parent, child = self.sequence.value, self.sequence.value.fork()
        self.sequence.options = [*self.sequence.options, (owner_name(child.id), child)]
        self.sequence.value = child
        pages = count_of(len(child.table.page_ids), "page")
        return f"{owner_name(child.id)} is a fork of {owner_name(parent.id)}: it owns {pages} too, and none is copied."

    def write(self) -> str:
        """Append the text to the chosen sequence."""
        sequence, tokens, seen = self.sequence.value, self._encode(self.text.value), len(self.cache.events)
        for token in tokens:
            sequence.append(token)
        sequence.mark_computed()
        name = owner_name(sequence.id)
        said = f"{name} writes {count_of(len(tokens), 'token')}."
        for kind, _, pages, _, number in list(self.cache.events)[seen:]:
            if kind == EventKind.COPY:
                said += f" Page {pages[0]} had other owners: {count_of(number, 'slot')} copied to page {pages[1]}."
        return said
