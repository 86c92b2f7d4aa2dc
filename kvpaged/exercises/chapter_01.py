"""Chapter 1, attention and its cache: what a token weighs, what is run, and rows that are kept."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Case, Function, Predict, Question, Seen
from kvpaged.exercises.near import rows_apart


def _weight(chance: Random) -> Question:
    """A model, and what one token of its cache weighs: as it is, and with a kv head for each head."""
    layers, head_dim, size = chance.choice([16, 24, 32, 40, 80]), chance.choice([64, 128]), chance.choice([2, 4])
    kv_heads, group = chance.choice([1, 2, 4, 8]), chance.choice([2, 4, 8])
    kib = 2 * layers * kv_heads * head_dim * size // 1024
    words = (
        f"A model has {layers} layers, {kv_heads * group} heads, {kv_heads} kv heads and {head_dim} numbers per head, "
        f"of {size} bytes each. How many KiB does its cache hold for one token? How many would it be without GQA?"
    )
    return Question(words, (kib, kib * group))


def _tokens_run(chance: Random) -> Question:
    """A prompt and an answer, and how many tokens go through the model without a cache and with one."""
    prompt, answer = chance.randint(2, 12) * 10, chance.randint(3, 6)
    words = (
        f"A prompt of {prompt} tokens, an answer of {answer} words. How many tokens are run through the model, in all, "
        "without a cache? And with one?"
    )
    return Question(words, (sum(prompt + word for word in range(answer)), prompt + answer - 1))


def _window(chance: Random, size: int) -> Case:
    """New tokens, a few at a time, in a layer that looks at the last `window` tokens only."""
    window, steps = chance.randint(1, size), [chance.randint(1, 1 + size // 4) for _ in range(chance.randint(1, size))]

    def run(remember: Function) -> Seen:
        import torch

        kept: dict[int, Any] = {}
        seen: Seen = {"tokens that can be read, step by step": []}
        start = 0
        for count in steps:
            keys = torch.arange(start, start + count).float()[:, None, None].expand(-1, 2, 4).clone()
            remember(kept, 0, keys + 100, -keys - 100, window)
            readable = remember(kept, 1, keys, -keys, window)
            seen["tokens that can be read, step by step"].append(_tokens(readable))
            start += count
        seen["tokens kept at the end"] = _tokens(kept.get(1))
        seen["bytes that stay in memory"] = _bytes_alive(kept.get(1))
        return seen

    words = f"layer 1, a window of {window}; the number of new tokens at each step: {steps}"
    return Case(words + " (layer 0 gets other rows in between, numbered from 100 on)", run)


def _tokens(rows: Any) -> Any:
    """Which tokens' rows these are: each key holds the number of its token, each value the same with a minus."""
    if not isinstance(rows, tuple | list) or len(rows) != 2:
        return rows
    keys, values = rows
    if keys.shape != values.shape or not bool((keys == -values).all()):
        return "keys and values of different tokens"
    return [int(row.flatten()[0]) for row in keys]


def _bytes_alive(rows: Any) -> Any:
    """The bytes that cannot be freed while somebody holds these tensors: all that lies behind them."""
    behind = [tensor.untyped_storage() for tensor in rows or ()]
    return sum({each.data_ptr(): each.nbytes() for each in behind}.values())


def _remember(kept: dict[int, Any], layer: int, keys: Any, values: Any, window: int) -> Any:
    import torch

    if layer in kept:
        keys, values = (torch.cat(pair) for pair in zip(kept[layer], (keys, values), strict=True))
    start = max(0, len(keys) - (window - 1))
    kept[layer] = keys[start:].clone(), values[start:].clone()
    return keys, values


def _text_in_pieces(chance: Random, size: int) -> Case:
    """A text comes in pieces; each piece attends to itself and to all before it."""
    pieces = [chance.randint(1, 1 + size // 2) for _ in range(chance.randint(1, 1 + size // 2))]
    dim, seed = chance.choice([2, 4]), chance.randrange(1000)

    def run(attend: Function) -> Seen:
        import torch

        source = torch.Generator().manual_seed(seed)
        query, keys, values = torch.randn(3, sum(pieces), dim, generator=source)
        right = _all_at_once(query, keys, values)
        kept = {"keys": keys[:0], "values": values[:0]}
        split = (each.split(pieces) for each in (query, keys, values))
        found = [attend(kept, *piece) for piece in zip(*split, strict=True)]
        together = torch.cat(found) if all(isinstance(each, torch.Tensor) for each in found) else found
        rows = {f"rows of {name} kept": len(kept[name]) for name in ("keys", "values")}
        return rows_apart(together, right, "tokens") | rows

    return Case(f"a text that comes in pieces of {pieces} tokens, with {dim} numbers to a key", run)


def _all_at_once(query: Any, keys: Any, values: Any) -> Any:
    """The formula, for a whole text, token by token, in double precision."""
    import torch

    query, keys, values = query.double(), keys.double(), values.double()
    return torch.stack(
        [
            (keys[: index + 1] @ query[index] / len(query[index]) ** 0.5).softmax(dim=0) @ values[: index + 1]
            for index in range(len(query))
        ]
    )


def _attend(kept: dict[str, Any], query: Any, keys: Any, values: Any) -> Any:
    import torch

    kept["keys"], kept["values"] = torch.cat((kept["keys"], keys)), torch.cat((kept["values"], values))
    scores = query @ kept["keys"].T / query.shape[1] ** 0.5
    future = torch.ones_like(scores, dtype=torch.bool).triu(1 + scores.shape[1] - len(query))
    return scores.masked_fill(future, -torch.inf).softmax(dim=1) @ kept["values"]


EXERCISES = (
    Predict(
        number="1.1",
        title="what a token weighs",
        instance=_weight,
        hints=(
            "One kv head in one layer keeps a key and a value: twice the numbers per head.",
            "Multiply by the bytes of a number, by the kv heads, by the layers. How many heads ask does not matter.",
            "Without GQA there is a kv head for each head.",
        ),
    ),
    Build(
        number="1.4",
        name="remember",
        title="a window that lets go of what it drops",
        cases=_window,
        reference=_remember,
        hints=(
            "Read first, drop afterwards: the new tokens may read all that was kept, and themselves.",
            "For the next step, `window - 1` rows are enough: its own row is the one that is missing. With a window of "
            "1 that is none at all, and `keys[-0:]` is all of them.",
            "`keys[start:]` is a view. As long as somebody holds it, the whole tensor behind it stays in memory. "
            "`clone` copies the rows out of it.",
        ),
        against="a cache of the same window",
        cases_per_size=15,
    ),
    Predict(
        number="1.5",
        title="tokens run",
        instance=_tokens_run,
        hints=(
            "The last word of the answer is never run: nobody asks what comes after it.",
            "Without a cache the first word costs the whole prompt, the second one token more, and so on.",
        ),
    ),
    Build(
        number="1.6",
        name="attend",
        title="causal attention with a cache",
        cases=_text_in_pieces,
        reference=_attend,
        hints=(
            "First keep the new rows, then attend to all that is kept: a token sees itself too.",
            "Row i of the scores belongs to token `kept - new + i`: the columns behind that are its future.",
            "`torch.ones(new, kept, dtype=torch.bool).triu(1 + kept - new)` is true where the future is. Set these "
            "scores to minus infinity, before the softmax over each row.",
        ),
        against="the formula for the whole text at once",
        cases_per_size=10,
    ),
)
