"""A cache with a tier, on a storage in which each slot remembers the salt and all the tokens that it was computed from.

Whatever a sequence can see is compared with what its own text says. So a page that comes back wrong, or late, is found.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

from kvpaged import OutOfPages, Sequence
from kvpaged.tier import RecordFile, Store, Tier, TieredKVCache
from support.slot_storage import SlotStorage

PAGE_SIZE = 4
KEY_BYTES = 300


class PickledSlots(SlotStorage):
    """Slots whose pages can be dumped and loaded."""

    bytes_per_page = 4096

    def dump(self, page_id: int) -> bytes:
        slots = range(page_id * self.page_size, (page_id + 1) * self.page_size)
        return pickle.dumps([self.slots.get(slot) for slot in slots]).ljust(self.bytes_per_page, b"\0")

    def load(self, page_id: int, data: bytes) -> None:
        for offset, value in enumerate(pickle.loads(data)):
            self.slots[page_id * self.page_size + offset] = value


class World:
    """A cache, its tier, and the sequences that live in it."""

    def __init__(
        self,
        folder: Path,
        num_pages: int = 12,
        store: Store = Store.AT_ONCE,
        num_records: int = 64,
        computed_by: bytes = b"",
    ) -> None:
        self.path = folder / "tier"
        self.storage = PickledSlots(num_pages, PAGE_SIZE)
        self.records = RecordFile(self.path, num_records, KEY_BYTES, self.storage.bytes_per_page)
        self.tier = Tier(self.records, PAGE_SIZE, computed_by)
        self.cache = TieredKVCache(num_pages, PAGE_SIZE, self.tier, store, self.storage)

    def begin(self, prompt: list[int], salt: Hashable = None) -> Sequence:
        """A sequence all of whose prompt is computed."""
        sequence = self.cache.sequence(prompt, salt)
        self.look(sequence)
        self.compute(sequence)
        return sequence

    def serve(self, prompt: list[int], salt: Hashable = None) -> int:
        """Begin, compute and release; return how many tokens were found."""
        sequence = self.begin(prompt, salt)
        sequence.release()
        self.cache.check()
        return sequence.num_cached_tokens

    def compute(self, sequence: Sequence) -> None:
        start, stop = sequence.num_computed, len(sequence)
        for index, slot in enumerate(sequence.slot_mapping(start, stop), start):
            assert self.cache.pool.ref_count(slot // PAGE_SIZE) == 1, "a write to a page with two owners"
            self.storage.slots[slot] = (sequence.cache_salt, tuple(sequence.tokens[: index + 1]))
        sequence.mark_computed()

    def look(self, sequence: Sequence) -> None:
        """See that each computed slot holds what this very text says."""
        for index, slot in enumerate(sequence.slot_mapping(0, sequence.num_computed)):
            expected = (sequence.cache_salt, tuple(sequence.tokens[: index + 1]))
            assert self.storage.slots[slot] == expected, f"slot {slot} holds {self.storage.slots[slot]}, not {expected}"

    def damage(self, record: int, offset: int) -> None:
        """Turn a bit of a record in the file."""
        with open(self.path, "r+b") as file:
            file.seek(self.records._start(record) + offset)
            [byte] = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte ^ 4]))


def random_history(world: World, seed: int, num_steps: int) -> Counter[str]:
    """Requests that share beginnings, grow, fork and end, while pages move and records are damaged."""
    choose, counts, live = random.Random(seed), Counter[str](), []
    cache = world.cache
    for _ in range(num_steps):
        if not live or (len(live) < 3 and choose.random() < 0.4):
            prompt = [choose.randrange(2) for _ in range(choose.randint(1, 16))]
            try:
                before = world.tier.num_read
                live.append(world.begin(prompt, choose.choice([None, "a"])))
                counts["found"] += live[-1].num_cached_tokens
                counts["brought back"] += world.tier.num_read - before
            except OutOfPages:
                counts["no room"] += 1
        else:
            sequence, what = (
                choose.choice(live),
                choose.choice(["grow"] * 4 + ["fork", "end", "end", "run", "evict", "harm"]),
            )
            counts[what] += 1
            try:
                if what == "grow":
                    sequence.append(choose.randrange(2))
                    world.compute(sequence)
                elif what == "fork" and len(live) < 4:
                    live.append(sequence.fork())
                elif what == "end":
                    live.remove(sequence)
                    sequence.release()
                elif what == "run":
                    cache.outbound.run(choose.randint(1, 3))
                elif what == "evict":
                    cache.prefix.evict(choose.randint(1, 5))
                elif what == "harm":
                    world.damage(choose.randrange(world.records.num_records), choose.randrange(world.records._stride))
            except OutOfPages:
                live.remove(sequence)
                sequence.release()
        cache.check()
        for sequence in live:
            world.look(sequence)
    for sequence in live:
        sequence.release()
    cache.outbound.run()
    cache.check()
    cache.prefix.clear()
    assert cache.pool.num_used == len(cache.transfers) == 0
    return counts
