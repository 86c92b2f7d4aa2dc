"""One sequence as a picture sees it: who it is, its pages in logical order, its tokens as words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kvpaged.figures.language import Owner, owner_colour, owner_name
from kvpaged.figures.page_shape import visible
from kvpaged.figures.page_view import PageView, use_of_page
from kvpaged.figures.svg import label, rect
from kvpaged.page_table import PageTable
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of

Decode = Callable[[int], str]


@dataclass
class Row:
    """One sequence, or a table alone, which has no tokens to show."""

    owner: Owner
    page_ids: list[int]
    page_size: int
    num_tokens: int
    num_computed: int
    words: list[str]

    @property
    def name(self) -> str:
        """The letter of the sequence."""
        return owner_name(self.owner)

    @property
    def title(self) -> str:
        """How many tokens it has in how many pages."""
        return f"{count_of(self.num_tokens, 'token')} in {count_of(len(self.page_ids), 'page')}"

    def words_in(self, index: int) -> list[str]:
        """The words in its logical page `index`."""
        return self.words[index * self.page_size : (index + 1) * self.page_size]

    def page(self, index: int) -> PageView:
        """Its logical page `index`, as if nobody else owned it."""
        use = use_of_page(index, self.num_tokens, self.num_computed, self.page_size)
        return PageView(self.page_ids[index], {self.owner: use}, ref_count=1)

    def heading(self, x: float, y: float, content: str) -> str:
        """Draw its letter on its colour, and a line of text."""
        return (
            rect(x, y, 18, 18, rx=4, fill=owner_colour(self.owner))
            + label(x + 9, y + 9.5, self.name, class_="m b o")
            + label(x + 26, y + 9.5, content)
        )


def rows_of(what: Sequence | PageTable | Iterable[Sequence | PageTable], decode: Decode | None = None) -> list[Row]:
    """Look at one or several sequences or tables. A table alone has no id: its letter is that of its place in the list.

    Raises ValueError if there is nothing to show, or a sequence is released.
    """
    several = [what] if isinstance(what, Sequence | PageTable) else list(what)
    if not several:
        raise ValueError("there is no sequence to show; hand in at least one")
    return [_row(each, place, decode) for place, each in enumerate(several)]


def _row(what: Sequence | PageTable, place: int, decode: Decode | None) -> Row:
    if isinstance(what, PageTable):
        return Row(place, what.page_ids, what.page_size, len(what), len(what), [])
    if not what.table.page_ids and what.tokens:
        raise ValueError(f"sequence {owner_name(what.id)} is released and owns no pages; draw it before its release")
    words = [visible(decode(token)) if decode else str(token) for token in what.tokens]
    return Row(what.id, what.table.page_ids, what.table.page_size, len(what), what.num_computed, words)
