"""The face of this room: one pool, one prefix cache, and sequences with a table for each group of layers."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain, count

from kvpaged.checks import check_salt
from kvpaged.events import EventKind, EventLog
from kvpaged.hybrid.groups import Group
from kvpaged.hybrid.prefix_cache import NULL_PAGE, GroupedPrefixCache
from kvpaged.hybrid.sequence import GroupedSequence
from kvpaged.laws import check_references
from kvpaged.page_pool import PagePool
from kvpaged.page_table import pages_for
from kvpaged.tokens import as_tokens, pack

# Who owns a page; which group's share of which tokens (all up to its end, packed) it holds; whether they fill it.
_Claim = tuple[str, tuple[int, Hashable, bytes], bool]


class GroupedKVCache:
    """Like `PagedKVCache`, for layers of several kinds. Its sequences share whole pages, and cannot be forked."""

    def __init__(
        self,
        groups: Sequence[Group],
        num_pages: int,
        page_size: int,
        recomputed_pages: int = 0,
        events: EventLog | None = None,
    ) -> None:
        """One of the pages becomes the null page. recomputed_pages: see `GroupedPrefixCache`.

        In the log, each group of a sequence is a sequence of its own: group g of sequence i has number i * groups + g.
        """
        self.groups = list(groups)
        self.pool = PagePool(num_pages)
        self.events = events if events is not None else EventLog(recording=False)
        self.prefix = GroupedPrefixCache(self.pool, self.groups, page_size, recomputed_pages, self.events)
        self.page_size = page_size
        self.sequences: dict[GroupedSequence, None] = {}  # in the order in which they began
        self.ids = count()
        self.pool.allocate()  # NULL_PAGE
        self.events.add(EventKind.SET_ASIDE, None, (NULL_PAGE,))

    def sequence(self, prompt_tokens: Iterable[int], cache_salt: Hashable = None) -> GroupedSequence:
        """Begin a sequence. It owns what it needs of its cached beginning; slots for more, it reserves as it goes.

        Raises ValueError for an empty prompt, TypeError or ValueError for what is no token, TypeError for what is no
        salt.
        """
        check_salt(cache_salt)
        tokens = as_tokens(prompt_tokens)[0]
        if not tokens:
            raise ValueError("the prompt is empty; a sequence needs at least one token to compute logits from")
        sequence = GroupedSequence(self, tokens, self.prefix.match(tokens[:-1], cache_salt), cache_salt)
        self.sequences[sequence] = None
        return sequence

    def check(self) -> None:
        """Raise AssertionError, naming the page, if a law of ownership is broken.

        First law: what the holders own is what the pool counts, and a sequence owns just what a token to come will
        read. Second and third law: a page with two owners is finished, and holds the same to both.
        """
        claims: defaultdict[int, list[_Claim]] = defaultdict(list)
        claims[NULL_PAGE] = [("the cache", (-1, None, b""), True)]
        for page_id, claim in chain(self._claims_of_sequences(), self._claims_of_prefix_cache()):
            claims[page_id].append(claim)
        check_references(self.pool, [(claim[0], page_id) for page_id, owned in claims.items() for claim in owned])
        for page_id, owned in sorted(claims.items()):
            owners = ", ".join(owner for owner, _, _ in owned)
            assert len({held for _, held, _ in owned}) <= 1, f"law 2: page {page_id} is not the same to {owners}"
            assert len(owned) < 2 or owned[0][2], f"law 3: page {page_id} of {owners} is shared, but not finished"

    def _claims_of_sequences(self) -> Iterator[tuple[int, _Claim]]:
        size = self.page_size
        for sequence in self.sequences:
            who, computed = f"a sequence of {len(sequence.tokens)} tokens", sequence.tokens[: sequence.num_computed]
            for group, ((kind, _), table) in enumerate(zip(self.groups, sequence.tables, strict=True)):
                first = kind.needed(len(computed), size).start
                assert len(table) == pages_for(sequence.num_slots, size), f"{who} maps {sequence.num_slots} to {table}"
                for index, page_id in enumerate(table):
                    has = f"{who} has page {page_id} as logical page {index} of group {group}"
                    assert (page_id == NULL_PAGE) == (index < first), f"law 1: {has}, and reads from {first} on"
                    if page_id != NULL_PAGE:
                        held = group, sequence.cache_salt, pack(computed[: (index + 1) * size])
                        yield page_id, (who, held, len(computed) >= (index + 1) * size)

    def _claims_of_prefix_cache(self) -> Iterator[tuple[int, _Claim]]:
        num_pages = 0
        for node, salt, tokens in self.prefix.nodes():
            for group, page_id in enumerate(node.pages):
                if page_id != NULL_PAGE:
                    num_pages += 1
                    yield page_id, ("the prefix cache", (group, salt, tokens), True)
        assert num_pages == len(self.prefix), f"the prefix cache holds {num_pages} pages, but says {len(self.prefix)}"
