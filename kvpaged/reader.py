"""K and V of one sequence, read through its page table into contiguous tensors."""

from torch import Tensor

from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable


class PagedKVReader:
    """`PageStorage.read` for one table, K and V apart, with a count.

    Each call looks at the table anew, and returns a tensor of its own: it stays valid whatever is written later.
    `pages_read` counts the pages whose K, and those whose V, were handed out so far.

    Raises ValueError when table and storage disagree about the page size, IndexError for a page the storage does not
    have.
    """

    def __init__(self, storage: PageStorage, table: PageTable) -> None:
        storage.pages_of(table)
        self.storage = storage
        self.table = table
        self.pages_read = 0

    def keys(self, layer: int) -> Tensor:
        """K of the mapped tokens in logical order: [len(table), num_kv_heads, head_dim], contiguous."""
        return self._read(layer)[0]

    def values(self, layer: int) -> Tensor:
        """V of the mapped tokens in logical order: [len(table), num_kv_heads, head_dim], contiguous."""
        return self._read(layer)[1]

    def _read(self, layer: int) -> tuple[Tensor, Tensor]:
        keys_and_values = self.storage.read(layer, self.table)
        self.pages_read += len(self.storage.pages_of(self.table))
        return keys_and_values
