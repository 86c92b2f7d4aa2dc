"""Chapter 3, pages: slots and what is wasted of them, pages in so many bytes, and what must not be read."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen
from kvpaged.wording import count_of


def _slots(chance: Random) -> Question:
    """A sequence on some pages: what is empty, where its last token is, and where the next will be."""
    page_size, num_pages = chance.choice([4, 8, 16]), chance.randint(2, 4)
    pages = chance.sample(range(12), num_pages)
    last = chance.randint(1, page_size)  # tokens in the last page
    end = pages[-1] * page_size + last
    words = (
        f"Pages of {page_size}. A sequence of {(num_pages - 1) * page_size + last} tokens owns pages "
        f"{', '.join(str(page) for page in pages[:-1])} and {pages[-1]}, in this order. How many slots does it waste? "
        "In which flat slot is its last token? And in which will the next one be (-1 if a page must be found first)?"
    )
    return Question(words, (page_size - last, end - 1, end if last < page_size else -1))


def _memory(chance: Random, size: int) -> Case:
    """So many bytes, and a model."""
    page_size, layers, kv_heads, dim = (chance.randint(1, size) for _ in range(4))
    number = chance.choice([1, 2, 4])
    num_bytes = chance.randint(1, 2 * size) * 2 * page_size * layers * kv_heads * dim * number + chance.randint(0, 9)

    def run(pages_in: Function) -> Seen:
        return {"pages": pages_in(num_bytes, page_size, layers, kv_heads, dim, number)}

    words = (
        f"{num_bytes} bytes; pages of {page_size}, layers: {layers}, kv heads: {kv_heads}, numbers per head: {dim}, "
        f"bytes per number: {number}"
    )
    return Case(words, run)


def _pages_in(num_bytes: int, page_size: int, layers: int, kv_heads: int, head_dim: int, number: int) -> int:
    return num_bytes // (page_size * 2 * layers * kv_heads * head_dim * number)


def _token_in_a_table(chance: Random, size: int) -> Case:
    """A token of a sequence that owns some pages."""
    page_size = chance.randint(1, size + 1)
    pages = chance.sample(range(10, 99), size)
    token = chance.randrange(size * page_size)

    def run(flat_slot: Function) -> Seen:
        return {"flat slot": flat_slot([*pages], page_size, token)}

    return Case(f"`flat_slot({pages}, {page_size}, {token})`", run)


def _flat_slot(page_ids: list[int], page_size: int, token: int) -> int:
    return [page * page_size + slot for page in page_ids for slot in range(page_size)][token]


def _used_pages(chance: Random, size: int) -> Case:
    """A storage in use, some of whose pages nobody may read any more."""
    num_pages, layers = size + 1, chance.randint(1, 2)
    pages = chance.sample(range(num_pages), chance.randint(1, size))

    def run(poison: Function) -> Seen:
        storage = mini.open_storage(num_pages, 2, layers, 1, 3)
        storage += 1
        poison(storage, [*pages])
        nan = storage.isnan().flatten(3).all(dim=3)  # [K or V, layer, page]
        others = [page for page in range(num_pages) if page not in pages]
        named = {f"{name}, layer {layer}": nan[kv, layer] for kv, name in enumerate("KV") for layer in range(layers)}
        return {
            "spoiled pages": {name: [page for page in pages if bool(found[page])] for name, found in named.items()},
            "the other pages": "as they were" if bool((storage[:, :, others] == 1).all()) else "changed",
        }

    has = f"{count_of(num_pages, 'page')} and {count_of(layers, 'layer')}"
    return Case(f"`poison(storage, {pages})`, where the storage has {has}", run)


def _poison(storage: Any, pages: list[int]) -> None:
    storage[:, :, pages] = float("nan")


EXERCISES = (
    Predict(
        number="3.1",
        title="slots, and the wasted ones",
        instance=_slots,
        hints=(
            "Tokens are counted from 0: the last of 37 is token 36.",
            "`divmod` of its index and the page size says in which of the sequence's pages it is, and in which slot of "
            "that.",
            "If the last page is full, nothing is wasted, and the next token has no slot yet.",
        ),
    ),
    Build(
        number="3.2",
        name="pages_in",
        title="how many pages in so many bytes",
        cases=_memory,
        reference=_pages_in,
        hints=(
            "How many numbers does a token leave in one layer? A page holds that for each token, in all layers.",
            "Keys *and* values.",
            "What is left over when the last whole page is counted is no page.",
        ),
        against="the formula of chapter 1",
    ),
    Build(
        number="3.3",
        name="flat_slot",
        title="a conversation that forgets how it began",
        kind="debug",
        cases=_token_in_a_table,
        reference=_flat_slot,
        hints=(
            "Which tokens of a sequence go wrong? Those of its first page are right.",
            "The code looks up one page whatever the token is.",
            "`token // page_size` says in which of the sequence's pages the token is.",
        ),
        against="a list of all slots in order",
    ),
    Build(
        number="3.4",
        name="poison",
        title="spoiled pages",
        cases=_used_pages,
        reference=_poison,
        hints=(
            "There is a float that spoils every sum it enters.",
            "The storage is one tensor, [K or V, layer, page, slot, kv head, dim]: the pages are its third axis.",
            "`storage[:, :, pages]` with a list is a copy, and what you do to it is lost. To *assign* to "
            "`storage[:, :, pages]` changes the storage.",
        ),
        against="a look at every number",
        cases_per_size=10,
    ),
)
