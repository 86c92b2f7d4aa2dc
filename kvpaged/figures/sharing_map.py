"""Who shares what: one line for each sequence, a page that several of them own drawn across their lines."""

from kvpaged.cache import PagedKVCache
from kvpaged.figures.language import listed
from kvpaged.figures.page_shape import PageShape, slot_width_for
from kvpaged.figures.page_view import pages_of_cache
from kvpaged.figures.picture import Picture
from kvpaged.figures.rows import Decode, Row, rows_of
from kvpaged.figures.sequence_names import sequence_names
from kvpaged.figures.svg import path
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of

_GAP, _BEND, _MARGIN = 12, 20, 112  # between lines, between pages, for the names


def sharing_map(cache: PagedKVCache, decode: Decode | None = None) -> Picture:
    """Draw live sequences as lines of pages that part where they part: the tree of forks and of shared prefixes.

    If the cache keeps a log, sequences are called what the log calls them: an engine's after their requests.
    """
    chosen = sorted(cache.sequences, key=lambda each: each.id)
    names = sequence_names(cache.events)
    rows = rows_of(chosen, decode)
    for row, sequence in zip(rows, chosen, strict=True):
        row.owner = names.get(sequence.id, sequence.id)
    rows.sort(key=lambda row: _branch(row, chosen))
    pages = pages_of_cache(cache, names)
    words = [word for row in rows for word in row.words]
    shape = PageShape(cache.page_size, slot_width_for(words), 20) if decode else PageShape(cache.page_size)
    pitch = max(shape.height, 24) + _GAP
    lines, boxes = [], []
    for number, row in enumerate(rows):
        y = 2 + number * pitch
        boxes.append(row.heading(2, y + shape.height / 2 - 9, f"{row.num_tokens} tokens"))
        before = _MARGIN - _BEND / 2, y + shape.height / 2
        for index, page_id in enumerate(row.page_ids):
            span = _span(rows, number, index)
            top = 2 + span.start * pitch
            middle = top + ((len(span) - 1) * pitch + shape.height) / 2
            x = _MARGIN + index * (shape.width + _BEND)
            bend = before[0] + _BEND / 2
            lines.append(path("M", *before, "C", bend, before[1], x - _BEND / 2, middle, x, middle, class_="a"))
            before = x + shape.width, middle
            if number != span.start:
                continue
            words_here = row.words_in(index) if decode else []
            boxes.append(shape.draw(x, middle - shape.height / 2, pages[page_id], words_here))
    width = _MARGIN + max(len(row.page_ids) for row in rows) * (shape.width + _BEND) - 16
    return Picture("".join(dict.fromkeys(lines + boxes)), width, len(rows) * pitch - _GAP + 4, _describe(rows))


def _branch(row: Row, sequences: list[Sequence]) -> list[int]:
    """A key that puts sequences that share pages beside one another, in the order of their first owners."""
    first: dict[int, int] = {}
    for sequence in sequences:
        for page_id in sequence.table.page_ids:
            first.setdefault(page_id, sequence.id)
    return [number for page_id in row.page_ids for number in (first[page_id], page_id)]


def _span(rows: list[Row], number: int, index: int) -> range:
    """The lines across which the page at `index` of line `number` is drawn."""
    page_id = rows[number].page_ids[index]

    def same(line: int) -> bool:
        return 0 <= line < len(rows) and rows[line].page_ids[index : index + 1] == [page_id]

    start = stop = number
    while same(start - 1):
        start -= 1
    while same(stop + 1):
        stop += 1
    return range(start, stop + 1)


def _describe(rows: list[Row]) -> str:
    owners: dict[int, list[str]] = {}
    for row in sorted(rows, key=lambda each: str(each.owner).zfill(9)):
        for page_id in row.page_ids:
            owners.setdefault(page_id, []).append(row.name)
    mapped = sum(len(row.page_ids) for row in rows)
    if len(rows) > 1:
        sentences = [
            f"{listed(sorted(row.name for row in rows))} map {mapped} pages and own {len(owners)} between them."
        ]
    else:
        sentences = [f"{rows[0].name} maps {count_of(mapped, 'page')}."]
    groups: dict[tuple[str, ...], list[int]] = {}
    for page_id, letters in owners.items():
        groups.setdefault(tuple(letters), []).append(page_id)
    for names, page_ids in groups.items():
        verb = "share" if len(names) > 1 else "alone has"
        sentences.append(f"{listed(names)} {verb} page{'s' * (len(page_ids) > 1)} {listed(page_ids)}.")
    return " ".join(sentences)
