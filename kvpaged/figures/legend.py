"""The key to all pictures of the book: one of each mark, drawn by the same code as the pictures."""

from kvpaged.figures.page_shape import PageShape
from kvpaged.figures.page_view import PageView, Use
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import label

_MEANINGS = (
    (PageView(0), "a free page"),
    (PageView(1, {0: Use(3, 3)}, ref_count=1), "A owns it; 3 of its 4 slots hold a token"),
    (PageView(2, {0: Use(4, 2)}, ref_count=1), "2 slots are computed, 2 only reserved"),
    (PageView(3, {0: Use(4, 4), 1: Use(2, 2)}, ref_count=2), "A and B own it; B sees 2 slots"),
    (PageView(4, {1: Use(4, 4)}, cached=4, ref_count=2), "B owns it, and the prefix cache too"),
    (PageView(5, cached=4, ref_count=1), "only the prefix cache owns it: evictable"),
    (PageView(6, ref_count=2), "two owners, and nobody said who"),
)


def legend() -> Picture:
    """Draw the key: what each mark means."""
    shape = PageShape(4)
    drawn = []
    for index, (page, meaning) in enumerate(_MEANINGS):
        column, row = index % 2, index // 2
        x, y = 2 + column * 360, 2 + row * (shape.height + 12)
        drawn.append(shape.draw(x, y, page) + label(x + shape.width + 10, y + shape.height / 2, meaning))
    height = -(-len(_MEANINGS) // 2) * (shape.height + 12)
    return Picture(
        "".join(drawn),
        724,
        height,
        "Key to the pictures. " + "; ".join(f"page {page.page_id}: {meaning}" for page, meaning in _MEANINGS) + ".",
    )
