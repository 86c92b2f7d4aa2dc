"""Chapter 6, paged attention: which pages a query reads, and sums over them that are made in parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import exp, inf
from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen
from kvpaged.exercises.near import number_near, rows_apart

Pages = list[list[tuple[str, str]]]  # of each slot: whose K and whose V it holds
Sums = tuple[float, float, float]  # the largest score, the total of the weights, and the output not yet divided


def _exchanges(chance: Random) -> Question:
    """A sequence on four pages, and four things that somebody may exchange in them."""
    page_size = chance.choice([4, 8])
    num_tokens = 3 * page_size + chance.randint(1, page_size - 1)
    slots = [(f"K{token}", f"V{token}") for token in range(4 * page_size)]  # the last of them hold no token

    def read(pages: Pages) -> Counter[tuple[str, str]]:
        return Counter([slot for page in pages for slot in page][:num_tokens])

    lines, changing = [], ""
    for letter, how in zip("abcd", chance.sample(["pages", "pages", "slots", "slots", "keys"], 4), strict=True):
        pages = [slots[start : start + page_size] for start in range(0, len(slots), page_size)]
        before = read(pages)
        lines.append(f"({letter}) {_exchange(chance, how, pages)}")
        changing += letter if read(pages) != before else ""
    words = (
        f"A sequence of {num_tokens} tokens in pages of {page_size}. Which of these change what a decode step returns, "
        f"but for rounding? {'; '.join(lines)}. Answer with the letters, or `none`."
    )
    return Question(words, changing or "none")


def _exchange(chance: Random, how: str, pages: Pages) -> str:
    """Exchange something, and say what."""
    if how == "pages":
        first, second = sorted(chance.sample(range(len(pages)), 2))
        pages[first], pages[second] = pages[second], pages[first]
        return f"logical pages {first} and {second} change places in the table"
    number = chance.choice([0, 1, 2, 3, 3])
    page = pages[number]
    first, second = sorted(chance.sample(range(len(page)), 2))
    (key, value), (other_key, other_value) = page[first], page[second]
    if how == "keys":
        page[first], page[second] = (other_key, value), (key, other_value)
        return f"the K of slots {first} and {second} of logical page {number} change places, and the V stay"
    page[first], page[second] = page[second], page[first]
    return f"slots {first} and {second} of logical page {number} change places, K and V alike"


def _parts(chance: Random, size: int) -> Case:
    """Scores and values in two parts, as two processors have them."""
    scale = 1000 if size > 3 else 1  # scores so large that their exponential is not a float
    count = size + 1
    scores = [float(scale * chance.randint(-3, 3)) for _ in range(count)]
    values = [float(chance.randint(-9, 9)) for _ in range(count)]
    cut = chance.randint(0 if size > 2 else 1, count - 1)  # the first part may have seen no token

    def run(merge: Function) -> Seen:
        right = _sums(scores, values)
        found = merge(_sums(scores[:cut], values[:cut]), _sums(scores[cut:], values[cut:]))
        if not isinstance(found, tuple | list) or len(found) != 3:
            return {"it returned": found}
        names = ("largest", "total", "output, not divided")
        return {name: number_near(mine, true) for name, mine, true in zip(names, found, right, strict=True)}

    told = f"scores {scores[:cut]} and {scores[cut:]}, values {values[:cut]} and {values[cut:]}"
    return Case(f"`merge(a, b)` of two parts: {told}", run)


def _sums(scores: list[float], values: list[float]) -> Sums:
    largest = max(scores, default=-inf)
    weights = [exp(score - largest) for score in scores]
    return largest, sum(weights), sum(weight * value for weight, value in zip(weights, values, strict=True))


def _merge(a: Sums, b: Sums) -> Sums:
    largest = max(a[0], b[0])
    shrink_a, shrink_b = exp(a[0] - largest), exp(b[0] - largest)
    return largest, a[1] * shrink_a + b[1] * shrink_b, a[2] * shrink_a + b[2] * shrink_b


def _a_window(chance: Random, size: int) -> Case:
    """The last tokens of a sequence ask, in a layer with a window."""
    length, page_size = chance.randint(1, 3 * size), chance.randint(1, size)
    q_len, window = chance.randint(1, length), chance.randint(1, length + 1)

    def run(pages_to_read: Function) -> Seen:
        found = pages_to_read(length, q_len, window, page_size)
        return {"logical pages": [*found] if isinstance(found, Iterable) else found}

    return Case(f"`pages_to_read(length={length}, q_len={q_len}, window={window}, page_size={page_size})`", run)


def _pages_to_read(length: int, q_len: int, window: int, page_size: int) -> list[int]:
    queries = range(length - q_len, length)
    tokens = {token for query in queries for token in range(length) if query - window < token <= query}
    return sorted({token // page_size for token in tokens})


def _reads(chance: Random) -> Question:
    """A sequence, and how many of its pages are read by one query and by several, with and without a window."""
    page_size, length = chance.choice([4, 8]), chance.randint(30, 60)
    window, q_len = chance.randint(6, 20), chance.randint(5, 12)
    words = (
        f"A sequence of {length} tokens in pages of {page_size}. How many pages does its newest token read in a layer "
        f"that sees everything? How many in one with a window of {window}? And how many do its last {q_len} tokens, "
        "all of them queries, read together in the layer with the window?"
    )
    asked = ((1, length), (1, window), (q_len, window))
    return Question(words, tuple(len(_pages_to_read(length, count, seen, page_size)) for count, seen in asked))


def _pages_one_by_one(chance: Random, size: int) -> Case:
    """Scores and values of a few pages, some of them masked, of which one at a time is in memory."""
    page_size, shift = chance.randint(1, 3), chance.choice([0, 200]) if size > 2 else 0
    pages = [
        [-inf if chance.random() < 0.3 else float(shift + chance.randint(-4, 4)) for _ in range(page_size)]
        for _ in range(size)
    ]
    pages[-1][0] = float(shift)  # a query sees itself at least
    seed = chance.randrange(1000)

    def run(online: Function) -> Seen:
        import torch

        values = torch.randn(size, page_size, 2, generator=torch.Generator().manual_seed(seed))
        scores = torch.tensor(pages)
        right = scores.double().flatten().softmax(dim=0) @ values.double().flatten(0, 1)
        return rows_apart(online(_through_one_room(scores, values)), right, "numbers")

    return Case(f"pages with the scores {pages}", run)


def _through_one_room(scores: Any, values: Any) -> Iterator[tuple[Any, Any]]:
    """The pages one after another, each in the memory in which the last one was."""
    room = scores[0].clone(), values[0].clone()
    for page in zip(scores, values, strict=True):
        for place, what in zip(room, page, strict=True):
            place.copy_(what)
        yield room
    for place in room:
        place.fill_(float("nan"))


def _online(pages: Iterator[tuple[Any, Any]]) -> Any:
    import torch

    kept = [(scores.clone(), values.clone()) for scores, values in pages]
    scores, values = (torch.cat(each) for each in zip(*kept, strict=True))
    return scores.softmax(dim=0) @ values


def _queries_and_heads(chance: Random, size: int) -> Case:
    """The last tokens of a sequence, in a model whose heads share kv heads."""
    kv_len, kv_heads, group = size, chance.randint(1, 1 + size // 2), chance.randint(1, 2)
    q_len, seed = chance.randint(1, kv_len), chance.randrange(1000)

    def run(attention: Function) -> Seen:
        import torch

        source = torch.Generator().manual_seed(seed)
        query = torch.randn(q_len, kv_heads * group, 4, generator=source)
        keys, values = torch.randn(2, kv_len, kv_heads, 4, generator=source)
        right = _each_alone(query, keys, values)
        found = attention(query, keys, values)
        by_head = found.transpose(0, 1) if isinstance(found, torch.Tensor) and found.shape == right.shape else found
        return rows_apart(by_head, right.transpose(0, 1), "heads") | rows_apart(found, right, "queries")

    shape = f"q_len={q_len}, kv_len={kv_len}, heads={kv_heads * group}, kv_heads={kv_heads}"
    return Case(f"`attention(query, keys, values)` with {shape}", run)


def _each_alone(query: Any, keys: Any, values: Any) -> Any:
    """The formula for each query and each head alone, in double precision."""
    import torch

    (q_len, heads, dim), (kv_len, kv_heads, _) = query.shape, keys.shape
    output = torch.zeros(q_len, heads, dim, dtype=torch.double)
    for row in range(q_len):
        seen = kv_len - q_len + row + 1
        for head in range(heads):
            mine = head // (heads // kv_heads)
            scores = keys[:seen, mine].double() @ query[row, head].double() / dim**0.5
            output[row, head] = scores.softmax(dim=0) @ values[:seen, mine].double()
    return output


EXERCISES = (
    Predict(
        number="6.1",
        title="what may change places",
        instance=_exchanges,
        hints=(
            "A key finds the token, its value is what is said. Only pairs count, and not their order.",
            "The last page is cut off where the length says. Which of its slots are no tokens?",
            "If the last page stands elsewhere in the table, another page is cut off, and it is read whole.",
        ),
    ),
    Build(
        number="6.2",
        name="merge",
        title="two parts of one sequence",
        cases=_parts,
        reference=_merge,
        hints=(
            "Either side may have to shrink.",
            "The larger of the two largest scores is the new one. Each side was divided by `exp` of its own.",
            "`exp(a[0] - largest)` is never more than one. `exp` of a score may be too large for a float.",
        ),
        against="the sums over all scores at once",
    ),
    Build(
        number="6.4",
        name="pages_to_read",
        title="the pages in a window",
        cases=_a_window,
        reference=_pages_to_read,
        hints=(
            "The *first* query looks back furthest, and it is token `length - q_len`.",
            "It sees itself and the `window - 1` tokens before it, if there are so many.",
            "The last page is that of token `length - 1`.",
        ),
        against="a look at each token of each query",
    ),
    Predict(
        number="6.5",
        title="how many pages are read",
        instance=_reads,
        hints=(
            "The newest token has the index `length - 1`. With a window of w it sees the tokens from `length - w` on.",
            "Find the page of the first token that is seen, and that of the last: `index // page_size`.",
            "Of several queries the first looks back furthest.",
        ),
    ),
    Build(
        number="6.6",
        name="online",
        title="a softmax that sees one page at a time",
        cases=_pages_one_by_one,
        reference=_online,
        hints=(
            "Keep three things from page to page: the largest score, the sum of the weights, the sum of weighted "
            "values. When a larger score comes, shrink the two sums.",
            "A page is gone when the next one comes: what you want to keep of it must be a number of your own, not a "
            "view of the page.",
            "A page may be masked altogether. `-inf - -inf` is NaN: pass over a page whose largest score is minus "
            "infinity.",
        ),
        against="softmax over all scores at once",
        cases_per_size=15,
    ),
    Build(
        number="6.7",
        name="attention",
        title="heads that share, queries in the middle",
        kind="debug",
        cases=_queries_and_heads,
        reference=_each_alone,
        hints=(
            "There are two mistakes. One shows only where heads share a kv head, the other only where there are fewer "
            "queries than tokens.",
            "Heads 0 and 1 share kv head 0, heads 2 and 3 kv head 1. In which order does `repeat` put the copies?",
            "Query i is token `kv_len - q_len + i`. `tril` takes the diagonal up to which ones are kept.",
        ),
        against="the formula for each query and head alone",
        cases_per_size=10,
    ),
)
