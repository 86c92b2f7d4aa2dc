"""Pages of fewer bits: K and V as codes, with the scales that they are multiples of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from kvpaged.page import KVPage, PageStorage, lazy_zeros
from kvpaged.page_table import PageTable
from kvpaged.quantised.attention import QuantisedAttention
from kvpaged.quantised.codes import BITS, unpack

if TYPE_CHECKING:
    from kvpaged.kernel import CodedPages

Sharing = Literal["token", "channel"]
Rows = tuple[Tensor, Tensor]  # K and V, float32 [n, num_kv_heads, head_dim] each
K, V = 0, 1


class QuantisedStorage(PageStorage):
    """K and V on pages of 8, 4 or 2 bits a number. What is written and read are tensors of `dtype`, as ever.

    bits: of a number. keys, values: what shares a scale. "token": the numbers of one head of one token, whose scale is
    known when the token is. "channel": one number of a head in all tokens of a page, whose scale is known when the page
    is full. What happens until then is for each kind of storage to say, in `store`.

    codes, scales: of K, and of V: uint8 [num_layers, num_pages, num_kv_heads, page_size, bytes], see `codes.pack`, and
    float32 [num_layers, num_pages, num_kv_heads, page_size or head_dim].
    tails: pages that also stand somewhere exact, float32 [num_layers, 2, tails, num_kv_heads, page_size, head_dim].
    tail_of: int32 [num_pages], where in `tails` a page stands, or -1. A token reads its own page there, if it is there,
    and those before it from their codes. The digests for `check`, eight bytes for a slot in a layer, are in no count of
    bytes: a server would not keep them.

    Raises ValueError as `PageStorage` does, for other bits, and for heads that do not fill whole bytes.
    """

    attention = QuantisedAttention

    def __init__(
        self, *shape: Any, bits: int = 8, keys: Sharing = "channel", values: Sharing = "token", **named: Any
    ) -> None:
        """`shape` and `named` are what `PageStorage` takes."""
        if bits not in BITS:
            raise ValueError(f"bits is {bits}; a number takes {', '.join(map(str, BITS))}")
        self.bits = bits
        self.sharing: tuple[Sharing, Sharing] = (keys, values)
        super().__init__(*shape, **named)

    def _open(self) -> None:
        if self.head_dim * self.bits % 8:
            numbers = f"so many numbers of {self.bits} bits"
            raise ValueError(f"head_dim is {self.head_dim}: {numbers} do not fill whole bytes")
        pages = (self.num_layers, self.num_pages, self.num_kv_heads)
        codes = (*pages, self.page_size, self.head_dim * self.bits // 8)
        self.codes = [lazy_zeros(codes, torch.uint8) for _ in self.sharing]
        self.scales = [lazy_zeros((*pages, count), torch.float32) for count in self._scales_per_head]
        self.tails = torch.zeros(self.num_layers, 2, 0, self.num_kv_heads, self.page_size, self.head_dim)
        self.tail_of = torch.full((self.num_pages,), -1, dtype=torch.int32)
        self._digests = lazy_zeros((self.num_layers, self.num_pages, self.page_size), torch.int64)  # see `check`

    @property
    def _scales_per_head(self) -> list[int]:
        return [self.page_size if sharing == "token" else self.head_dim for sharing in self.sharing]

    @property
    def kind(self) -> str:
        """Two kinds of equally large pages read the same codes otherwise, and do not compute the same numbers."""
        keys, values = self.sharing
        return f"{type(self).__name__}, {self.bits} bits, scales by {keys} in K and by {values} in V, {self.dtype}"

    @property
    def bytes_per_page(self) -> int:
        """Codes and scales of one page, all layers."""
        codes = 2 * self.page_size * self.head_dim * self.bits // 8
        return self.num_layers * self.num_kv_heads * (codes + 4 * sum(self._scales_per_head))

    @property
    def bytes_per_token(self) -> int:
        """K and V of one token, all layers, with its share of the page's scales; rounded up."""
        return -(-self.bytes_per_page // self.page_size)

    def keys(self, layer: int) -> Tensor:
        """K of one layer, read back: [num_pages, num_kv_heads, page_size, head_dim], a copy."""
        self._check_layer(layer)
        return self._read_pages(layer, range(self.num_pages))[K]

    def values(self, layer: int) -> Tensor:
        """V of one layer, read back: [num_pages, num_kv_heads, page_size, head_dim], a copy."""
        self._check_layer(layer)
        return self._read_pages(layer, range(self.num_pages))[V]

    def __getitem__(self, page_id: int) -> KVPage:
        """One page, read back: copies. Raises IndexError for a page that does not exist."""
        self._check_page(page_id)
        keys, values = zip(*(self._read_pages(layer, [page_id]) for layer in range(self.num_layers)), strict=True)
        return KVPage(page_id, torch.cat(keys), torch.cat(values))

    def read(self, layer: int, table: PageTable) -> tuple[Tensor, Tensor]:
        """K and V as a token reads them that stands in the last page of the table. See `PageStorage.read`."""
        page_ids = self.pages_of(table)
        self.check_read(layer, [page_ids], [len(table)])
        pages, offsets = self._slots_of(page_ids)
        own = torch.arange(len(pages)) // self.page_size == len(page_ids) - 1
        keys, values = self._read_slots(layer, pages[: len(table)], offsets[: len(table)], own[: len(table)])
        return keys.to(self.dtype), values.to(self.dtype)

    def _write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        self._check_slots(slots)
        pages, offsets = slots // self.page_size, slots % self.page_size
        self.store(layer, pages, offsets, (keys.detach().float(), values.detach().float()))
        row, behind = (offsets[:, None] < torch.arange(self.page_size)).nonzero(as_tuple=True)
        self._digests[layer, pages[row], behind] = 0  # pages fill front to back: what stood behind is of another time
        self._note(layer, pages, offsets)

    def dump(self, page_id: int) -> bytes:
        """Codes of K and V, then their scales. Raises IndexError for a page that does not exist."""
        self._check_page(page_id)
        return b"".join(part[:, page_id].numpy().tobytes() for part in (*self.codes, *self.scales))

    def load(self, page_id: int, data: bytes) -> None:
        """Fill a page with what `dump` gave. Raises as `PageStorage.load` does."""
        self._check_load(page_id, data)
        start, page = 0, bytearray(data)
        for part in (*self.codes, *self.scales):
            shape = part[:, page_id].shape
            loaded = torch.frombuffer(page, dtype=part.dtype, count=shape.numel(), offset=start)
            part[:, page_id] = loaded.view(shape)
            start += loaded.nbytes
        for layer in range(self.num_layers):
            self._note(layer, *self._slots_of([page_id]))

    def finish(self, pages: Tensor) -> None:
        """Note that all queries to come stand behind these full pages."""

    def check(self) -> None:
        """Raise AssertionError, naming page and slot, if a slot reads otherwise than when it was written: law 3.

        Every write notes a digest of what its slots read then. `PagedKVCache.check` asks here.
        """
        for layer in range(self.num_layers):
            pages, offsets = self._digests[layer].nonzero(as_tuple=True)
            changed = (self._digest(layer, pages, offsets) != self._digests[layer, pages, offsets]).nonzero()
            for at in changed[:1, 0]:
                raise AssertionError(
                    f"law 3: slot {offsets[at]} of page {pages[at]} reads otherwise than when it was computed "
                    f"(layer {layer}): somebody rewrote it"
                )

    def coded(self, layer: int) -> tuple[CodedPages, CodedPages]:
        """K and V of one layer as the kernel reads them."""
        keys, values = (
            (self.codes[which][layer], self.scales[which][layer], sharing == "channel", self.tails[layer, which])
            for which, sharing in enumerate(self.sharing)
        )
        return keys, values

    def store(self, layer: int, pages: Tensor, offsets: Tensor, rows: Rows) -> None:
        """Store K and V in slots of pages."""
        raise NotImplementedError

    def _copy(self, source: int, target: int, num_slots: int) -> int:
        for codes, scales, sharing in zip(self.codes, self.scales, self.sharing, strict=True):
            codes[:, target, :, :num_slots] = codes[:, source, :, :num_slots]
            shared = slice(num_slots if sharing == "token" else None)
            scales[:, target, :, shared] = scales[:, source, :, shared]
        self._digests[:, target, :num_slots] = self._digests[:, source, :num_slots]
        self._digests[:, target, num_slots:] = 0
        return num_slots * self.bytes_per_token

    def _read_slots(self, layer: int, pages: Tensor, offsets: Tensor, own: Tensor | None = None) -> Rows:
        """K and V of n slots. own: where a tail is read, if there is one; everywhere, if None."""
        tails = self.tail_of[pages].long()
        exact = (tails >= 0) if own is None else (tails >= 0) & own
        found = []
        for which, sharing in enumerate(self.sharing):
            codes = self.codes[which][layer][pages, :, offsets]
            scales = self.scales[which][layer]
            shared = scales[pages, :, offsets, None] if sharing == "token" else scales[pages]
            rows = unpack(codes, self.bits) * shared
            rows[exact] = self.tails[layer, which][tails[exact], :, offsets[exact]]
            found.append(rows)
        return found[K], found[V]

    def _read_pages(self, layer: int, page_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        keys, values = (
            rows.view(-1, self.page_size, *rows.shape[1:]).transpose(1, 2).to(self.dtype)
            for rows in self._read_slots(layer, *self._slots_of(page_ids))
        )
        return keys, values

    def _slots_of(self, page_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All slots of some pages: the page of each, and its place there."""
        pages = torch.tensor(page_ids, dtype=torch.int64).repeat_interleave(self.page_size)
        return pages, torch.arange(self.page_size).repeat(len(page_ids))

    def _note(self, layer: int, pages: Tensor, offsets: Tensor) -> None:
        self._digests[layer, pages, offsets] = self._digest(layer, pages, offsets)

    def _digest(self, layer: int, pages: Tensor, offsets: Tensor) -> Tensor:
        """An odd number, int64, for what each of n slots reads."""
        rows = torch.cat(self._read_slots(layer, pages, offsets), dim=1).flatten(1)
        factors = torch.arange(1, 2 * rows.shape[1], 2) * 0x9E3779B1
        return (rows.view(torch.int32) * factors).sum(1) | 1
