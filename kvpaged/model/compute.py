"""One sequence at a time through the decoder: on pages, on a contiguous cache, and with no cache at all.

The three ways to generate give the same tokens; they differ in what they compute again and in what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kvpaged.cache import PagedKVCache
from kvpaged.model.fast import fast
from kvpaged.model.language_model import LanguageModel, ModelShape
from kvpaged.naive_cache import ContiguousCache, NoCache
from kvpaged.page import PageStorage
from kvpaged.paged_step import PagedStep, Span
from kvpaged.sequence import Sequence as PagedSequence


def open_storage(
    model: LanguageModel,
    num_pages: int,
    page_size: int,
    kind: Callable[..., PageStorage] = PageStorage,
) -> PageStorage:
    """The storage whose pages fit a model's K and V, in its dtype.

    Raises ValueError as `PageStorage` does.
    """
    config = model.config
    return kind(num_pages, page_size, config.num_layers, config.num_kv_heads, config.head_dim, model.dtype)


_version = attrgetter("_version")
# Walking through a model's modules takes longer than counting over its weights, and is done at each step.
_listed: WeakKeyDictionary[torch.nn.Module, list[torch.nn.Parameter]] = WeakKeyDictionary()


def claim(cache: PagedKVCache, model: LanguageModel) -> None:
    """Note whose K and V a cache holds. Raises ValueError if it holds those of another model, or of other weights.

    Weights that torch changes in place are noticed; those of inference tensors, parameters that are replaced by others,
    and what is written by other ways, not.
    """
    storage, found = cache.storage, _weights(model)
    if not isinstance(storage, PageStorage) or storage.computed_by == found:
        return
    if storage.computed_by is not None and cache.holds_any:
        raise ValueError(
            "this cache holds keys and values of another model, or of other weights: release its sequences and call "
            "cache.prefix.clear(), or open a cache for each model"
        )
    storage.computed_by = found


def _weights(model: LanguageModel) -> tuple[object, int]:
    """What tells one model's weights from another's, and from themselves when they have changed."""
    module = getattr(model, "model", model)
    if not isinstance(module, torch.nn.Module):
        return module, 0
    if module not in _listed:
        _listed[module] = [weight for weight in module.parameters() if not weight.is_inference()]
    return module, sum(map(_version, _listed[module]))


@torch.no_grad()
def compute(model: LanguageModel, cache: PagedKVCache, sequence: PagedSequence) -> Tensor:
    """Logits [vocab_size] of a sequence's last token, after one forward pass over its tokens not computed yet.

    Their K and V are written to the slots that the sequence reserved, and it marks them as computed.
    Raises ValueError if the cache has no storage or another model's K and V (see `claim`), if the sequence is no live
    one of this cache, or if all its tokens are computed already.
    """
    storage = cache.storage
    if not isinstance(storage, PageStorage):
        raise ValueError("this cache keeps books only: open it with storage=open_storage(model, num_pages, page_size)")
    if sequence not in cache.sequences:
        raise ValueError(f"{sequence} is no live sequence of this cache: give the cache that began it")
    start, stop = sequence.num_computed, len(sequence)
    if start == stop:
        raise ValueError(f"all {stop} tokens of sequence {sequence.id} are computed: append the next token first")
    claim(cache, model)
    pages = PagedStep(storage, [Span(sequence, start, stop)])
    tokens, positions = torch.tensor(sequence.tokens[start:]), torch.arange(start, stop)
    logits: Tensor = fast(model)(tokens, positions, pages, torch.tensor([stop - start - 1]))[0]
    sequence.mark_computed()
    return logits


def generate_paged(
    model: LanguageModel, cache: PagedKVCache, prompt_tokens: Sequence[int], max_tokens: int
) -> list[int]:
    """Greedy continuation of a prompt, K and V on pages; the sequence is released at the end.

    Stops after <eos>, after `max_tokens`, or where the model's context ends. Raises OutOfPages when the pages run out.
    """
    sequence = cache.sequence(prompt_tokens)
    try:
        return continue_paged(model, cache, sequence, max_tokens)
    finally:
        sequence.release()


def continue_paged(model: LanguageModel, cache: PagedKVCache, sequence: PagedSequence, max_tokens: int) -> list[int]:
    """Greedy continuation of a sequence, a fork say, which grows by all of it but the last token.

    Its last token must not be computed yet. Stops, and raises, as `generate_paged` does.
    """

    def logits_after(output: list[int]) -> Tensor:
        if output:
            sequence.append(output[-1])
        return compute(model, cache, sequence)

    return _generate(model.config, len(sequence), max_tokens, logits_after)


def generate_cached(
    model: LanguageModel, prompt_tokens: Sequence[int], max_tokens: int, cache: ContiguousCache
) -> list[int]:
    """Greedy continuation of a prompt, K and V in one contiguous cache, which may hold the prompt's beginning already.

    Stops as `generate_paged` does.
    """

    def logits_after(output: list[int]) -> Tensor:
        return last_logits(model, cache, [*prompt_tokens, *output][len(cache) :])

    return _generate(model.config, len(prompt_tokens), max_tokens, logits_after)


def generate_naive(model: LanguageModel, prompt_tokens: Sequence[int], max_tokens: int) -> list[int]:
    """Greedy continuation of a prompt, computing every token again for each new one. Stops as `generate_paged` does."""
    return generate_cached(model, prompt_tokens, max_tokens, NoCache())


def _generate(
    config: ModelShape, num_tokens: int, max_tokens: int, logits_after: Callable[[list[int]], Tensor]
) -> list[int]:
    room = config.max_position_embeddings - num_tokens
    output: list[int] = []
    while len(output) < min(max_tokens, room) and (not output or output[-1] not in config.eos_token_ids):
        output.append(int(logits_after(output).argmax()))
    return output


@torch.no_grad()
def last_logits(model: LanguageModel, cache: ContiguousCache, tokens: Sequence[int]) -> Tensor:
    """Logits [vocab_size] of the last of some tokens, which come after those that the cache holds."""
    start = len(cache)
    positions = torch.arange(start, start + len(tokens))
    logits: Tensor = model(torch.tensor(tokens), positions, cache.attend, torch.tensor([len(tokens) - 1]))[0]
    return logits
