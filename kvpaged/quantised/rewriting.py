"""The answer that does not hold: a page's scales grow with its tokens, and each time the page is written again.

It is here to be convicted: `PagedKVCache.check` says which slot was rewritten.
"""

import torch
from torch import Tensor

from kvpaged.quantised.codes import quantise
from kvpaged.quantised.storage import QuantisedStorage, Rows


class RewritingStorage(QuantisedStorage):
    """Packs a page again with every token that it gets: breaks the third law, and with it the same bits.

    What an earlier token reads then depends on the tokens behind it: on how many were computed at once, on a guess that
    was taken back, on what another request wrote behind a beginning that both have.
    """

    def store(self, layer: int, pages: Tensor, offsets: Tensor, rows: Rows) -> None:
        for page_id in set(pages.tolist()):
            named = pages == page_id
            first = int(offsets[named].min())
            earlier = torch.full((first,), page_id), torch.arange(first)
            before = self._read_slots(layer, *earlier)
            for which, (known, numbers) in enumerate(zip(before, rows, strict=True)):
                page = torch.zeros(self.page_size, *numbers.shape[1:])
                page[:first], page[offsets[named]] = known, numbers[named]
                dim = -1 if self.sharing[which] == "token" else -2
                codes, scales = self.codes[which][layer], self.scales[which][layer]
                codes[page_id], scales[page_id] = quantise(page.transpose(0, 1), self.bits, dim)
