"""The laws of ownership, as a check of everything that is alive."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvpaged.page_pool import PagePool
from kvpaged.page_table import pages_for
from kvpaged.prefix_cache import PrefixCache, PrefixNode
from kvpaged.sequence import Sequence


class _Claim(NamedTuple):
    """What one owner of a page says that the page holds."""

    owner: str
    before: int  # a number for all tokens before the page: equal numbers, equal tokens
    tokens: tuple[int, ...]


def check(pool: PagePool, prefix: PrefixCache, sequences: Iterable[Sequence]) -> None:
    """Raise AssertionError, naming the page, if the pool and the holders disagree, or two holders about a page.

    First law: for each page, the references that its holders own are those that the pool counts.
    Second and third law: what two owners see in a page is the same, in the slots that both use. Wherever somebody wrote
    to a page that was not theirs alone, the owners' tokens differ.
    Costs time in proportion to the pool and to all tokens: it is for tests, and for the reader.
    """
    claims: defaultdict[int, list[_Claim]] = defaultdict(list)
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    for sequence in sorted(sequences, key=lambda each: each.id):
        for page_id, claim in _claims_of_sequence(sequence, numbers):
            claims[page_id].append(claim)
    for page_id, claim in _claims_of_prefix_cache(prefix, numbers):
        claims[page_id].append(claim)

    num_free = 0
    for page_id in range(pool.num_pages):
        counted, owned = pool.ref_count(page_id), claims.get(page_id, [])
        num_free += not counted
        owners = ", ".join(claim.owner for claim in owned) or "nobody"
        assert counted == len(owned), (
            f"law 1: page {page_id} has {counted} reference{'s' * (counted != 1)} in the pool, "
            f"but {len(owned)} owner{'s' * (len(owned) != 1)}: {owners}"
        )
        _agree(page_id, owned)
    assert num_free == pool.num_free, (
        f"law 1: {num_free} pages have no owner, but the pool says {pool.num_free} are free"
    )


def _agree(page_id: int, claims: list[_Claim]) -> None:
    fullest = max(claims, key=lambda claim: len(claim.tokens), default=None)
    for claim in claims:
        assert fullest is not None
        both = f"both {claim.tokens} for {claim.owner} and {fullest.tokens} for {fullest.owner}"
        assert claim.tokens == fullest.tokens[: len(claim.tokens)], f"law 2: page {page_id} cannot hold {both}"
        assert claim.before == fullest.before, f"law 2: page {page_id} cannot hold {both}, after different tokens"


def _claims_of_sequence(
    sequence: Sequence, numbers: dict[tuple[int, tuple[int, ...]], int]
) -> Iterator[tuple[int, _Claim]]:
    name, table, size = f"sequence {sequence.id}", sequence.table, sequence.table.page_size
    assert len(sequence.tokens) == len(table), f"{name} has {len(sequence.tokens)} tokens, but maps {len(table)}"
    assert len(table.page_ids) == pages_for(len(table), size), f"{name} maps {len(table)} tokens to {table.page_ids}"
    assert len(set(table.page_ids)) == len(table.page_ids), f"{name} has a page twice: {table.page_ids}"
    assert sequence.num_computed <= len(table), f"{name} has {sequence.num_computed} of {len(table)} tokens computed"
    before = 0
    for index, page_id in enumerate(table.page_ids):
        tokens = tuple(sequence.tokens[index * size : (index + 1) * size])
        yield page_id, _Claim(name, before, tokens)
        before = numbers.setdefault((before, tokens), len(numbers) + 1)


def _claims_of_prefix_cache(
    prefix: PrefixCache, numbers: dict[tuple[int, tuple[int, ...]], int]
) -> Iterator[tuple[int, _Claim]]:
    number_of: dict[PrefixNode, int] = {}
    held = 0
    for node in prefix.nodes():
        held += 1
        assert node.parent is not None
        assert not node.children or len(node.tokens) == prefix.page_size, (
            f"page {node.page_id} is not full, yet continued"
        )
        before = number_of.get(node.parent, 0)
        tokens = tuple(node.tokens)
        number_of[node] = numbers.setdefault((before, tokens), len(numbers) + 1)
        yield node.page_id, _Claim("the prefix cache", before, tokens)
    assert held == len(prefix), f"the prefix cache holds {held} pages, but says {len(prefix)}"
