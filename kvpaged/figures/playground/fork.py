"""A sequence to fork and to write to, and the copies that this makes."""

from kvpaged.cache import PagedKVCache
from kvpaged.events import EventKind, EventLog
from kvpaged.figures.language import owner_name
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import PAGE_SIZE, Control, Playground
from kvpaged.figures.playground.words import Words
from kvpaged.figures.sharing_map import sharing_map
from kvpaged.wording import count_of


class ForkPlayground(Playground):
    """A list of sequences, of which one is chosen; `fork` forks it, `write` appends the text of a field to it."""

    name = "Copy-on-write playground"
    does = "you can fork sequences and write to them, and see which pages are copied"

    def __init__(self, prompt: str = "Ada hid the coin in the", num_pages: int = 16) -> None:
        self.words = Words()
        self.cache = PagedKVCache(num_pages, PAGE_SIZE, prefix_caching=False, events=EventLog())
        a = self.cache.sequence(self.words.encode(prompt))
        a.mark_computed()
        self.sequences = {"A": a}
        self.chosen = Control("choice", "sequence", "A", ["A"])
        self.text = Control("text", "text", " attic")
        controls = [self.chosen, Control("button", "fork"), self.text, Control("button", "write")]
        super().__init__(controls, f"A has {count_of(len(a), 'token')}, and every page to itself.")

    def picture(self) -> Picture:
        """Draw the sequences and the pages they share."""
        return sharing_map(self.cache, decode=self.words.decode)

    def fork(self) -> str:
        """Fork the chosen sequence, and choose the fork."""
        parent = self.sequences[str(self.chosen.value)]
        child = parent.fork()
        name = self.chosen.value = owner_name(child.id)
        self.sequences[name] = child
        self.chosen.choices.append(name)
        pages = count_of(len(child.table.page_ids), "page")
        return f"{name} is a fork of {owner_name(parent.id)}: it owns {pages} too, and none is copied."

    def write(self) -> str:
        """Append the text to the chosen sequence."""
        name, tokens, seen = str(self.chosen.value), self.words.encode(str(self.text.value)), len(self.cache.events)
        sequence = self.sequences[name]
        for token in tokens:
            sequence.append(token)
        sequence.mark_computed()
        said = f"{name} writes {count_of(len(tokens), 'token')}."
        for kind, _, pages, _, number in list(self.cache.events)[seen:]:
            if kind == EventKind.COPY:
                said += f" Page {pages[0]} had other owners: {count_of(number, 'slot')} copied to page {pages[1]}."
        return said
