"""The judge: three checks of everything that is alive, one for each law of ownership.

They raise AssertionError by themselves, so that they judge under `python -O` too.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvpaged.page_pool import PagePool
from kvpaged.page_table import pages_for
from kvpaged.prefix_cache import PrefixCache, PrefixNode
from kvpaged.sequence import Sequence
from kvpaged.tokens import unpack
from kvpaged.transfers import Transfer
from kvpaged.wording import count_of


class Claim(NamedTuple):
    """What one owner of a page says that the page holds."""

    page_id: int
    owner: str
    before: int  # a number for all the tokens before the page: equal numbers, equal tokens
    tokens: tuple[int, ...]


def check(
    pool: PagePool, prefix: PrefixCache, sequences: Iterable[Sequence], transfers: Iterable[Transfer] = ()
) -> None:
    """Raise AssertionError, naming the page, if a law is broken.

    Costs time in proportion to the pool and to all tokens: it is for tests, and for the reader.
    """
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    in_order = sorted(sequences, key=lambda each: each.id)
    claims = [claim for each in in_order for claim in claims_of_sequence(each, numbers)]
    claims += claims_of_prefix_cache(prefix, numbers)
    claims += [claim for each in transfers for claim in claims_of_transfer(each, prefix.page_size, numbers)]
    check_references(pool, [(claim.owner, claim.page_id) for claim in claims])
    check_full_pages(prefix)
    check_contents(claims)


def check_references(pool: PagePool, references: Iterable[tuple[str, int]]) -> None:
    """The first law: what the holders own, summed, is what the pool counts.

    references: (who, page id), one for each reference that somebody owns. Raises AssertionError, naming the page.
    """
    owners: dict[int, list[str]] = {page_id: [] for page_id in range(pool.num_pages)}
    for owner, page_id in references:
        owners.setdefault(page_id, []).append(owner)
    for page_id, names in owners.items():
        counted = pool.ref_count(page_id) if 0 <= page_id < pool.num_pages else 0
        owned, who = len(names), ", ".join(names) or "nobody"
        _require(
            counted == owned,
            f"law 1: page {page_id} has {count_of(counted, 'reference')} in the pool, "
            f"but {count_of(owned, 'owner')}: {who}",
        )
    free = sum(not owners[page_id] for page_id in range(pool.num_pages))
    _require(free == pool.num_free, f"law 1: {free} pages have no owner, but the pool says {pool.num_free} are free")


def check_contents(claims: Iterable[Claim]) -> None:
    """The second law: what two owners see in a page is the same, in the slots that both use.

    Where somebody wrote to a page that was not theirs alone, or was given a page that was computed after other tokens,
    the owners' tokens differ. Raises AssertionError, naming the page and both.
    """
    fullest: dict[int, Claim] = {}
    for claim in claims:
        other = fullest.setdefault(claim.page_id, claim)
        shared = min(len(claim.tokens), len(other.tokens))
        both = f"both {claim.tokens} for {claim.owner} and {other.tokens} for {other.owner}"
        _require(claim.tokens[:shared] == other.tokens[:shared], f"law 2: page {claim.page_id} cannot hold {both}")
        _require(
            claim.before == other.before, f"law 2: page {claim.page_id} cannot hold {both}, after different tokens"
        )
        if len(claim.tokens) > shared:
            fullest[claim.page_id] = claim


def check_full_pages(prefix: PrefixCache) -> None:
    """The third law, as the prefix cache leans on it: only a full page is continued. Raises AssertionError."""
    for node in prefix.nodes():
        full = len(node.tokens) == prefix.page_size
        _require(full or not node.children, f"law 3: page {node.page_id} is not full, yet continued")


def claims_of_sequence(sequence: Sequence, numbers: dict[tuple[int, tuple[int, ...]], int]) -> Iterator[Claim]:
    """What a sequence says of its pages. numbers: one for each path of pages met so far."""
    name, table, size = f"sequence {sequence.id}", sequence.table, sequence.table.page_size
    length, pages = len(table), table.page_ids
    _require(len(sequence.tokens) == length, f"{name} has {len(sequence.tokens)} tokens, but maps {length}")
    _require(len(pages) == pages_for(length, size), f"{name} maps {length} tokens to {pages}")
    _require(len(set(pages)) == len(pages), f"{name} has a page twice: {pages}")
    _require(sequence.num_computed <= length, f"{name} has {sequence.num_computed} of {length} tokens computed")
    before = 0
    for index, page_id in enumerate(pages):
        tokens = tuple(sequence.tokens[index * size : (index + 1) * size])
        yield Claim(page_id, name, before, tokens)
        before = numbers.setdefault((before, tokens), len(numbers) + 1)


def claims_of_transfer(
    transfer: Transfer, page_size: int, numbers: dict[tuple[int, tuple[int, ...]], int]
) -> Iterator[Claim]:
    """What a transfer says of its pages: they hold the end of its text, or will."""
    name, tokens, before = f"transfer {transfer.id}", unpack(transfer.tokens), 0
    not_its_own = pages_for(len(tokens), page_size) - len(transfer.page_ids)
    for index in range(pages_for(len(tokens), page_size)):
        held = tuple(tokens[index * page_size : (index + 1) * page_size])
        if index >= not_its_own:
            yield Claim(transfer.page_ids[index - not_its_own], name, before, held)
        before = numbers.setdefault((before, held), len(numbers) + 1)


def claims_of_prefix_cache(prefix: PrefixCache, numbers: dict[tuple[int, tuple[int, ...]], int]) -> list[Claim]:
    """What the prefix cache says of the pages in its trie."""
    number_of: dict[PrefixNode | None, int] = {}
    claims = []
    for node in prefix.nodes():
        before, tokens = number_of.get(node.parent, 0), tuple(node.tokens)
        number_of[node] = numbers.setdefault((before, tokens), len(numbers) + 1)
        claims.append(Claim(node.page_id, "the prefix cache", before, tokens))
    _require(len(claims) == len(prefix), f"the prefix cache holds {len(claims)} pages, but says {len(prefix)}")
    return claims


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
