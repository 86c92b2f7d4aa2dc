"""Who owns which page. The pool hands pages out, counts their owners, and takes them back.

It knows no tokens, no requests and no tensors: a page is an integer. Every operation on one page costs the same
whatever the pool's size.
"""

from collections import Counter
from collections.abc import Iterable

from kvpaged.checks import positive_int, whole
from kvpaged.wording import count_of


class OutOfPages(RuntimeError):
    """The pool cannot give as many pages as were asked for. An operation that raises it has changed no owner."""


class PagePool:
    """A fixed number of pages, each free or owned, with a count of its owners (its references).

    The first law of ownership lives here: a page is alive exactly as long as somebody owns a reference to it,
    taken by `allocate` or `share`, given back by `release`. (Kwon et al. 2023, section 4.4, count references
    on physical blocks in the same way.)

    Freed pages are reused last in, first out: the page that was released last is the likeliest to be in a cache
    of the processor still.
    """

    __slots__ = ("_released", "num_pages", "ref_counts")

    def __init__(self, num_pages: int) -> None:
        """Raises ValueError or TypeError if `num_pages` is not an int of at least 1."""
        self.num_pages = positive_int("num_pages", num_pages)
        # Only pages that were handed out at least once have an entry here: a fresh pool of a million pages holds
        # nothing, and the next page that was never used is always number len(self.ref_counts). For others to read,
        # and only to read: a sequence looks here on each token, where a call would cost as much as all the rest.
        self.ref_counts: list[int] = []
        self._released: list[int] = []

    @property
    def num_free(self) -> int:
        """Pages that nobody owns."""
        return self.num_pages - len(self.ref_counts) + len(self._released)

    @property
    def num_used(self) -> int:
        """Pages that somebody owns."""
        return len(self.ref_counts) - len(self._released)

    def ref_count(self, page_id: int) -> int:
        """How many owners the page has; 0 when it is free. Raises ValueError if there is no such page."""
        if page_id.__class__ is not int:
            self._require_in_pool(page_id)
        if 0 <= page_id < len(self.ref_counts):
            return self.ref_counts[page_id]
        self._require_in_pool(page_id)
        return 0

    def allocate(self) -> int:
        """Hand out a free page, owned once. Raises OutOfPages when there is none."""
        if self._released:
            page_id = self._released.pop()
            self.ref_counts[page_id] = 1
            return page_id
        page_id = len(self.ref_counts)
        if page_id == self.num_pages:
            raise OutOfPages(self._shortage(1))
        self.ref_counts.append(1)
        return page_id

    def allocate_many(self, n: int) -> list[int]:
        """Hand out `n` free pages, each owned once: all of them, or OutOfPages and none."""
        if n.__class__ is not int:
            n = whole("n", n)
        if n < 0:
            raise ValueError(f"cannot allocate {n} pages; ask for 0 or more")
        if n > self.num_free:
            raise OutOfPages(self._shortage(n))
        pages, released, counts = [], self._released, self.ref_counts
        for _ in range(n):  # what `allocate` does, without a call for each page
            if released:
                page_id = released.pop()
                counts[page_id] = 1
            else:
                page_id = len(counts)
                counts.append(1)
            pages.append(page_id)
        return pages

    def share(self, page_id: int) -> None:
        """Add an owner. Raises ValueError for a page that nobody owns (allocate it) or that does not exist."""
        self._require_owned(page_id, "shared")
        self.ref_counts[page_id] += 1

    def share_many(self, page_ids: Iterable[int]) -> None:
        """Add an owner to each page: to all of them, or ValueError (TypeError for what is no page id) and to none."""
        page_ids, counts = list(page_ids), self.ref_counts
        num_known = len(counts)
        for page_id in page_ids:
            if page_id.__class__ is not int or not 0 <= page_id < num_known or not counts[page_id]:
                self._require_owned(page_id, "shared")
        for page_id in page_ids:
            counts[page_id] += 1

    def release(self, page_id: int) -> None:
        """Take one owner away; at none, the page is free. Raises ValueError for a page that is free already."""
        self._require_owned(page_id, "released")
        self.ref_counts[page_id] -= 1
        if not self.ref_counts[page_id]:
            self._released.append(int(page_id))

    def release_many(self, page_ids: Iterable[int]) -> None:
        """Take one owner away from each page: from all of them, or ValueError (TypeError) and from none."""
        page_ids, counts = list(page_ids), self.ref_counts
        num_known, num_released = len(counts), len(self._released)
        for index, page_id in enumerate(page_ids):
            if page_id.__class__ is int and 0 <= page_id < num_known and (count := counts[page_id]):
                counts[page_id] = count - 1
                if count == 1:
                    self._released.append(page_id)
                continue
            try:
                self.release(page_id)
            except BaseException:  # a number of another library may raise what it likes
                del self._released[num_released:]
                for done in page_ids[:index]:
                    counts[done] += 1
                raise

    def recount(self, page_ids: Iterable[int]) -> None:
        """Forget all owners; give each page here one for each time that it is named. See `PagedKVCache.salvage`."""
        owners = Counter(page_ids)
        self.ref_counts[:] = [owners[page_id] for page_id in range(len(self.ref_counts))]
        self._released[:] = [page_id for page_id, count in enumerate(self.ref_counts) if not count][::-1]

    def _require_in_pool(self, page_id: int) -> None:
        if not hasattr(page_id, "__index__"):  # numpy's and torch's integers are welcome
            raise TypeError(f"{page_id!r} is no page id; give an int")
        if not 0 <= page_id < self.num_pages:
            raise ValueError(f"page {page_id} does not exist: this pool has pages 0 to {self.num_pages - 1}")

    def _require_owned(self, page_id: int, verb: str) -> None:
        if not self.ref_count(page_id):
            raise ValueError(f"page {page_id} is free: nobody owns it, so it cannot be {verb}; allocate it first")

    def _shortage(self, n: int) -> str:
        return (
            f"asked for {count_of(n, 'page')}, but {self.num_free} of {self.num_pages} are free; "
            "release what is no longer needed, or open a larger pool"
        )

    def __repr__(self) -> str:
        return f"PagePool(num_pages={self.num_pages}, num_used={self.num_used}, num_free={self.num_free})"
