"""`plan`: what a token costs, and how many fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kvpaged.lab.memory_plan import MemoryPlan
    from kvpaged.lab.trace import Trace

_LENGTHS = (1024, 8192, 32768, 131072)


def plan(
    model: Annotated[Path, typer.Option(help="A model's config.json, or the folder that has it.")],
    memory: Annotated[
        str | None, typer.Option(help="What is left for K and V beside the weights, such as 24GiB.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="A trace, as 'explain' reads it: what would that memory find of it?")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="For a trace of chats: a tokenizer.json, or a checkpoint's folder.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of K and V: float32, bfloat16, float16 or fp8. The model's, if not given.")
    ] = None,
    page_size: Annotated[int, typer.Option(min=1, help="Tokens in a page.")] = 16,
) -> None:
    """Work out what K and V of a token cost, and how many tokens and requests fit.

    The formula is shown with its numbers, for each kind of layer: full attention, with a window, MLA, recurrent.
    """
    from kvpaged.lab.memory_plan import plan_memory
    from kvpaged.lab.sizes import read_size

    if trace is not None and memory is None:
        raise ValueError("--trace needs --memory: how much would be found depends on how much there is")
    found = plan_memory(model, dtype)
    room = None if memory is None else read_size(memory)
    for line in _costs(found):
        print(line)
    read = None if trace is None else _read(trace, tokenizer)
    for line in _requests(found, page_size, room, read):
        print(line)
    if read is not None and room is not None:
        print(_hits(found, page_size, room, read))


def _costs(found: MemoryPlan) -> Iterator[str]:
    from kvpaged.lab.sizes import written_size

    for kind in found.kinds:
        cost, each = (kind.state_bytes, "request") if kind.state_bytes else (kind.bytes_per_token, "token")
        total = kind.layers * cost
        yield f"{kind.name}: {kind.layers} layers x {kind.formula} = {total:,} bytes ({written_size(total)}) a {each}"
    if found.shared_by > 1:
        times = found.shared_by
        yield f"A kv head serves {times} query heads (GQA); one for each would cost {times} times that."
    if len(found.kinds) > 1:
        yield f"all layers: {found.bytes_per_token:,} bytes a token, as long as no window is full"


def _requests(found: MemoryPlan, page_size: int, room: int | None, trace: Trace | None) -> Iterator[str]:
    from kvpaged.lab.sizes import written_size

    if room is not None and found.grows_evenly:
        tokens = room // (found.bytes_per_token * page_size) * page_size
        pages = f"{tokens // page_size:,} pages of {page_size}"
        yield f"{written_size(room)} / {found.bytes_per_token:,} bytes = {tokens:,} tokens, {pages}"
    lengths: dict[str, int] = {f"{length:,} tokens": length for length in _LENGTHS if length <= found.max_tokens}
    if trace is not None:
        prompts = sorted(request.num_tokens for request in trace.requests)
        lengths = {
            f"{prompts[len(prompts) // 2]:,} tokens, the trace's median prompt,": prompts[len(prompts) // 2],
            f"{prompts[-1]:,} tokens, its longest,": prompts[-1],
        }
    for name, length in lengths.items():
        size = found.bytes_for(length, page_size)
        fits = f": {room // size:,} fit" if room is not None else ""
        yield f"a request of {name} holds {written_size(size)}{fits}"


def _read(trace: str, tokenizer: Path | None) -> Trace:
    from kvpaged.cli.explain import lines_of
    from kvpaged.lab.read_trace import TraceReader
    from kvpaged.lab.vocabulary import load_vocabulary

    with lines_of(trace) as lines:
        vocabulary = None if tokenizer is None else load_vocabulary(tokenizer)
        read = TraceReader(Path(trace).name, vocabulary).read(lines)
    if not read.requests:
        raise ValueError(f"{trace} has no requests: nothing could be found of them")
    return read


def _hits(found: MemoryPlan, page_size: int, room: int, trace: Trace) -> str:
    from kvpaged.lab.explain.hits import tokens_found
    from kvpaged.lab.explain.page_paths import PagePaths
    from kvpaged.lab.explain.prefix_tree import PrefixTree

    if not found.grows_evenly or trace.block_size is None:
        return "What a cache would find of the trace is not worked out for windows, states and blocks of unknown sizes."
    tree = PrefixTree()
    ends = [tree.add(number, request.units, request.cache_salt).end for number, request in enumerate(trace.requests)]
    paths = PagePaths(ends, page_size if trace.in_tokens else 1)
    tokens_per_page = page_size if trace.in_tokens else trace.block_size
    pages = max(1, room // (found.bytes_per_token * tokens_per_page))
    kept, ceiling = (sum(tokens_found(trace, paths, n)) / trace.num_tokens for n in (pages, paths.distinct_pages))
    found_share = f"{kept:.1%} of the trace's prompt tokens"
    return f"a prefix cache in all of it finds at most {found_share}; one without limits {ceiling:.1%}"
