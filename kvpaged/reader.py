"""Gathers K and V through a page table into contiguous tensors."""

import torch
from torch import Tensor

from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for


class PagedKVReader:
    """K and V of one sequence, read through its page table.

    Each call looks at the table anew, and returns a tensor of its own: it stays valid whatever is written later.
    `pages_read` counts the pages gathered so far, of K and of V alike.

    Raises ValueError when table and storage disagree about the page size, IndexError for a page the storage does not
    have.
    """

    def __init__(self, storage: PageStorage, table: PageTable) -> None:
        if table.page_size != storage.page_size:
            raise ValueError(
                f"the table has pages of {table.page_size} slots, the storage pages of {storage.page_size}"
            )
        self.storage = storage
        self.table = table
        self.pages_read = 0

    def keys(self, layer: int) -> Tensor:
        """K of the mapped tokens in logical order: [len(table), num_kv_heads, head_dim], contiguous."""
        self.storage.check_read(layer, [self.table.page_ids], [len(self.table)])
        return self._gather(self.storage.keys(layer))

    def values(self, layer: int) -> Tensor:
        """V of the mapped tokens in logical order: [len(table), num_kv_heads, head_dim], contiguous."""
        self.storage.check_read(layer, [self.table.page_ids], [len(self.table)])
        return self._gather(self.storage.values(layer))

    def _gather(self, pages: Tensor) -> Tensor:
        num_pages, num_kv_heads, page_size, head_dim = pages.shape
        num_tokens = len(self.table)
        page_ids = mapped_pages(self.table, num_pages)
        # One row of `pages` per (token, head); the table decides which. A single index_select is twice as fast as
        # fetching whole pages and then swapping slots and heads.
        first_row = torch.tensor(page_ids, dtype=torch.int64) * (num_kv_heads * page_size)
        heads = torch.arange(num_kv_heads) * page_size
        slots = torch.arange(page_size)
        rows = (first_row[:, None, None] + slots[:, None] + heads).view(-1, num_kv_heads)[:num_tokens]
        self.pages_read += len(page_ids)
        return pages.view(-1, head_dim).index_select(0, rows.flatten()).view(num_tokens, num_kv_heads, head_dim)


def mapped_pages(table: PageTable, num_pages: int) -> list[int]:
    """The pages that hold the mapped tokens, in logical order.

    Raises IndexError for a page outside 0..num_pages-1, and when the table maps more tokens than its pages have slots.
    """
    page_ids = table.page_ids[: pages_for(len(table), table.page_size)]
    if len(page_ids) * table.page_size < len(table):
        raise IndexError(f"the table maps {len(table)} tokens to {len(page_ids)} pages of {table.page_size} slots")
    for position, page_id in enumerate(page_ids):
        if not 0 <= page_id < num_pages:
            raise IndexError(
                f"entry {position} of the page table names page {page_id}; the storage has pages 0..{num_pages - 1}"
            )
    return page_ids
