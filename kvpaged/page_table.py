"""Where a sequence's tokens are: logical token index -> (page id, slot)."""

from collections.abc import Iterable

from kvpaged.checks import positive_int, whole


class PageTable:
    """The pages of one sequence, in logical order, and how many tokens they hold.

    ::

        token index   0 1 2 3 | 4 5 6 7 | 8 9          num_tokens = 10, page_size = 4
        page_ids         5    |    2    |  7
        slot          0 1 2 3 | 0 1 2 3 | 0 1 . .      the last page alone may be partly filled

    vLLM calls it a block table. The table owns nothing: its sequence owns one reference to each page in it.
    """

    __slots__ = ("num_tokens", "page_ids", "page_size")

    def __init__(self, page_size: int, page_ids: Iterable[int] = (), num_tokens: int = 0) -> None:
        """Raises ValueError when `num_tokens` do not need exactly the pages given."""
        self.page_size = positive_int("page_size", page_size)
        self.page_ids = list(page_ids)
        self.num_tokens = num_tokens if num_tokens.__class__ is int else whole("num_tokens", num_tokens)
        if num_tokens < 0 or len(self.page_ids) != pages_for(num_tokens, page_size):
            raise ValueError(
                f"{num_tokens} tokens in pages of {page_size} need {pages_for(num_tokens, page_size)} pages, "
                f"but {len(self.page_ids)} are given"
            )

    def __len__(self) -> int:
        """Tokens mapped."""
        return self.num_tokens

    def lookup(self, token_index: int) -> tuple[int, int]:
        """Return the (page id, slot) of a token. Raises IndexError outside 0 <= token_index < len(table)."""
        if not 0 <= token_index < self.num_tokens:
            raise IndexError(f"token index {token_index} is outside this table of {self.num_tokens} tokens")
        return self.page_ids[token_index // self.page_size], token_index % self.page_size

    def slot_mapping(self, start: int, stop: int) -> list[int]:
        """Return the flat slots, page_id * page_size + slot, of tokens start to stop - 1.

        Raises IndexError unless 0 <= start <= stop <= len(table).
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} are not within this table of {self.num_tokens} tokens")
        size, ids = self.page_size, self.page_ids
        if stop - start == 1:  # decode: one token, on every step of every sequence
            return [ids[start // size] * size + start % size]
        pages = ids[start // size : pages_for(stop, size)]
        slots = [slot for page_id in pages for slot in range(page_id * size, page_id * size + size)]
        return slots[start % size : start % size + stop - start]

    def extend(self, page_ids: Iterable[int], num_tokens: int) -> None:
        """Map `num_tokens` more tokens, into the free slots of the last page and then into `page_ids`.

        Raises ValueError when that needs more or fewer pages; nothing is then mapped.
        """
        added = list(page_ids)
        if num_tokens.__class__ is not int:
            num_tokens = whole("num_tokens", num_tokens)
        total = self.num_tokens + num_tokens
        if num_tokens < 0 or len(self.page_ids) + len(added) != pages_for(total, self.page_size):
            needed = pages_for(total, self.page_size) - len(self.page_ids)
            raise ValueError(f"{num_tokens} more tokens need {needed} more pages, but {len(added)} are given")
        self.page_ids += added
        self.num_tokens = total

    def truncate(self, num_tokens: int) -> list[int]:
        """Forget all tokens from `num_tokens` on; return the page ids no longer mapped, for their owner to release.

        Raises ValueError unless 0 <= num_tokens <= len(table).
        """
        num_tokens = whole("num_tokens", num_tokens)
        if not 0 <= num_tokens <= self.num_tokens:
            raise ValueError(f"cannot truncate {self.num_tokens} tokens to {num_tokens}")
        kept = pages_for(num_tokens, self.page_size)
        dropped = self.page_ids[kept:]
        del self.page_ids[kept:]
        self.num_tokens = num_tokens
        return dropped

    def __repr__(self) -> str:
        return f"PageTable(page_size={self.page_size}, page_ids={self.page_ids}, num_tokens={self.num_tokens})"


def pages_for(num_tokens: int, page_size: int) -> int:
    """Count the pages that `num_tokens` tokens need: num_tokens / page_size, rounded up."""
    return -(-num_tokens // page_size)
