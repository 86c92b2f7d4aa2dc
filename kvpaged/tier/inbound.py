"""Pages on their way into the pool. Until the prefix cache has them, they are owned by a transfer."""

from collections.abc import Callable, Hashable
from typing import Any

from kvpaged.memory import Memory
from kvpaged.page_pool import OutOfPages
from kvpaged.page_table import pages_for
from kvpaged.tokens import TOKEN_BYTES


def bring_in(
    memory: Memory[Any],
    tokens: bytes,
    cache_salt: Hashable,
    read: Callable[[int], bytes | None],
) -> int:
    """Have the prefix cache own the pages of packed tokens; return how many tokens came that it did not have.

    read: gives the bytes of logical page i, or None if they cannot be had; what comes after is then left out. Nothing
    comes if the pages that are free or can be evicted are too few. Whatever `read` or the storage raises, is raised
    again; then nothing has come, and every page is given back.
    """
    size, num_tokens = memory.page_size, len(tokens) // TOKEN_BYTES
    storage: Any = memory.storage
    match = memory.prefix.match_packed(tokens, cache_salt)
    if match.num_tokens == num_tokens:
        return 0
    had = match.without_partial(size).page_ids
    transfer = memory.transfers.begin(tokens, had)  # else they might be evicted now
    try:
        missing = pages_for(num_tokens, size) - len(had)
        memory.transfers.adopt(transfer, memory.prefix.allocate_many(missing))
        good = len(had)
        while good < len(transfer.page_ids) and (data := read(good)) is not None:
            if storage is not None:
                storage.load(transfer.page_ids[good], data)
            good += 1
        if good > len(had):
            tokens = tokens[: good * size * TOKEN_BYTES]
            memory.prefix.insert_packed(tokens, transfer.page_ids[:good], cache_salt)
        return max(0, min(num_tokens, good * size) - match.num_tokens)
    except OutOfPages:
        return 0
    finally:
        memory.transfers.end(transfer)
