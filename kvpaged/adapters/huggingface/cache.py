"""A cache for `generate(past_key_values=...)`: one batch of texts, whose K and V are on pages.

::

    column      0 1 2 3 4 5 6 7 | 8        what generate sees: a rectangle, padded on the left
    row 0       . . . a b c d e | f        its padding has no slots: token 0 is in column 3
    row 1       p q r s t u v w | x
    row 2       p q r s t u v w | x        rows that are the same so far are one sequence,
    row 3       p q r s t u v w | y        and those that part go on as forks of it
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod, WeakSet, finalize, proxy

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import Cache, CacheLayerMixin

from kvpaged.adapters.huggingface.attention import NAME, NO_MASK
from kvpaged.adapters.huggingface.model import HuggingFaceModel
from kvpaged.adapters.huggingface.rectangle import check_layout, prompts_of
from kvpaged.adapters.huggingface.step import Row, Step
from kvpaged.cache import PagedKVCache
from kvpaged.model.compute import claim, compute
from kvpaged.page import PageStorage
from kvpaged.page_pool import OutOfPages
from kvpaged.sequence import Sequence as PagedSequence
from kvpaged.tokens import common_prefix, pack

REFUSALS = (ValueError, TypeError, OutOfPages)  # who raises these has changed nothing
# Of each memory, the sequences of caches that are gone: the next cache releases those that are not released.
_left: WeakKeyDictionary[PagedKVCache, WeakSet[PagedSequence]] = WeakKeyDictionary()


class PagedCache(Cache):
    """The K and V of one call of generate (or of several that continue the same texts), on pages of a `PagedKVCache`.

    ::

        memory = PagedKVCache(num_pages, page_size, storage=open_storage(served, num_pages, page_size))
        with PagedCache(served, memory, **inputs) as cache:
            output = served.model.generate(**inputs, past_key_values=cache)

    Beams, samples and equal prompts share pages until they part; the first to write to a shared page then copies the
    slots in use. What the prefix cache knows of the prompts is not computed again, though in a batch no row can skip
    more columns than the row that knows least. What all prompts begin with is computed once, when the cache begins.

    num_cached_tokens: of each prompt, the tokens that generate need not compute. computed_tokens: those that went
    through the model so far, in all rows. gathered_pages: pages of one layer that were copied into a contiguous tensor
    so far; none is in decode while the model's attention is "kvpaged". num_forks: how often a row parted from another.
    """

    def __init__(
        self,
        served: HuggingFaceModel,
        memory: PagedKVCache,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache_salt: Hashable = None,
    ) -> None:
        """Begin a sequence for each prompt. They own pages until `release`, or the end of the `with`.

        Where an interrupt comes just as the `with` begins or ends, they own them until this cache is dropped and the
        next one begins in this memory: the garbage collector only notes what is left, as it may come at any moment.

        input_ids, attention_mask: [batch, length], as generate gets them. Raises ValueError for padding on the right, a
        prompt that is empty, or a memory with another model's K and V; OutOfPages when the pages do not suffice; nobody
        owns more then.
        """
        if not isinstance(memory.storage, PageStorage):
            raise ValueError("this memory keeps books only: open it with storage=open_storage(served, ...)")
        super().__init__(layers=[PagedLayer(self, layer) for layer in range(served.config.num_layers)])
        self.memory = memory
        self.computed_tokens = self.gathered_pages = self.num_forks = 0
        self._served = served
        self._storage = memory.storage
        self._step: Step | None = None
        claim(memory, served)
        self._prompts = prompts_of(input_ids, attention_mask)
        left = _left.setdefault(memory, WeakSet())
        self._others = memory.sequences.difference(left)  # as of the last pass: they survive an interrupt of it
        self._rows: list[Row] = []
        self._hooks: list[RemovableHandle] = []
        self._dropped = finalize(self, _leave, self._hooks, self._rows, left)
        with self._salvaging():
            for sequence in memory.sequences.intersection(left):
                sequence.release()
            self._rows += self._begin(cache_salt)
            # All rows have as many columns: what the row that knows least must compute, all compute.
            self._columns = min(row.padding + row.sequence.num_cached_tokens for row in self._rows)
            self.num_cached_tokens = [max(0, self._columns - row.padding) for row in self._rows]
            before, after = _weak(self._before_forward), _weak(self._after_forward)
            self._hooks.append(served.model.register_forward_pre_hook(before, with_kwargs=True))
            self._hooks.append(served.model.register_forward_hook(after, with_kwargs=True, always_call=True))

    @property
    def sequences(self) -> list[PagedSequence]:
        """The sequence of each row; rows that are the same so far have one and the same."""
        return [row.sequence for row in self._rows]

    @property
    def num_pages(self) -> int:
        """Pages in the rows' tables, each counted once."""
        return len({page_id for sequence in self.sequences for page_id in sequence.table.page_ids})

    @property
    def num_bytes(self) -> int:
        """Bytes of those pages."""
        return self.num_pages * self._storage.bytes_per_page

    def release(self) -> None:
        """Give the pages back; the prefix cache keeps what was computed. This cache is of no more use then."""
        _remove(self._hooks)
        self.pick([])
        self._dropped.detach()

    def __enter__(self) -> PagedCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release; after an interrupt, or an error that may have come between any two lines, salvage what others have.

        Nothing is kept in the prefix cache then.
        """
        with self._salvaging():
            if error is not None and not isinstance(error, REFUSALS):
                raise error
            self.release()

    @contextmanager
    def _salvaging(self) -> Iterator[None]:
        """Own nothing any more after an interrupt, wherever it comes, or an error."""
        try:
            yield
        except REFUSALS:
            raise
        except BaseException:
            _remove(self._hooks)
            self._rows.clear()
            self._step = None
            self.memory.salvage(self._others & self.memory.sequences)
            raise

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns whose K and V are there."""
        return self._columns

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i go on as row beam_idx[i]. No K and V move: a row is a name for a sequence."""
        self.pick(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows named, in that order."""
        self.pick(torch.arange(len(self._rows))[indices].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Let each row go on `repeats` times."""
        self.pick([index for index in range(len(self._rows)) for _ in range(repeats)])

    def crop(self, tokens_to_remove: int) -> None:
        """Forget as many columns as the negative number says: speculative decoding's rollback.

        Raises ValueError unless every row has so many tokens; nothing is then changed.
        """
        shortest = min((len(sequence) for sequence in self.sequences), default=0)
        if not -shortest <= tokens_to_remove <= 0:
            raise ValueError(
                f"cannot crop by {tokens_to_remove}: the shortest row has {shortest} tokens, so give {-shortest} to 0"
            )
        for sequence in dict.fromkeys(self.sequences):
            sequence.truncate(len(sequence) + tokens_to_remove)
        self._columns += tokens_to_remove

    def reset(self) -> None:
        """The same as `release`: other texts begin with another cache."""
        self.release()

    def __repr__(self) -> str:
        return f"PagedCache({len(self._rows)} rows of {self._columns} columns, {self.num_pages} pages)"

    @property
    def reads_in_place(self) -> bool:
        """Whether the model's attention is "kvpaged", which reads pages where they are."""
        return bool(self._served.model.config._attn_implementation == NAME)

    @property
    def step(self) -> Step:
        """The forward pass that is under way."""
        if self._step is None:
            raise RuntimeError("this cache is released, or was begun for another model: begin one for this model")
        return self._step

    def _before_forward(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give the new tokens slots. Here, and only here, a cache can learn which tokens they are."""
        if kwargs.get("past_key_values") is not self:
            return None
        self._others = self.memory.sequences.difference(self.sequences)
        input_ids = args[0] if args else kwargs.get("input_ids")
        unknown = [name for name in ("inputs_embeds", "token_type_ids") if kwargs.get(name) is not None]
        if unknown or not isinstance(input_ids, Tensor):
            raise ValueError(f"a paged cache knows texts by their tokens: give input_ids, and no {', '.join(unknown)}")
        tokens = input_ids.tolist()
        rows = self._rows_for(len(tokens))
        if self._columns and self._prompts and self._repeats_prompts(tokens):
            self._columns = 0  # assisted generation begins with the whole prompts, whatever the cache knows
            self.num_cached_tokens = [0] * len(self.num_cached_tokens)
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        check_layout(mask, positions, [row.padding for row in rows], self._columns, len(tokens[0]))
        limit = self._served.config.max_position_embeddings
        self._step = Step(self._storage, rows, self._columns, tokens, limit, self.reads_in_place)
        if not self._step.in_place:
            return None
        return args, {**kwargs, "attention_mask": NO_MASK, "attend": self._step.attend}

    def _after_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """K and V are there; or nothing is, if the model failed."""
        step = self._step
        if kwargs.get("past_key_values") is not self or step is None:
            return
        self._step = None
        if output is None:
            step.undo()
            return
        step.commit()
        self._prompts = []
        self._rows[:] = step.rows
        self._columns += step.num_columns
        self.computed_tokens += step.num_tokens
        self.gathered_pages += step.gathered_pages
        self.num_forks += step.num_forks

    def _begin(self, cache_salt: Hashable) -> list[Row]:
        begun: dict[tuple[int, ...], PagedSequence] = {}
        texts = dict.fromkeys(tuple(tokens) for tokens, _ in self._prompts)
        try:
            if len(texts) > 1 and self.reads_in_place:
                self._compute_common(list(texts), cache_salt)
            for tokens in texts:
                begun[tokens] = self.memory.sequence(tokens, cache_salt)
        except BaseException:
            for sequence in begun.values():
                sequence.release()
            raise
        return [Row(begun[tuple(tokens)], padding) for tokens, padding in self._prompts]

    def _compute_common(self, texts: list[tuple[int, ...]], cache_salt: Hashable) -> None:
        """Compute what all prompts begin with and leave it to the prefix cache, if it fills a page and is not known."""
        length = common_prefix(pack(min(texts)), pack(max(texts)))
        common = texts[0][: min(length, *(len(text) - 1 for text in texts))]  # one token of each must be left to run
        known = self.memory.prefix.match(common, cache_salt).num_tokens
        if not self.memory.prefix_caching or len(common) < self.memory.page_size or known == len(common):
            return
        sequence = self.memory.sequence(common, cache_salt)
        try:
            self.computed_tokens += len(sequence) - sequence.num_computed
            compute(self._served, self.memory, sequence)
        finally:
            sequence.release()

    def _rows_for(self, batch_size: int) -> list[Row]:
        """The rows of a batch; generate repeats each for its beams or samples without a word to the cache."""
        repeats, rest = divmod(batch_size, len(self._rows)) if self._rows else (0, 1)
        if rest or not repeats:
            raise ValueError(
                f"the batch has {batch_size} rows, this cache {len(self._rows)}: begin one with its prompts"
            )
        return [row for row in self._rows for _ in range(repeats)]

    def _repeats_prompts(self, tokens: list[list[int]]) -> bool:
        repeats = len(tokens) // len(self._prompts)
        prompts = [prompt for prompt in self._prompts for _ in range(repeats)]
        return all(
            new[padding : padding + len(prompt)] == prompt
            for new, (prompt, padding) in zip(tokens, prompts, strict=True)
        )

    def pick(self, indices: list[int]) -> None:
        """Let row i go on as what row indices[i] was; release the sequences that no row goes on with."""
        rows = [self._rows[index] for index in indices]
        kept = {row.sequence for row in rows}
        for sequence in dict.fromkeys(self.sequences):
            if sequence not in kept:
                sequence.release()
        self._rows[:] = rows


class PagedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of a `PagedCache`, as transformers wants it."""

    is_croppable = True
    supports_early_init = False

    def __init__(self, cache: PagedCache, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache: PagedCache = proxy(cache)  # no circle: a cache that nobody has goes at once
        self._layer = layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the pages are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hand on K and V of the new tokens, [rows, kv_heads, new columns, head_dim].

        Where attention works on the pages itself, it also stores them; else they are stored here, and K and V of all
        columns come back, gathered.
        """
        step = self._cache.step
        if step.in_place:
            return key_states, value_states
        step.write(self._layer, key_states, value_states)
        return step.gather(self._layer, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a mask must cover, and the first of them."""
        return self._cache.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns whose K and V are there."""
        return self._cache.get_seq_length()

    def get_max_length(self) -> int:
        """No limit that transformers should know of."""
        return -1


def _weak(method: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that keeps no cache alive: one that was dropped unreleased takes its hooks off the model as it goes."""
    found = WeakMethod(method)

    def call(*arguments: Any) -> Any:
        hook = found()
        return None if hook is None else hook(*arguments)

    return call


def _leave(hooks: list[RemovableHandle], rows: list[Row], left: WeakSet[PagedSequence]) -> None:
    """Take the hooks of a cache that is gone off its model; note its sequences."""
    _remove(hooks)
    left.update(row.sequence for row in rows)


def _remove(hooks: list[RemovableHandle]) -> None:
    """Take hooks off their model; if that is interrupted, it can be done again."""
    while hooks:
        hooks[-1].remove()
        hooks.pop()
