"""Chapter 16, pages of fewer bits: bytes of a token, two codes in a byte, who shares a scale, and who reads it when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.near import number_near, rows_apart

_MOST = 7  # the largest code of four bits


def _a_token(chance: Random) -> Question:
    """A model, and three ways to store a token of it."""
    layers, kv_heads, dim = chance.choice([16, 24, 32, 48, 80]), chance.choice([2, 4, 8]), chance.choice([64, 128, 256])
    page_size, rows = chance.choice([16, 32, 64]), layers * kv_heads
    words = (
        f"A model has {layers} layers with {kv_heads} kv heads of {dim} numbers. How many bytes do K and V of a token "
        "take, with two bytes a number? With 8 bits, and a float32 scale for every token and head? With 4 bits, keys "
        f"by channel and values by token, in pages of {page_size} tokens, if the scales of a page are shared out "
        "among its tokens?"
    )
    by_channel = dim + 4 * dim // page_size + 4
    return Question(words, (rows * 4 * dim, rows * (2 * dim + 8), rows * by_channel))


def _some_codes(chance: Random, size: int) -> Case:
    """The codes of a head, an even number of them."""
    codes = [chance.randint(-_MOST, _MOST) for _ in range(2 * size)]

    def run(pack: Function) -> Seen:
        given = [*codes]
        came = outcome(pack, given, refusals=(ValueError,))  # what `bytes` says of a number that is none
        found = came.get("it returned")
        if isinstance(found, Iterable) and not isinstance(found, str):
            came = {"it returned": [*found]}
        return came | {"the codes afterwards": given}

    return Case(f"`pack({codes})`", run)


def _pack(codes: Sequence[int]) -> list[int]:
    half = len(codes) // 2
    return [codes[at] + 8 + 16 * (codes[at + half] + 8) for at in range(half)]


def _some_heads(chance: Random, size: int) -> Case:
    """K of a few tokens, whose heads are loud, low or silent."""
    kv_heads, dim, bits = chance.randint(1, 2), 2 * chance.randint(1, 3), chance.choice([8, 4])
    loud = [[chance.choice([0.0, 0.1, 1.0, 10.0]) for _ in range(kv_heads)] for _ in range(size)]
    seed = chance.randrange(1000)

    def run(quantise: Function) -> Seen:
        import torch

        numbers = torch.randn(size, kv_heads, dim, generator=torch.Generator().manual_seed(seed))
        numbers *= torch.tensor(loud)[..., None]
        found = quantise(numbers.clone(), bits)
        if not isinstance(found, tuple | list) or len(found) != 2:
            return {"it returned": found}
        codes, scales = found
        _, right = _quantise(numbers, bits)
        seen = {f"scales: {what}": each for what, each in rows_apart(scales, right, "tokens").items()}
        if not isinstance(codes, torch.Tensor) or codes.shape != numbers.shape:
            return seen | {"codes": f"a tensor {[*codes.shape]}" if isinstance(codes, torch.Tensor) else codes}
        off = (codes.double() * right[..., None] - numbers).abs()
        wrong = ~(off <= 0.501 * right[..., None] + 1e-9)
        return seen | {
            "codes": f"a tensor {[*codes.shape]} of {codes.dtype}",
            "tokens further off than half a scale": wrong.flatten(1).any(1).nonzero().flatten().tolist(),
        }

    return Case(f"`quantise(numbers, bits={bits})`, where the heads of each token have numbers around {loud}", run)


def _quantise(numbers: Any, bits: int) -> tuple[Any, Any]:
    """Each head of each token alone."""
    import torch

    most = 2 ** (bits - 1) - 1
    codes, scales = torch.zeros(numbers.shape, dtype=torch.int8), torch.zeros(numbers.shape[:2])
    for token, heads in enumerate(numbers):
        for head, row in enumerate(heads):
            scale = scales[token, head] = row.abs().max() / most
            if scale:
                codes[token, head] = (row / scale).round()
    return codes, scales


def _a_page(chance: Random, size: int) -> Case:
    """One channel of a page, whose tokens come one after another."""
    page_size = 1 + size // 2
    numbers = [0.0]
    while _in_between(numbers):
        numbers = [round(chance.uniform(-9, 9), 1) for _ in range(chance.randint(1, page_size))]
    if chance.random() < 0.15:
        numbers = [0.0] * page_size

    def run(write: Function) -> Seen:
        seen: Seen = {}
        for page, right in zip(_filled(write, numbers, page_size), _filled(_write, numbers, page_size), strict=True):
            reads, expected = _read(page), _read(right)
            near = len(reads) == len(expected)
            seen[f"the slots after token {len(seen)}"] = (
                [number_near(mine, true) for mine, true in zip(reads, expected, strict=True)] if near else reads
            )
        return seen

    return Case(f"`write(page, number, page_size={page_size})`, of {numbers} one after another", run)


def _in_between(numbers: list[float]) -> bool:
    """Whether one of the numbers is so near to the middle of two codes that rounding may go either way."""
    largest = max(map(abs, numbers))
    return not largest or any(abs(abs(_MOST * number / largest) % 1 - 0.5) < 0.02 for number in numbers)


def _filled(write: Function, numbers: list[float], page_size: int) -> Iterable[dict[str, Any]]:
    """The page after each number that is written to it."""
    page: dict[str, Any] = {"codes": [], "scale": 0.0, "tail": []}
    for number in numbers:
        write(page, number, page_size)
        yield page


def _read(page: dict[str, Any]) -> list[float]:
    return [*(code * page["scale"] for code in page["codes"]), *page["tail"]]


def _write(page: dict[str, Any], number: float, page_size: int) -> None:
    page["tail"].append(number)
    if len(page["tail"]) == page_size:
        page["scale"] = max(map(abs, page["tail"])) / _MOST
        page["codes"] = [round(each / (page["scale"] or 1)) for each in page["tail"]]
        page["tail"] = []


def _from_lowest(chance: Random, size: int) -> Case:
    """Numbers in a few groups, some of which are all equal."""
    bits, across = chance.choice([2, 4]), chance.choice([-1, -2])
    shape, seed, flat = (size, chance.randint(1, 5)), chance.randrange(1000), chance.random() < 0.3

    def run(quantise_from_lowest: Function) -> Seen:
        import torch

        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 3
        if flat:
            numbers[:] = numbers[0, 0]
        found = quantise_from_lowest(numbers.clone(), bits, across)
        if not isinstance(found, torch.Tensor) or found.shape != numbers.shape:
            return {"it returned": f"a tensor {[*found.shape]}" if isinstance(found, torch.Tensor) else found}
        low, high = numbers.amin(across, keepdim=True), numbers.amax(across, keepdim=True)
        scale = ((high - low) / (2**bits - 1)).expand_as(numbers)
        levels = max(len(set(group.tolist())) for group in found.movedim(across, -1).reshape(-1, numbers.shape[across]))
        return {
            "it returned": f"a tensor {[*shape]}",
            "further off than half a scale": (~((found - numbers).abs() <= 0.501 * scale + 1e-5)).nonzero().tolist(),
            "more values in a group than codes": levels > 2**bits,
        }

    all_equal = ", all equal" if flat else ""
    return Case(f"`quantise_from_lowest(numbers, bits={bits}, dim={across})` of numbers {[*shape]}{all_equal}", run)


def _quantise_from_lowest(numbers: Any, bits: int, dim: int) -> Any:
    low, high = numbers.amin(dim, keepdim=True), numbers.amax(dim, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return ((numbers - low) / scale.clamp(min=1e-12)).round() * scale + low


EXERCISES = (
    Predict(
        number="16.1",
        title="bytes of a token",
        instance=_a_token,
        hints=(
            "K and V are two numbers for each place in a head. Begin with one layer and one kv head.",
            "By token, K has a scale of four bytes and V has one.",
            "By channel, a page has a scale for each number of a head: a token's share is the head's numbers, divided "
            "by the tokens of the page.",
        ),
    ),
    Build(
        number="16.5",
        name="quantise_from_lowest",
        title="codes that count from the lowest number",
        cases=_from_lowest,
        reference=_quantise_from_lowest,
        against="the bound of half a scale",
        cases_per_size=12,
        hints=(
            "The scale is the distance from the lowest number to the largest, divided by `2**bits - 1`.",
            "What if both are equal? A number divided by zero is no code; the lowest number alone is right then.",
            "`numbers.amin(dim, keepdim=True)` can be subtracted from `numbers`, whichever `dim` is.",
        ),
    ),
    Build(
        number="16.6",
        name="pack",
        title="two codes in a byte",
        cases=_some_codes,
        reference=_pack,
        against="a sum and a product",
        hints=(
            "Four bits hold 0 to 15, and codes go from -7 to 7. So store the distance from -8.",
            "Not neighbours: the first half of the head lies in the low bits, the second half in the high ones.",
            "`low | high << 4`, and `zip(codes[:half], codes[half:])` gives the pairs.",
        ),
    ),
    Build(
        number="16.7",
        name="quantise",
        title="a scale for every token and head",
        cases=_some_heads,
        reference=_quantise,
        against="each head of each token alone",
        cases_per_size=10,
        hints=(
            "Who shares a scale? The numbers of one head of one token, and nobody else.",
            "The largest code is `2 ** (bits - 1) - 1`: 7 with four bits, and as far below zero.",
            "A head of nothing but zeros has the scale 0. Its codes are 0 as well, and not NaN.",
        ),
    ),
    Build(
        number="16.8",
        name="write",
        title="a page that is written again",
        kind="debug",
        cases=_a_page,
        reference=_write,
        against="a page that is packed once",
        hints=(
            "What did token 0 read, and what does it read when token 1 has been written?",
            "There is a place for numbers whose scale is not known yet: `page['tail']`.",
            "Only when the tail has `page_size` numbers: find the scale, make the codes, empty the tail. And mind a "
            "page of zeros.",
        ),
    ),
)
