"""What comes in: prompts and their parameters, checked and made into requests before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import count
from typing import cast

from tokenizers import Tokenizer

from kvpaged.checks import check_salt
from kvpaged.engine.request import Request
from kvpaged.engine.sampling_params import BeamSearchParams, Params, SamplingParams
from kvpaged.model import ModelShape, check_tokenizer
from kvpaged.page_table import pages_for
from kvpaged.tokens import as_tokens, unpack

Prompt = str | Sequence[int]


class Intake:
    """Refuses what an engine could never serve: ValueError or TypeError, with what was given."""

    def __init__(
        self, config: ModelShape, tokenizer: Tokenizer | None, num_pages: int, page_size: int, max_running: int
    ) -> None:
        if tokenizer is not None:
            check_tokenizer(tokenizer, config)
        self._config = config
        self._tokenizer = tokenizer
        self._num_pages = num_pages
        self._page_size = page_size
        self._max_running = max_running
        self._ids = count()

    def requests(
        self, prompts: Prompt | Sequence[Prompt], params: Params | Sequence[Params] | None, cache_salt: Hashable
    ) -> list[Request]:
        """A request for each prompt; `params` for all of them, or one for each."""
        listed = _as_list(prompts)
        if params is None or isinstance(params, SamplingParams | BeamSearchParams):
            params = [SamplingParams() if params is None else params] * len(listed)
        if isinstance(params, Mapping):
            raise TypeError(f"params is {params!r}, a {type(params).__name__}: give SamplingParams(**params)")
        if len(params) != len(listed):
            raise ValueError(f"{len(listed)} prompts, but {len(params)} params: give one for all, or one for each")
        pairs = zip(listed, params, strict=True)
        return [self.request(index, *pair, cache_salt) for index, pair in enumerate(pairs)]

    def request(self, index: int, prompt: Prompt, params: Params, cache_salt: Hashable) -> Request:
        """A request for one prompt."""
        if not isinstance(params, SamplingParams | BeamSearchParams):
            raise TypeError(f"params is {params!r}, a {type(params).__name__}: give SamplingParams(max_tokens=32), say")
        check_salt(cache_salt)  # what is none fails here, not in a step
        context, page_size = self._config.max_position_embeddings, self._page_size
        text = prompt if isinstance(prompt, str) else None
        tokens = self._tokens_of(prompt)
        if len(tokens) >= context:
            raise ValueError(
                f"the prompt has {len(tokens)} tokens, which leaves no room to generate in a context of {context}: "
                f"give at most {context - 1}"
            )
        max_tokens = context - len(tokens)
        if params.max_tokens is not None:
            max_tokens = min(max_tokens, params.max_tokens)
        num_pages = pages_for(len(tokens) + max_tokens - 1, page_size)  # the last token needs no slot
        if num_pages > self._num_pages:
            raise ValueError(
                f"{len(tokens)} prompt tokens and up to {max_tokens} more need {num_pages} pages of {page_size} slots, "
                f"and the pool has {self._num_pages}: open a larger pool, or lower max_tokens"
            )
        if params.stop and self._tokenizer is None:
            raise ValueError(f"stop is {params.stop}, but without a tokenizer there is no text to find it in")
        if params.width > self._max_running:
            raise ValueError(
                f"the request runs {params.width} sequences at once, and max_running is {self._max_running}: raise it"
            )
        eos_tokens = frozenset(self._config.eos_token_ids)
        return Request(
            next(self._ids), index, text, tokens, params, eos_tokens, max_tokens, cache_salt, self._tokenizer
        )

    def _tokens_of(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise ValueError("this engine has no tokenizer: give prompts as lists of token ids")
            prompt = self._tokenizer.encode(_checked_text(prompt)).ids
        elif isinstance(prompt, bytes | bytearray | memoryview):
            raise TypeError(f"the prompt is {type(prompt).__name__}: decode it to a string first")
        tokens = unpack(as_tokens(prompt)[1])  # plain ints, whatever kinds the prompt mixes
        if not tokens:
            raise ValueError("the prompt is empty; give it at least one token")
        if max(tokens) >= self._config.vocab_size:
            raise ValueError(f"token {max(tokens)} is outside the model's vocabulary of {self._config.vocab_size}")
        return tokens


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several, as a list of prompts."""
    if isinstance(prompts, str | bytes | bytearray | memoryview):
        return [cast(str, prompts)]
    if hasattr(prompts, "tolist"):  # an array or a tensor: of one prompt, or of several of the same length
        prompts = prompts.tolist()
    if not isinstance(prompts, Iterable):
        raise TypeError(f"prompts are {prompts!r}: give a string, a list of token ids, or a list of such")
    listed = list(prompts)
    if listed and all(hasattr(each, "__index__") and not getattr(each, "ndim", 0) for each in listed):
        return [cast(list[int], listed)]
    return cast(list[Prompt], listed)


def _checked_text(text: str) -> str:
    """The text, if it is one: a string may hold halves of characters, which no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(
            f"the prompt has {half!r}, which is no character, at index {error.start}: decode its bytes as what they are"
        ) from None
    return text
