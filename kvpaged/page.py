"""The bytes behind the pages: K and V of every layer, cut into pages of a fixed number of slots."""

import functools
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvpaged.checks import positive_int
from kvpaged.page_table import PageTable, pages_for
from kvpaged.wording import count_of

Rows = Sequence[Sequence[int]] | Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class KVPage:
    """One page, seen through the storage: writing to the views writes to the storage.

    keys, values: [num_layers, num_kv_heads, page_size, head_dim].
    """

    page_id: int
    keys: Tensor
    values: Tensor


class PageStorage:
    """K and V for `num_pages` pages of `page_size` slots, in every layer.

    A page holds its heads one after another, and a head its slots: [page, kv_head, slot, head_dim]. One (page, head) is
    then a small contiguous matrix, which is what attention multiplies with. Every layer uses the same page ids.

    Memory comes zeroed from the operating system when it is first touched, so that a storage of any size opens at once
    and an unwritten slot reads the same on each run. A zero is a plausible number all the same: tests that must notice
    a read of an unwritten slot fill `keys(layer)` and `values(layer)` with NaN first.

    num_copies, bytes_copied: pages that `copy` copied so far, and the bytes in them that it moved.

    Raises ValueError for a size below 1 or a dtype other than float32, float16 and bfloat16.
    """

    # The class that attends to these pages, where they hold something else than K and V; see `kvpaged.attention`.
    attention: Any = None

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype}; pages hold {', '.join(map(str, DTYPES))}")
        self.num_pages = positive_int("num_pages", num_pages)
        self.page_size = positive_int("page_size", page_size)
        self.num_layers = positive_int("num_layers", num_layers)
        self.num_kv_heads = positive_int("num_kv_heads", num_kv_heads)
        self.head_dim = positive_int("head_dim", head_dim)
        self.dtype = dtype
        self.num_copies = 0
        self.bytes_copied = 0
        self.computed_by: object = None  # see `kvpaged.model.compute.claim`
        self._open()

    def _open(self) -> None:
        """Reserve the memory of all pages."""
        shape = (self.num_layers, self.num_pages, self.num_kv_heads, self.page_size, self.head_dim)
        self._keys = lazy_zeros(shape, self.dtype)
        self._values = lazy_zeros(shape, self.dtype)
        # Indexing a tensor costs a microsecond, as much as writing a token: keep the layers' views.
        self._layer_keys, self._layer_values = self._keys.unbind(), self._values.unbind()

    @property
    def kind(self) -> str:
        """What the bytes of a page mean. Load what storage of the same kind and shape has dumped: bytes do not tell."""
        return str(self.dtype)

    @property
    def bytes_per_token(self) -> int:
        """K and V of one token, all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    @property
    def bytes_per_page(self) -> int:
        return self.bytes_per_token * self.page_size

    @property
    def num_bytes(self) -> int:
        """Bytes reserved for all pages, written or not."""
        return self.bytes_per_page * self.num_pages

    def keys(self, layer: int) -> Tensor:
        """K of one layer: [num_pages, num_kv_heads, page_size, head_dim], a view."""
        self._check_layer(layer)
        return self._layer_keys[layer]

    def values(self, layer: int) -> Tensor:
        """V of one layer: [num_pages, num_kv_heads, page_size, head_dim], a view."""
        self._check_layer(layer)
        return self._layer_values[layer]

    def unwatched(self) -> tuple[Tensor, Tensor] | None:
        """K and V of all layers, for one who writes and reads them without a call for each layer.

        None if that would pass by somebody: where pages are of another class, or a method was replaced, of these pages
        or of the class.
        """
        if type(self) is PageStorage and vars(PageStorage) == _AS_WRITTEN and _AS_WRITTEN.keys().isdisjoint(vars(self)):
            return self._keys, self._values
        return None

    def __getitem__(self, page_id: int) -> KVPage:
        """One page as views. Raises IndexError for a page that does not exist."""
        self._check_page(page_id)
        return KVPage(page_id, self._keys[:, page_id], self._values[:, page_id])

    def check_read(self, layer: int, page_tables: Rows, seq_lens: Sequence[int] | Tensor) -> None:
        """Raise IndexError for a layer that does not exist. `read` asks here; so must all that reads pages in place.

        page_tables: page ids in logical order, a row for each reader. seq_lens: the tokens that each row maps. All that
        may be wrong with those, `kvpaged.poison` knows.
        """
        self._check_layer(layer)

    def pages_of(self, table: PageTable) -> list[int]:
        """Return the pages that hold the mapped tokens, in logical order.

        Raises ValueError for a table of another page size, IndexError for a page that does not exist, and when the
        table maps more tokens than its pages have slots.
        """
        if table.page_size != self.page_size:
            raise ValueError(f"the table has pages of {table.page_size} slots, the storage pages of {self.page_size}")
        page_ids = table.page_ids[: pages_for(len(table), self.page_size)]
        if len(page_ids) * self.page_size < len(table):
            raise IndexError(f"the table maps {len(table)} tokens to {len(page_ids)} pages of {self.page_size} slots")
        for position, page_id in enumerate(page_ids):
            if not 0 <= page_id < self.num_pages:
                raise IndexError(
                    f"entry {position} of the page table names page {page_id}; "
                    f"the storage has pages 0..{self.num_pages - 1}"
                )
        return page_ids

    def read(self, layer: int, table: PageTable) -> tuple[Tensor, Tensor]:
        """Return K and V of the mapped tokens in logical order, gathered: each [len(table), num_kv_heads, head_dim].

        Both are contiguous and their own: they stay valid whatever is written later. Raises IndexError for a layer that
        does not exist, and as `pages_of` does.
        """
        page_ids, num_tokens = self.pages_of(table), len(table)
        self.check_read(layer, [page_ids], [num_tokens])
        # A layer is one long list of vectors: those of a page, one head after another, and of a head, slot by slot.
        # A single index_select is twice as fast as fetching whole pages and then swapping slots and heads.
        in_page = np.add.outer(np.arange(self.page_size), np.arange(self.num_kv_heads) * self.page_size)
        first = np.array(page_ids, dtype=np.int64) * (self.num_kv_heads * self.page_size)
        vectors = torch.from_numpy(np.add.outer(first, in_page).ravel()[: num_tokens * self.num_kv_heads])
        shape = (num_tokens, self.num_kv_heads, self.head_dim)
        keys, values = self._layer_keys[layer], self._layer_values[layer]
        return (
            keys.view(-1, self.head_dim).index_select(0, vectors).view(shape),
            values.view(-1, self.head_dim).index_select(0, vectors).view(shape),
        )

    def write(self, layer: int, slot_mapping: Sequence[int] | Tensor, keys: Tensor, values: Tensor) -> None:
        """Store K and V of n tokens of one layer in n different slots.

        slot_mapping: n flat slots, page_id * page_size + slot; a list or an int tensor [n].
        keys, values: [n, num_kv_heads, head_dim], of the storage's dtype.
        Raises IndexError for a layer or slot that does not exist, ValueError for a slot named twice, a wrong shape
        or a tensor on another device, TypeError for a wrong dtype; nothing is written then.
        """
        self._check_layer(layer)
        slots = as_slots(slot_mapping)
        self._check_rows(slots.shape[0], keys, values)
        refuse_other_devices(keys=keys, values=values)
        self._write(layer, slots, keys, values)

    def _write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store K and V of fitting shape and dtype. Raises, as `write` does, for slots that do not fit."""
        key_pages, value_pages = self._layer_keys[layer], self._layer_values[layer]
        write_slots = compiled_write()  # which writes nothing where a slot does not exist or is named twice
        if write_slots is None or not write_slots(slots, keys, values, key_pages, value_pages):
            self._check_slots(slots)
            page_ids, offsets = slots // self.page_size, slots % self.page_size
            key_pages[page_ids, :, offsets] = keys.detach()
            value_pages[page_ids, :, offsets] = values.detach()

    def copy(self, source: int, target: int, num_slots: int) -> None:
        """Copy the first `num_slots` slots of one page to another, in every layer: the copy in copy-on-write.

        Raises IndexError for a page that does not exist, ValueError when `num_slots` is not in 0..page_size or
        source and target are one page; nothing is copied then.
        """
        self._check_page(source)
        self._check_page(target)
        if source == target:
            raise ValueError(f"source and target are both page {source}; copy to another page")
        if not 0 <= num_slots <= self.page_size:
            raise ValueError(f"num_slots is {num_slots}; a page has {self.page_size} slots")
        self.bytes_copied += self._copy(source, target, num_slots)
        self.num_copies += 1

    def _copy(self, source: int, target: int, num_slots: int) -> int:
        """Copy, and return how many bytes that was."""
        self._keys[:, target, :, :num_slots] = self._keys[:, source, :, :num_slots]
        self._values[:, target, :, :num_slots] = self._values[:, source, :, :num_slots]
        return num_slots * self.bytes_per_token

    def dump(self, page_id: int) -> bytes:
        """All bytes of a page: K of every layer, then V. Raises IndexError for a page that does not exist."""
        self._check_page(page_id)
        halves = (self._keys[:, page_id], self._values[:, page_id])
        return b"".join(half.contiguous().view(torch.uint8).numpy().tobytes() for half in halves)

    def load(self, page_id: int, data: bytes) -> None:
        """Fill a page with what `dump` gave, of a storage whose pages are of the same shape and dtype.

        Raises IndexError for a page that does not exist, ValueError for another number of bytes; nothing is written
        then.
        """
        self._check_load(page_id, data)
        halves = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(self.dtype).view(2, *self._keys[:, 0].shape)
        self._keys[:, page_id], self._values[:, page_id] = halves

    def __repr__(self) -> str:
        return (
            f"PageStorage({count_of(self.num_pages, 'page')} of {count_of(self.page_size, 'slot')}, "
            f"{count_of(self.num_layers, 'layer')}, {count_of(self.num_kv_heads, 'kv head')} of {self.head_dim}, "
            f"{self.dtype}, {self.num_bytes:,} bytes)"
        )

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.num_layers:
            raise IndexError(f"layer {layer} does not exist; the storage has layers 0..{self.num_layers - 1}")

    def _check_load(self, page_id: int, data: bytes) -> None:
        self._check_page(page_id)
        if len(data) != self.bytes_per_page:
            raise ValueError(f"{len(data):,} bytes are given, and a page here has {self.bytes_per_page:,}")

    def _check_page(self, page_id: int) -> None:
        if isinstance(page_id, bool) or not 0 <= page_id < self.num_pages:
            raise IndexError(f"page {page_id} does not exist; the storage has pages 0..{self.num_pages - 1}")

    def _check_rows(self, num_slots: int, keys: Tensor, values: Tensor) -> None:
        shape, dtype = (num_slots, self.num_kv_heads, self.head_dim), self.dtype
        if keys.shape == shape == values.shape and keys.dtype == dtype == values.dtype:
            return
        for name, tensor in (("keys", keys), ("values", values)):
            if tensor.shape != shape:
                raise ValueError(
                    f"{name} have shape {tuple(tensor.shape)}, expected {shape}: [slots, num_kv_heads, head_dim]"
                )
            if tensor.dtype != self.dtype:
                raise TypeError(
                    f"{name} are {tensor.dtype}, the pages hold {self.dtype}: convert with .to({self.dtype})"
                )

    def _check_slots(self, slots: Tensor) -> None:
        in_order, num_slots = slots.sort().values, self.num_pages * self.page_size
        for slot in in_order[[0, -1]].tolist() if len(slots) else ():
            if not 0 <= slot < num_slots:
                raise IndexError(f"slot {slot} does not exist; the storage has slots 0..{num_slots - 1}")
        for slot in in_order[1:][in_order[1:] == in_order[:-1]].tolist():
            raise ValueError(f"slot {slot} is named twice in slot_mapping; each token needs a slot of its own")


def as_slots(slot_mapping: Sequence[int] | Tensor) -> Tensor:
    """The same as a contiguous int64 tensor [n]."""
    if isinstance(slot_mapping, Tensor):
        refuse_other_devices(slot_mapping=slot_mapping)
    if isinstance(slot_mapping, Tensor) and slot_mapping.dtype == torch.int64 and slot_mapping.ndim == 1:
        return slot_mapping.contiguous()  # what the engine hands in, for every layer: the case that must cost little
    slots = np.asarray(slot_mapping)
    if slots.ndim != 1:
        raise ValueError(f"slot_mapping has shape {slots.shape}; give one flat slot per token")
    if slots.size and slots.dtype.kind not in "iu":
        raise TypeError(f"slot_mapping holds {slots.dtype}; give ints: page_id * page_size + slot")
    return torch.from_numpy(slots.astype(np.int64))


@functools.cache
def has_numba() -> bool:
    """Whether `kvpaged.kernel` can be used: numba is there, works, and may compile. If not, the log says why, once."""
    reason = _what_keeps_numba()
    if reason is not None:
        logging.getLogger(__name__).warning(
            "attention gathers pages, slowly, and the last bits may depend on what else a batch holds, for there is no "
            "kernel: %s",
            reason,
        )
    return reason is None


def _what_keeps_numba() -> str | None:
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'kvpaged[kernel]')"
    try:
        if importlib.import_module("numba").config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
        importlib.import_module("kvpaged.kernel")
    except Exception as error:  # a broken installation fails as it likes; or no folder can be written to
        return f"{' '.join(str(error).split())} (a folder that can be written to may be named by NUMBA_CACHE_DIR)"
    return None


def refuse_other_devices(**tensors: Tensor) -> None:
    """Raise ValueError for a tensor that the processor cannot read."""
    for name, tensor in tensors.items():
        if not tensor.is_cpu:  # asked at each layer: five times as fast as its device's name
            raise ValueError(f"{name} is on {tensor.device}, and pages are the processor's: call .cpu()")


_AS_WRITTEN = dict(vars(PageStorage))  # so that a method which somebody replaces, to watch it, is noticed


@functools.cache
def compiled_write() -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], bool] | None:
    """`kvpaged.kernel.write_slots`, if there is a kernel."""
    if not has_numba():
        return None
    from kvpaged.kernel import write_slots

    return write_slots


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros whose memory the operating system finds when it is touched.

    Raises MemoryError where it says no at once.
    """
    # torch.zeros touches every byte (seconds per gigabyte), torch.empty may hand out what another tensor left behind.
    # numpy's zeros leave the work to the operating system, and ask it for huge pages. Rows should begin with a cache
    # line, which is 64 bytes.
    num_bytes = dtype.itemsize
    for size in shape:
        num_bytes *= size
    try:
        memory = np.zeros(num_bytes + 64, dtype=np.uint8)
    except (MemoryError, ValueError):  # as much as numpy cannot count
        sizes = f"{shape[1]:,} pages take {num_bytes / 1e9:,.0f} GB of keys and as much of values"
        raise MemoryError(f"{sizes}: ask for fewer pages, or smaller ones") from None
    start = -memory.ctypes.data % 64
    return torch.from_numpy(memory[start : start + num_bytes]).view(dtype).view(shape)
