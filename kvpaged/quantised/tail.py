"""The newest tokens exact: a page is packed when it is full.

::

    tokens     0  1  2  3 | 4  5  6  7 | 8  9
    codes      +  +  +  +   +  +  +  +              scales are those of a full page
    tail                                 +  +       float32: token 9 reads this, and the codes before it

As in KIVI (Liu et al. 2024), where the tail is called the residual. Here it ends where a page ends.
"""

import torch
from torch import Tensor

from kvpaged.quantised.codes import quantise
from kvpaged.quantised.storage import QuantisedStorage, Rows


class TailStorage(QuantisedStorage):
    """A page stands exact, in a tail, until a query stands behind it; its codes are made when it is full.

    Every page of a chunk has a tail until the next step: the queries that stand in it read it exact, in each layer in
    turn, and a guess that filled it may be taken back. The tail of a page that was given back stays until the page is
    written again. Nothing limits the tails: a page pool does not know of them.

    Where a table goes on within a page that has no tail any more (a hit, or the truncation of several steps, that ends
    inside a finished page), the new tail begins with what its codes say: that is the one place where a token reads what
    it would not read alone. A guess is taken back before the next step, so the tails behind it are still there.
    """

    def _open(self) -> None:
        super()._open()
        self._free_tails: list[int] = []

    @property
    def num_tails(self) -> int:
        """Pages that stand exact."""
        return int((self.tail_of >= 0).sum())

    @property
    def bytes_per_tail(self) -> int:
        """One exact page, all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.page_size * self.head_dim * 4

    @property
    def num_bytes(self) -> int:
        """Bytes reserved for all pages, written or not, and for the tails that there are."""
        return super().num_bytes + self.num_tails * self.bytes_per_tail

    def finish(self, pages: Tensor) -> None:
        """Let go of the tails of full pages that all queries to come stand behind.

        Attention calls this once for each pass, before anything is written, with the pages of each sequence that lie
        before its first query's.
        """
        page_ids = sorted(set(pages[self.tail_of[pages] >= 0].tolist()))
        self._free_tails += self.tail_of[page_ids].tolist()
        self.tail_of[page_ids] = -1
        for layer in range(self.num_layers if page_ids else 0):
            self._note(layer, *self._slots_of(page_ids))

    def dump(self, page_id: int) -> bytes:
        """The codes and scales of a full page. Raises ValueError for a page that is not full: it stands exact."""
        self._check_page(page_id)
        if self.tail_of[page_id] >= 0 and not self._digests[:, page_id].all():
            raise ValueError(f"page {page_id} is not full, so it has no codes yet: only full pages can be dumped")
        return super().dump(page_id)

    def load(self, page_id: int, data: bytes) -> None:
        """Fill a page with what `dump` gave. Raises as `PageStorage.load` does."""
        self._check_load(page_id, data)
        self.finish(torch.tensor([page_id]))
        super().load(page_id, data)

    def store(self, layer: int, pages: Tensor, offsets: Tensor, rows: Rows) -> None:
        for page_id in sorted(set(pages[self.tail_of[pages] < 0].tolist())):
            self._begin_tail(page_id, source=page_id, num_slots=int(offsets[pages == page_id].min()))
        tails = self.tail_of[pages].long()
        full = offsets == self.page_size - 1
        for which, numbers in enumerate(rows):
            self.tails[layer, which][tails, :, offsets] = numbers
            codes, scales = self.codes[which][layer], self.scales[which][layer]
            dim = -1 if self.sharing[which] == "token" else -2
            exact = self.tails[layer, which][tails[full]]
            codes[pages[full]], scales[pages[full]] = quantise(exact, self.bits, dim)

    def _copy(self, source: int, target: int, num_slots: int) -> int:
        moved = super()._copy(source, target, num_slots)
        self._begin_tail(target, source, num_slots)
        return moved + num_slots * self.bytes_per_tail // self.page_size

    def _begin_tail(self, page_id: int, source: int, num_slots: int) -> None:
        """Give a page a tail, whose first slots read what those of a page read: its own, or another's."""
        pages, offsets = torch.full((num_slots,), source), torch.arange(num_slots)
        begun = [self._read_slots(layer, pages, offsets) for layer in range(self.num_layers if num_slots else 0)]
        if self.tail_of[page_id] < 0:
            if not self._free_tails:
                self._make_tails(max(1, self.tails.shape[2]))
            self.tail_of[page_id] = self._free_tails.pop()
        for layer, rows in enumerate(begun):
            for which, numbers in enumerate(rows):
                self.tails[layer, which, self.tail_of[page_id], :, :num_slots] = numbers.transpose(0, 1)

    def _make_tails(self, count: int) -> None:
        layers, _, num_tails, *page = self.tails.shape
        self.tails = torch.cat((self.tails, torch.zeros(layers, 2, count, *page)), dim=2)
        self._free_tails += range(num_tails, num_tails + count)
