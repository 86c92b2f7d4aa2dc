"""`compare`: one prompt and its continuations, four ways to keep K and V."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Table

from kvpaged.cli.options import Hub, Json, Model, PageSize, Transformers, open_model

if TYPE_CHECKING:
    from torch import Tensor

    from kvpaged.cache import PagedKVCache
    from kvpaged.model import LanguageModel
    from kvpaged.naive_cache import GrowingCache, NoCache, ReservedCache
    from kvpaged.sequence import Sequence as PagedSequence


@dataclass
class Result:
    """One way, measured. Bytes are of K and V: held when all continuations are there, and moved on the way there."""

    name: str
    tokens: list[list[int]]
    tokens_computed: int
    bytes_held: int
    bytes_copied: int
    seconds: float


class Way(Protocol):
    """A sequence that can be computed further, and branched. It counts the tokens that it computes."""

    computed: int

    def compute(self, tokens: list[int]) -> Tensor:
        """Logits after these further tokens."""

    def branch(self) -> Way:
        """A second sequence that begins as this one."""


def compare(
    model: Model = "recall",
    hub: Hub = False,
    transformers: Transformers = False,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt; a story of a dozen facts and a question if none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each continuation.")] = 24,
    branches: Annotated[int, typer.Option(help="Continuations: each begins with another of the likeliest tokens.")] = 4,
    page_size: PageSize = 16,
    as_json: Json = False,
) -> None:
    """Compute one prompt four ways and continue it: the same tokens, but not the same memory.

    none: every token is computed again at each step. growing: K and V are kept in one piece, which is copied whenever
    it grows. reserved: room for the whole context is set aside beforehand. paged: K and V live in pages, found through
    a page table; continuations share the pages of their prompt.
    """
    for name, value in (("--max-tokens", max_tokens), ("--branches", branches), ("--page-size", page_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    loaded = open_model(model, hub, transformers)
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


def _run_all(model: LanguageModel, prompt: list[int], max_tokens: int, branches: int, page_size: int) -> list[Result]:
    from kvpaged.cache import PagedKVCache
    from kvpaged.model.compute import open_storage
    from kvpaged.naive_cache import GrowingCache, NoCache, ReservedCache
    from kvpaged.page_table import pages_for

    config = model.config
    shape = (config.num_layers, config.num_kv_heads, config.head_dim)
    num_pages = pages_for(len(prompt) + max_tokens, page_size) * branches
    storage = open_storage(model, num_pages, page_size)
    cache = PagedKVCache(num_pages, page_size, prefix_caching=False, storage=storage)
    ways: dict[str, Callable[[], Way]] = {
        "none": lambda: _Contiguous(model, NoCache()),
        "growing": lambda: _Contiguous(model, GrowingCache(*shape)),
        "reserved": lambda: _Contiguous(model, ReservedCache(config.max_position_embeddings, *shape)),
        "paged": lambda: _Paged(model, cache),
    }
    results = []
    for name, begin in ways.items():
        start = perf_counter()
        first = begin()
        likeliest = first.compute(prompt).topk(branches).indices.tolist()
        sequences = [first, *(first.branch() for _ in range(branches - 1))]
        tokens = [[token] for token in likeliest]
        for _ in range(max_tokens - 1):
            for sequence, so_far in zip(sequences, tokens, strict=True):
                so_far.append(int(sequence.compute(so_far[-1:]).argmax()))
        seconds = perf_counter() - start
        held = copied = 0
        for each in sequences:
            if isinstance(each, _Contiguous):
                held, copied = held + each.cache.num_bytes, copied + each.cache.bytes_copied
        if name == "paged":
            held, copied = cache.pool.num_used * storage.bytes_per_page, storage.bytes_copied
        results.append(Result(name, tokens, sum(each.computed for each in sequences), held, copied, seconds))
    return results


class _Contiguous:
    """On a contiguous cache, or on none: then all tokens are computed each time."""

    def __init__(
        self, model: LanguageModel, cache: NoCache | GrowingCache | ReservedCache, tokens: tuple[int, ...] = ()
    ) -> None:
        self.model = model
        self.cache = cache
        self.tokens = list(tokens)
        self.computed = 0

    def compute(self, tokens: list[int]) -> Tensor:
        from kvpaged.model.compute import last_logits

        self.tokens += tokens
        new = self.tokens[len(self.cache) :]
        self.computed += len(new)
        return last_logits(self.model, self.cache, new)

    def branch(self) -> _Contiguous:
        return _Contiguous(self.model, self.cache.clone(), tuple(self.tokens))


class _Paged:
    """On pages."""

    def __init__(self, model: LanguageModel, cache: PagedKVCache, sequence: PagedSequence | None = None) -> None:
        self.model = model
        self.cache = cache
        self.sequence = sequence
        self.computed = 0

    def compute(self, tokens: list[int]) -> Tensor:
        from kvpaged.model.compute import compute

        if self.sequence is None:
            self.sequence = self.cache.sequence(tokens)
        else:
            for token in tokens:
                self.sequence.append(token)
        self.computed += len(tokens)
        return compute(self.model, self.cache, self.sequence)

    def branch(self) -> _Paged:
        assert self.sequence is not None
        return _Paged(self.model, self.cache, self.sequence.fork())


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
    table = Table("K and V", "tokens computed", "bytes held", "bytes copied", "seconds")
    for column in table.columns[1:]:
        column.justify = "right"
    for each in results:
        numbers = (f"{number:,}" for number in (each.tokens_computed, each.bytes_held, each.bytes_copied))
        table.add_row(each.name, *numbers, f"{each.seconds:.3f}")
    console.print(table)
    console.print("All four gave the same tokens." if same else "The tokens differ.")
