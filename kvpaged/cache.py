"""The face of the memory system: the memory in which sequences begin."""

from collections.abc import Hashable, Iterable

from kvpaged.checks import check_salt
from kvpaged.events import EventKind
from kvpaged.laws import check
from kvpaged.memory import CheckedStorage, Memory
from kvpaged.sequence import Sequence
from kvpaged.tokens import as_tokens
from kvpaged.wording import count_of


class PagedKVCache(Memory[Sequence]):
    """Begins sequences, and shares what they have in common. Its parts: `pool`, `prefix`, `storage` and `events`.

    Without a storage it is bookkeeping alone: it runs anywhere, and a simulation of a million pages costs no KV.

    One thread at a time, as for a list of Python's: an `append` is too short to ask each time who calls. An engine
    asks, and refuses a second thread.
    """

    def sequence(self, prompt_tokens: Iterable[int], cache_salt: Hashable = None) -> Sequence:
        """Begin a sequence: it owns what is cached of its prompt, and pages for the rest.

        Only sequences with the same `cache_salt` share cached pages. A salt is None, a str, bytes, an int, or a tuple
        of these; nothing of a derived class, and no bool. Raises ValueError for an empty prompt, TypeError or
        ValueError for what is no token, TypeError for what is no salt, OutOfPages when the pages do not suffice;
        nothing is then changed (but see `PrefixCache.allocate_many`: pages in use may count as used).
        """
        check_salt(cache_salt)
        tokens, packed = as_tokens(prompt_tokens)
        if not tokens:
            raise ValueError("the prompt is empty; a sequence needs at least one token to compute logits from")
        return Sequence.begin(self, tokens, packed, cache_salt)

    @property
    def holds_any(self) -> bool:
        """Whether it holds keys and values of any token."""
        return len(self.prefix) > 0 or any(sequence.num_computed for sequence in self.sequences)

    def salvage(self, kept: Iterable[Sequence]) -> None:
        """Keep these sequences as they stand, and nothing else, whatever an interrupt left half done.

        Nothing half done is asked: the tables of what is kept say who owns what, the prefix cache begins empty (and is
        shown what is kept as it goes on), and all other sequences are as released. Pages that somebody owns without a
        sequence are free then. If this is interrupted too, it can be begun again.
        """
        kept = list(kept)
        for sequence in self.sequences.difference(kept):
            sequence.abandon()
        self.sequences = set(kept)
        self.prefix.forget()
        self.transfers.forget()
        for sequence in kept:
            sequence.forget_cached()
        self.pool.recount(page_id for sequence in kept for page_id in sequence.table.page_ids)
        self.events.add(EventKind.SALVAGE)
        for sequence in kept:
            self.events.add(EventKind.BEGIN, sequence.id, (), tuple(sequence.tokens), sequence.num_computed)
            self.events.add(EventKind.SHARE, sequence.id, tuple(sequence.table.page_ids))

    def check(self) -> None:
        """Raise AssertionError, naming the page, if a law of ownership is broken."""
        check(self.pool, self.prefix, self.sequences, self.transfers)
        if isinstance(self.storage, CheckedStorage):
            self.storage.check()

    def _repr_html_(self) -> str | None:
        """Show a notebook the map of the pages, unless they are too many to tell apart."""
        from kvpaged.figures.page_map import page_map  # the one room above that this one knows, when somebody looks

        return page_map(self)._repr_html_() if self.pool.num_pages <= 512 else None

    def __repr__(self) -> str:
        return (
            f"PagedKVCache(num_pages={self.pool.num_pages}, page_size={self.page_size}, "
            f"{count_of(len(self.sequences), 'sequence')}, {count_of(len(self.prefix), 'page')} cached, "
            f"{self.pool.num_free} free)"
        )
