"""A pool to allocate from, to share and to release by hand."""

from ipywidgets import IntText, Layout

from kvpaged.figures.language import count_of
from kvpaged.figures.page_map import page_map
from kvpaged.figures.picture import Picture
from kvpaged.figures.playground.base import Playground
from kvpaged.page_pool import PagePool


class PoolPlayground(Playground):
    """Buttons for `allocate`, `share` and `release`, and a field for the page to share or release: any number."""

    name = "Pool playground"
    does = "its buttons allocate, share and release pages of a pool, and the pool answers"

    def __init__(self, num_pages: int = 8) -> None:
        self.pool = PagePool(num_pages)
        self.page = IntText(description="page", layout=Layout(width="9em"), style={"description_width": "initial"})
        controls = [
            self.button("allocate", self.allocate),
            self.page,
            self.button("share", self.share),
            self.button("release", self.release),
        ]
        super().__init__(controls, f"A pool of {count_of(num_pages, 'page')}, all free.")

    def picture(self) -> Picture:
        """Draw the pool."""
        return page_map(self.pool)

    def allocate(self) -> str:
        """Take a page, and choose it."""
        self.page.value = self.pool.allocate()
        return f"allocate() returned page {self.page.value}."

    def share(self) -> str:
        """Add an owner to the chosen page."""
        self.pool.share(self.page.value)
        return self._owners_after("share")

    def release(self) -> str:
        """Take an owner away from the chosen page."""
        self.pool.release(self.page.value)
        return self._owners_after("release")

    def _owners_after(self, operation: str) -> str:
        page_id, owners = self.page.value, self.pool.ref_count(self.page.value)
        state = f"has {count_of(owners, 'owner')}" if owners else "is free"
        return f"{operation}({page_id}): page {page_id} {state}."
