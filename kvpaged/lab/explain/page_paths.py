"""The same tree in pages: which pages each request runs through, in runs that no request parts within."""

from __future__ import annotations

from collections.abc import Iterable

from kvpaged.lab.explain.prefix_tree import TreeNode


class PagePaths:
    """For each request the numbers of its runs of pages, from its beginning on; of each run, its pages and parent.

    A page belongs to the node that holds its last unit. What fills no page is left out: whole pages only.
    """

    def __init__(self, ends: Iterable[TreeNode], units_per_page: int) -> None:
        self.units_per_page = units_per_page
        self.num_pages: list[int] = []  # of each run
        self.parents: list[int] = []  # the run before, -1 for a first one
        self.paths: list[list[int]] = []  # of each request
        number: dict[TreeNode, int] = {}
        for end in ends:
            path: list[int] = []
            for node in end.path():
                pages = node.stop // units_per_page - node.start // units_per_page
                if not pages:
                    continue
                run = number.get(node)
                if run is None:
                    run = number[node] = len(self.num_pages)
                    self.num_pages.append(pages)
                    self.parents.append(path[-1] if path else -1)
                path.append(run)
            self.paths.append(path)

    @property
    def distinct_pages(self) -> int:
        """Pages that a cache needs to keep everything."""
        return sum(self.num_pages)
