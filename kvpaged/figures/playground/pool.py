"""A pool to allocate from, to share and to release by hand."""

from kvpaged.figures.page_map import page_map
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import Control, Playground
from kvpaged.page_pool import PagePool
from kvpaged.wording import count_of


class PoolPlayground(Playground):
    """Buttons for `allocate`, `share` and `release`, and a field for the page to share or release: any number."""

    name = "Pool playground"
    does = "its buttons allocate, share and release pages of a pool, and the pool answers"

    def __init__(self, num_pages: int = 8) -> None:
        self.pool = PagePool(num_pages)
        self.page = Control("number", "page", 0)
        allocate, share, release = (Control("button", label) for label in ("allocate", "share", "release"))
        super().__init__([allocate, self.page, share, release], f"A pool of {count_of(num_pages, 'page')}, all free.")

    def picture(self) -> Picture:
        """Draw the pool."""
        return page_map(self.pool)

    def allocate(self) -> str:
        """Take a page, and choose it."""
        self.page.value = self.pool.allocate()
        return f"allocate() returned page {self.page.value}."

    def share(self) -> str:
        """Add an owner to the chosen page."""
        self.pool.share(int(self.page.value))
        return self._owners_after("share")

    def release(self) -> str:
        """Take an owner away from the chosen page."""
        self.pool.release(int(self.page.value))
        return self._owners_after("release")

    def _owners_after(self, operation: str) -> str:
        page_id = int(self.page.value)
        owners = self.pool.ref_count(page_id)
        state = f"has {count_of(owners, 'owner')}" if owners else "is free"
        return f"{operation}({page_id}): page {page_id} {state}."
