"""A storage that catches who misuses it: freed and unwritten slots hold NaN, and every access is checked first.

What AddressSanitizer (Serebryany et al. 2012) is to a C program. For tests and for debugging, as every write, copy and
read costs a look at the live sequences. Switched on by `Engine(model, poisoned=True)`, or by hand::

    storage = PoisonedStorage(num_pages=8, page_size=4, num_layers=2, num_kv_heads=2, head_dim=32)
    cache = PagedKVCache(8, 4, storage=storage)
    storage.watch(cache)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence as Listed
from typing import Any

import numpy as np
from torch import Tensor

from kvpaged.cache import PagedKVCache
from kvpaged.events import EventKind, Fields
from kvpaged.page import PageStorage, Rows, as_slots
from kvpaged.page_table import pages_for
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of

NAN = float("nan")


class PoisonError(AssertionError):
    """Memory was used by somebody who may not use it so. The message names page, slot and sequence where known."""


class PoisonedStorage(PageStorage):
    """A `PageStorage` that knows which slots are computed, and looks up who owns them.

    Raises PoisonError, before anything is touched, for

    - a write to a page that is free, that has several owners or none but the prefix cache, or to a slot whose token is
      computed already or not there yet;
    - a read through a table that is no live sequence's, or of a slot that nobody computed since its page was allocated;
    - a copy to a page that is free or owned by more than its one new owner, or from a page that is free;
    - tokens marked as computed whose K and V were never written. (This alone is noticed afterwards: the sequence counts
      them as computed, and should be thrown away.)

    A page is filled with NaN as soon as its last owner lets go (a sequence, the prefix cache or a transfer), so that
    not even an access that no check sees can find what it held.
    """

    _cache: PagedKVCache | None = None

    def watch(self, cache: PagedKVCache) -> None:
        """Poison all pages, and learn from now on who owns which.

        Raises ValueError if the cache has another storage, or sequences.
        """
        if cache.storage is not self or cache.sequences:
            raise ValueError("watch a cache that was opened with this storage, before its first sequence begins")
        self._cache = cache
        self._computed = np.zeros((self.num_layers, self.num_pages, self.page_size), dtype=bool)
        self._holders: dict[int, list[tuple[Sequence, int]]] | None = None  # by page; None when something changed
        self._poison(range(self.num_pages))
        cache.events.listeners.append(self.notice)

    def write(self, layer: int, slot_mapping: Listed[int] | Tensor, keys: Tensor, values: Tensor) -> None:
        """Store K and V of tokens that are reserved and not computed, in pages that their sequences own alone."""
        slots = as_slots(slot_mapping)
        self._check_slots(slots)
        pages, offsets = np.divmod(slots.numpy(), self.page_size)
        for page_id, slot in zip(pages.tolist(), offsets.tolist(), strict=True):
            self._check_write(layer, page_id, slot)
        super().write(layer, slots, keys, values)
        self._computed[layer, pages, offsets] = True

    def copy(self, source: int, target: int, num_slots: int) -> None:
        """Copy slots to a page that nobody but its one new owner knows yet."""
        self._check_page(source)
        self._check_page(target)
        what = f"copying page {source} to page {target}"
        for page_id in (source, target):
            if not self._watched.pool.ref_count(page_id):
                raise PoisonError(f"{what}: page {page_id} is free: use after release")
        if self._watched.pool.ref_count(target) > 1 or self._find(target):
            raise PoisonError(f"{what}: page {target} is in use by {self._owners(target)}; copy to a new page")
        super().copy(source, target, num_slots)
        self._computed[:, target, :num_slots] = self._computed[:, source, :num_slots]

    def dump(self, page_id: int) -> bytes:
        """Read out a page that somebody owns."""
        self._check_page(page_id)
        if not self._watched.pool.ref_count(page_id):
            raise PoisonError(f"page {page_id} is read out, and it is free: use after release")
        return super().dump(page_id)

    def load(self, page_id: int, data: bytes) -> None:
        """Fill a page that has one owner, who is no sequence."""
        self._check_page(page_id)
        if self._watched.pool.ref_count(page_id) != 1 or self._find(page_id):
            raise PoisonError(f"page {page_id} is filled, but it is in use by {self._owners(page_id) or 'nobody'}")
        super().load(page_id, data)
        self._computed[:, page_id] = ~self[page_id].keys.isnan().any(-1).any(1).numpy()  # [layers, slots]

    def check_read(self, layer: int, page_tables: Rows, seq_lens: Listed[int] | Tensor) -> None:
        """Raise PoisonError unless each row is a live sequence's, and the tokens that it maps are computed."""
        super().check_read(layer, page_tables, seq_lens)
        for row, num_tokens in zip(_listed(page_tables), _listed(seq_lens), strict=True):
            needed = pages_for(num_tokens, self.page_size)
            page_ids = list(row[:needed])
            if len(page_ids) < needed:
                pages = count_of(len(page_ids), "page")
                raise PoisonError(f"{num_tokens} tokens are read in layer {layer}, through {pages} only")
            if not page_ids:
                continue
            reader = self._reader_of(page_ids, num_tokens)
            self._check_computed(reader, page_ids, num_tokens, [layer])
            if reader is None:
                raise PoisonError(
                    f"{num_tokens} tokens are read through pages {page_ids} in layer {layer}: "
                    "no live sequence has such a table, so somebody reads what is not his"
                )

    def notice(self, event: Fields) -> None:
        """Follow what the cache does: called after each event."""
        kind, sequence_id, pages, _, number = event
        self._holders = None
        if kind in (EventKind.RELEASE, EventKind.TRUNCATE, EventKind.EVICT, EventKind.TRANSFER):
            self._poison(page_id for page_id in pages if not self._watched.pool.ref_count(page_id))
        if kind == EventKind.SALVAGE:
            free = (page_id for page_id in range(self.num_pages) if not self._watched.pool.ref_count(page_id))
            self._poison(free)
        if kind not in (EventKind.TRUNCATE, EventKind.COMPUTE):
            return
        sequence = next(each for each in self._watched.sequences if each.id == sequence_id)
        page_ids = sequence.table.page_ids[: pages_for(number, self.page_size)]
        if kind == EventKind.COMPUTE:
            self._check_computed(sequence, page_ids, number, range(self.num_layers))
        elif number % self.page_size and self._watched.pool.ref_count(page_ids[-1]) == 1:
            self._poison(page_ids[-1:], number % self.page_size)  # what it forgot, and nobody else sees

    @property
    def _watched(self) -> PagedKVCache:
        if self._cache is None:
            raise ValueError("this storage knows no owners yet: call storage.watch(cache) first")
        return self._cache

    def _poison(self, page_ids: Iterable[int], first_slot: int = 0) -> None:
        for page_id in page_ids:
            self._spoil(page_id, first_slot)
            self._computed[:, page_id, first_slot:] = False

    def _spoil(self, page_id: int, first_slot: int) -> None:
        """Write NaN over the last slots of a page."""
        self._keys[:, page_id, :, first_slot:] = NAN
        self._values[:, page_id, :, first_slot:] = NAN

    def _find(self, page_id: int) -> list[tuple[Sequence, int]]:
        """The live sequences whose tables name a page, each with the page's place in its table."""
        watched = self._watched  # which says so, if there is nobody to look for
        if self._holders is None:
            self._holders = defaultdict(list)
            for sequence in sorted(watched.sequences, key=lambda each: each.id):
                for index, held in enumerate(sequence.table.page_ids):
                    self._holders[held].append((sequence, index))
        return self._holders.get(page_id, [])

    def _reader_of(self, page_ids: list[int], num_tokens: int) -> Sequence | None:
        """The live sequence whose first tokens these pages hold."""
        for sequence, _ in self._find(page_ids[0]):
            if sequence.table.page_ids[: len(page_ids)] == page_ids and num_tokens <= len(sequence):
                return sequence
        return None

    def _owners(self, page_id: int) -> str:
        names = [f"sequence {sequence.id}" for sequence, _ in self._find(page_id)]
        cached = self._watched.pool.ref_count(page_id) - len(names)
        return ", ".join(names + ["the prefix cache"] * cached)

    def _check_write(self, layer: int, page_id: int, slot: int) -> None:
        what = f"slot {slot} of page {page_id} is written in layer {layer}"
        num_owners, holders = self._watched.pool.ref_count(page_id), self._find(page_id)
        if not num_owners:
            raise PoisonError(f"{what}, but the page is free: use after release")
        if num_owners > 1 or not holders:
            raise PoisonError(f"{what}, but it belongs to {self._owners(page_id)}: only a sole owner writes (law 2)")
        [(sequence, index)] = holders
        token = index * self.page_size + slot
        if not sequence.num_computed <= token < len(sequence):
            raise PoisonError(
                f"{what}: that is token {token} of sequence {sequence.id}, which has {len(sequence)} tokens and the "
                f"first {sequence.num_computed} computed; pages fill once, front to back (law 3)"
            )

    def _check_computed(
        self, sequence: Sequence | None, page_ids: list[int], num_tokens: int, layers: Iterable[int]
    ) -> None:
        for layer in layers:
            computed = self._computed[layer, page_ids].reshape(-1)[:num_tokens]
            if computed.all():
                continue
            token = int(computed.argmin())
            page_id, slot = page_ids[token // self.page_size], token % self.page_size
            reader = f"sequence {sequence.id}" if sequence is not None else "a table that is no live sequence's"
            free = "" if self._watched.pool.ref_count(page_id) else ", and the page is free: use after release"
            raise PoisonError(
                f"token {token} of {reader} is slot {slot} of page {page_id}, which nobody has computed in layer "
                f"{layer} since the page was allocated{free}"
            )


def _listed(values: Listed[Any] | Tensor) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else list(values)
