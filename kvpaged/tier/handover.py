"""Pages of one text, from one cache to another: what a machine that computes prompts sends to one that answers."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from kvpaged.memory import Memory
from kvpaged.tier.inbound import bring_in
from kvpaged.tokens import TOKEN_BYTES, as_tokens, pack, unpack


@dataclass(frozen=True)
class Parcel:
    """The pages of some tokens, as bytes. It can be pickled, so it can go to another process."""

    tokens: list[int]
    cache_salt: Hashable
    computed_by: bytes
    pages: list[bytes]
    checksums: list[int]


def take_out(
    memory: Memory[Any],
    tokens: Iterable[int],
    cache_salt: Hashable = None,
    computed_by: bytes = b"",
) -> Parcel:
    """Copy out what the prefix cache has of a text, to the token; the pages stay where they are.

    Raises ValueError for a cache without a storage, and for a last page that stands in an exact tail.
    """
    storage: Any = memory.storage
    if storage is None:
        raise ValueError("this cache keeps books only: there are no bytes to hand over")
    packed = as_tokens(tokens)[1]
    match = memory.prefix.match_packed(packed, cache_salt)
    packed = packed[: match.num_tokens * TOKEN_BYTES]
    transfer = memory.transfers.begin(packed, match.page_ids)
    try:
        pages = [storage.dump(page_id) for page_id in match.page_ids]
    finally:
        memory.transfers.end(transfer)
    return Parcel(unpack(packed), cache_salt, computed_by, pages, [crc32(page) for page in pages])


def put_in(memory: Memory[Any], parcel: Parcel, computed_by: bytes = b"") -> int:
    """Have another prefix cache own these pages; return how many tokens came that it did not have.

    computed_by: the same fingerprint as at `take_out`; without one, nobody looks. A damaged page, and all after it, are
    left out. Raises ValueError for pages of other weights, another kind or size, and as `bring_in` does.
    """
    if parcel.computed_by != computed_by:
        raise ValueError("these pages are of other weights or another kind: load the same on both sides")

    def read(index: int) -> bytes | None:
        page = parcel.pages[index]
        return page if crc32(page) == parcel.checksums[index] else None

    return bring_in(memory, pack(parcel.tokens), parcel.cache_salt, read)
