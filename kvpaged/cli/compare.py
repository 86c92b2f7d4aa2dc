"""`compare`: one prompt and its continuations, four ways to keep K and V."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from kvpaged.cli.options import (
    Hub,
    Json,
    Model,
    PageSize,
    Transformers,
    between,
    note_unknown_words,
    open_model,
    say_loading,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kvpaged.model import Attend, LanguageModel
    from kvpaged.naive_cache import ContiguousCache


@dataclass
class Result:
    """One way, measured. Bytes are of K and V: held when all continuations are there, and moved on the way there."""

    name: str
    tokens: list[list[int]]
    tokens_computed: int
    bytes_held: int
    bytes_copied: int
    seconds: float


def compare(
    model: Model = "recall",
    hub: Hub = False,
    transformers: Transformers = False,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt; a story of a dozen facts and a question if none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(callback=between(1), help="Tokens of each continuation.")] = 24,
    branches: Annotated[
        int, typer.Option(callback=between(1), help="Continuations: each begins with another of the likeliest tokens.")
    ] = 4,
    page_size: PageSize = 16,
    as_json: Json = False,
) -> None:
    """Compute one prompt four ways and continue it: the same tokens, but not the same memory.

    none: every token is computed again at each step. growing: K and V are kept in one piece, which is copied whenever
    it grows. reserved: room for the whole context is set aside beforehand. paged: K and V live in pages, found through
    a page table; continuations share the pages of their prompt.
    """
    say_loading()
    loaded = open_model(model, hub, transformers)
    if branches > loaded.config.vocab_size:
        raise ValueError(
            f"--branches is {branches}; each begins with another token, and the model knows {loaded.config.vocab_size}"
        )
    tokens = _prompt_tokens(loaded, prompt)
    room = loaded.config.max_position_embeddings - len(tokens)
    if max_tokens > room:
        raise ValueError(
            f"{len(tokens)} prompt tokens and {max_tokens} more exceed the context of "
            f"{loaded.config.max_position_embeddings}: lower --max-tokens"
        )
    results = _run_all(loaded, tokens, max_tokens, branches, page_size)
    same = all(result.tokens == results[0].tokens for result in results)
    if as_json:
        ways = [asdict(result) for result in results]
        print(json.dumps({"prompt_tokens": len(tokens), "same_tokens": same, "ways": ways}))
    else:
        _show(loaded, tokens, results, same)
    if not same:
        raise typer.Exit(code=1)


class _Counted:
    """A model that counts the tokens it computes."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.config, self.dtype, self.checkpoint = model, model.config, model.dtype, model.checkpoint
        self.computed = 0

    def __call__(self, tokens: Tensor, positions: Tensor, attend: Attend, logits_at: Tensor | None = None) -> Tensor:
        self.computed += len(tokens)
        return self.model(tokens, positions, attend, logits_at)


def _run_all(model: LanguageModel, prompt: list[int], max_tokens: int, branches: int, page_size: int) -> list[Result]:
    """Each way: compute the prompt, branch at its likeliest next tokens, and continue every branch."""
    from kvpaged.cache import PagedKVCache
    from kvpaged.model.compute import compute, continue_paged, generate_cached, last_logits, open_storage
    from kvpaged.naive_cache import GrowingCache, NoCache, ReservedCache
    from kvpaged.page_table import pages_for

    counted, config = _Counted(model), model.config
    shape = (config.num_layers, config.num_kv_heads, config.head_dim)

    def contiguous(cache: ContiguousCache) -> tuple[list[list[int]], int, int]:
        likeliest = last_logits(counted, cache, prompt).topk(branches).indices.tolist()
        caches = [cache, *(cache.clone() for _ in range(branches - 1))]
        tokens = [
            [token, *generate_cached(counted, [*prompt, token], max_tokens - 1, branch)]
            for token, branch in zip(likeliest, caches, strict=True)
        ]
        return tokens, sum(each.num_bytes for each in caches), sum(each.bytes_copied for each in caches)

    def paged() -> tuple[list[list[int]], int, int]:
        num_pages = pages_for(len(prompt) + max_tokens, page_size) * branches
        storage = open_storage(model, num_pages, page_size)
        cache = PagedKVCache(num_pages, page_size, prefix_caching=False, storage=storage)
        sequence = cache.sequence(prompt)
        likeliest = compute(counted, cache, sequence).topk(branches).indices.tolist()
        tokens = []
        for token, branch in zip(likeliest, [sequence, *(sequence.fork() for _ in range(branches - 1))], strict=True):
            branch.append(token)
            tokens.append([token, *continue_paged(counted, cache, branch, max_tokens - 1)])
        return tokens, cache.pool.num_used * storage.bytes_per_page, storage.bytes_copied

    ways: dict[str, Callable[[], tuple[list[list[int]], int, int]]] = {
        "none": lambda: contiguous(NoCache()),
        "growing": lambda: contiguous(GrowingCache(*shape)),
        "reserved": lambda: contiguous(ReservedCache(config.max_position_embeddings, *shape)),
        "paged": paged,
    }
    results = []
    for name, run in ways.items():
        counted.computed, start = 0, perf_counter()
        tokens, held, copied = run()
        results.append(Result(name, tokens, counted.computed, held, copied, perf_counter() - start))
    return results


def _prompt_tokens(model: LanguageModel, prompt: str | None) -> list[int]:
    from kvpaged.model import check_tokenizer, load_tokenizer
    from kvpaged.recall.text import ask, make_story

    if prompt is None:
        story = make_story(12, seed=0)
        prompt = story.text + ask(story.facts[4]).prompt
    if model.checkpoint is None:
        raise ValueError("the model has no tokenizer")
    tokenizer = load_tokenizer(model.checkpoint)
    check_tokenizer(tokenizer, model.config)
    note_unknown_words(tokenizer, [prompt])
    tokens: list[int] = tokenizer.encode(prompt).ids
    if not tokens:
        raise ValueError("the prompt is empty; give it at least one word")
    return tokens


def _show(model: LanguageModel, prompt: list[int], results: list[Result], same: bool) -> None:
    from kvpaged.model import load_tokenizer

    assert model.checkpoint is not None
    tokenizer, console = load_tokenizer(model.checkpoint), Console()
    console.print(f"{len(prompt)} prompt tokens, continued {len(results[0].tokens)} times:")
    for tokens in results[-1].tokens:
        console.print(
            "  …" + tokenizer.decode(prompt[-5:]), tokenizer.decode(tokens), sep="", markup=False, highlight=False
        )
    table = Table("K and V", "computed", "held", "copied", "time")
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for each in results:
        sizes = _size(each.bytes_held), _size(each.bytes_copied)
        table.add_row(each.name, f"{each.tokens_computed:,} tokens", *sizes, f"{each.seconds:.2f} s")
    console.print(table)
    _, growing, reserved, paged = (each.bytes_held for each in results)
    less = f"{_times(reserved, paged)} than a reservation, {_times(growing, paged)} than pieces that grow"
    console.print(f"Pages hold {less}.", highlight=False)
    console.print("All four gave the same tokens." if same else "The tokens differ.")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.0f} kB"


def _times(other: int, ours: int) -> str:
    less = other / ours
    return f"{less:.1f} times less memory" if less >= 1 else f"{1 / less:.1f} times more memory"
