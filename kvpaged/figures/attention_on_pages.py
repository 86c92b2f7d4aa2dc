"""Attention over pages: how much weight a query puts on each token, and on each page."""

from collections.abc import Iterable
from typing import Any

from kvpaged.figures.language import owner_colour
from kvpaged.figures.page_shape import PageShape, slot_width_for
from kvpaged.figures.page_view import PageView, Use
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Decode, rows_of
from kvpaged.figures.svg import label, rect, shortened
from kvpaged.page_table import PageTable
from kvpaged.sequence import Sequence

_WIDTH, _GAP = 740, 10


def attention_on_pages(
    weights: Iterable[float] | Any, sequence: Sequence | PageTable, decode: Decode | None = None
) -> Picture:
    """Draw one query's weights, [kv_len], over the pages of its sequence: the fuller a slot, the more weight.

    Raises ValueError for more weights than tokens, and for weights of several heads or queries at once.
    """
    values = weights.tolist() if hasattr(weights, "tolist") else list(weights)
    row = rows_of(sequence, decode)[0]
    if any(isinstance(value, list) for value in values):
        raise ValueError("the weights have several dimensions; choose one query and one head, or average over heads")
    if len(values) > row.num_tokens:
        raise ValueError(f"{len(values)} weights for {row.num_tokens} tokens; hand in at most one for each token")
    words = row.words or [str(index) for index in range(row.num_tokens)]
    shape = PageShape(row.page_size, max(38.0, slot_width_for(words)), 34)
    per_line = max(1, int((_WIDTH + _GAP) // (shape.width + _GAP)))
    pitch = shape.height + _GAP + 16
    most, colour = max(values, default=0.0), owner_colour(row.owner)
    drawn, totals = [], []
    for index, page_id in enumerate(row.page_ids):
        line, column = divmod(index, per_line)
        x, y = 2 + column * (shape.width + _GAP), 2 + line * pitch
        empty = PageView(page_id, {row.owner: Use(0, 0)}, ref_count=1)
        drawn.append(shape.draw(x, y, empty))
        first = index * row.page_size
        here = values[first : first + row.page_size]
        totals.append((page_id, sum(here)))
        for slot, value in enumerate(here):
            share = value / most if most else 0.0
            drawn.append(_slot(shape, *shape.slot(x, y, slot), value, share, words[first + slot], colour))
        sentence = f"{sum(here):.0%} of the weight"
        drawn.append(label(x + shape.width / 2, y + shape.height + 11, sentence, class_="m s d"))
    lines = -(-len(row.page_ids) // per_line)
    width = min(per_line, len(row.page_ids)) * (shape.width + _GAP) - _GAP + 4
    alt = _describe(row.name, values, words, totals, row.page_size)
    return Picture("".join(drawn), width, lines * pitch - _GAP + 6, alt)


def _slot(shape: PageShape, x: float, y: float, value: float, share: float, word: str, colour: str) -> str:
    """A word, its weight, and a bar as high as the weight."""
    height = (shape.slot_height - 1) * share
    top = y + shape.slot_height - 0.5 - height
    return (
        rect(x + 0.5, top, shape.slot_width - 1, height, fill=colour, fill_opacity=".6")
        + label(x + shape.slot_width / 2, y + 11, shortened(word, shape.slot_width - 3, 11), class_="m", font_size=11)
        + label(x + shape.slot_width / 2, y + 25, f"{value:.0%}", class_="m s")
    )


def _describe(name: str, values: list[float], words: list[str], totals: list[tuple[int, float]], page_size: int) -> str:
    order = sorted(range(len(values)), key=lambda index: -values[index])[:3]
    tops = "; ".join(
        f"{words[index]} (page {totals[index // page_size][0]}, slot {index % page_size}) {values[index]:.0%}"
        for index in order
    )
    pages = ", ".join(f"page {page_id} {total:.0%}" for page_id, total in totals)
    return f"Attention of one query of {name} over {len(values)} tokens. Most weight: {tops}. By page: {pages}."
