"""The pool as a grid of pages: who owns each, which slots are in use, what is free, what the prefix cache keeps."""

from collections.abc import Iterable, Mapping, Sequence

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import Owner, listed, owner_name, pages_named
from kvpaged.figures.page_shape import PageShape, slot_width_for
from kvpaged.figures.page_view import SLOTS, PageView, pages_of
from kvpaged.figures.picture import Picture
from kvpaged.page_pool import PagePool
from kvpaged.replay import Replay
from kvpaged.wording import count_of

_GAP = 6


def page_map(
    memory: PagedKVCache | PagePool | Replay,
    *,
    holders: Mapping[str, Iterable[int]] | None = None,
    num_pages: int | None = None,
    page_size: int | None = None,
    per_row: int = 10,
) -> Picture:
    """Draw every page of a cache, or of a pool, or of a replayed log.

    A pool alone counts owners and does not know them: `holders` may name them (name -> page ids), and `page_size` says
    how large a page to draw. A replay does not know the pool's size: it needs `num_pages`.
    Raises ValueError for more pages than can be seen (512).
    """
    pages, drawn = pages_of(memory, holders=holders, num_pages=num_pages, page_size=page_size or SLOTS)
    if isinstance(memory, PagePool):
        return draw_pages(pages, page_size, per_row, counting_tokens=False)
    return draw_pages(pages, drawn, per_row)


def draw_pages(
    pages: list[PageView],
    page_size: int | None,
    per_row: int = 10,
    counting_tokens: bool = True,
    words: Mapping[int, Sequence[str]] | None = None,
) -> Picture:
    """Draw these pages in rows. page_size: None, if it is not known. words: what stands in the slots, by page id."""
    num_slots, words = page_size or SLOTS, words or {}
    shape = PageShape(num_slots)
    if words:
        shape = PageShape(num_slots, slot_width_for([word for each in words.values() for word in each]), 20)
    drawing = "".join(
        shape.draw(
            1 + index % per_row * (shape.width + _GAP),
            1 + index // per_row * (shape.height + _GAP),
            page,
            words.get(page.page_id, ()),
        )
        for index, page in enumerate(pages)
    )
    held = [
        f" Page {page.page_id} holds {' '.join(filter(None, words[page.page_id]))}."
        for page in pages
        if page.page_id in words
    ]
    columns, rows = min(per_row, len(pages)), -(-len(pages) // per_row)
    return Picture(
        drawing,
        columns * (shape.width + _GAP) - _GAP + 2,
        rows * (shape.height + _GAP) - _GAP + 2,
        describe_pages(pages, page_size, counting_tokens) + "".join(held),
    )


def describe_pages(pages: list[PageView], page_size: int | None, counting_tokens: bool) -> str:
    """Say in words what a map of these pages shows."""
    free = [page.page_id for page in pages if page.free]
    idle = [page.page_id for page in pages if page.idle]
    pool = count_of(len(pages), "page") + (f" of {count_of(page_size, 'slot')}" if page_size else "")
    lost = [page.page_id for page in pages if not (page.ref_count or page.free or page.null)]  # in a broken pool
    words = [f"{pool}: {len(pages) - len(free) - len(lost)} used, {len(free) + len(lost)} free."]
    owners: dict[Owner, list[PageView]] = {}
    for page in pages:
        for owner in page.uses:
            owners.setdefault(owner, []).append(page)
    for owner, owned in sorted(owners.items(), key=lambda item: (isinstance(item[0], str), item[0])):
        sentence = f"{owner_name(owner)} owns {pages_named([page.page_id for page in owned])}"
        if counting_tokens:
            tokens = sum(page.uses[owner].tokens for page in owned)
            waiting = tokens - sum(page.uses[owner].computed for page in owned)
            sentence += f": {count_of(tokens, 'token')}" + (f", {waiting} not computed yet" if waiting else "")
        words.append(sentence + ".")
    for page in pages:
        if len(page.uses) > 1:
            words.append(f"Page {page.page_id} is shared by {listed(map(owner_name, page.uses))}.")
        elif page.unknown > 0 and page.unknown == page.ref_count:
            words.append(f"Page {page.page_id} has {count_of(page.ref_count, 'reference')} without a name.")
        words += [
            f"{owner_name(who)} names page {page.page_id} twice or more."
            for who, use in page.uses.items()
            if use.times > 1
        ]
        if page.unknown < 0 and page.ref_count:
            words.append(f"Page {page.page_id} has {count_of(page.ref_count, 'reference')}, fewer than owners.")
    moving = [page.page_id for page in pages if page.moving]
    if moving:
        words.append(f"A transfer owns {pages_named(moving)}.")
    kept = [page.page_id for page in pages if page.cached and not page.idle]
    if kept:
        words.append(f"The prefix cache owns {pages_named(kept)} too.")
    if idle:
        words.append(f"The prefix cache alone owns {pages_named(idle)}.")
    if lost:
        words.append(f"Free in the pool, and yet owned: {pages_named(lost)}.")
    if free:
        words.append(f"Free: {pages_named(free)}.")
    return " ".join(words)
