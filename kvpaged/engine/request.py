"""A request, and its branches: the continuations of its prompt, which are what is scheduled."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Hashable
from time import perf_counter

from tokenizers import Tokenizer

from kvpaged.engine.detokenizer import Detokenizer
from kvpaged.engine.metrics import RequestMetrics
from kvpaged.engine.sampler import Candidate
from kvpaged.engine.sampling_params import Params
from kvpaged.engine.speculation import PromptLookup
from kvpaged.sequence import Sequence
from kvpaged.wording import count_of


class Request:
    """A prompt and what is asked for it. Made by `Engine.submit`; what it has so far, `Engine.output` tells.

    finished: no more tokens will come. error: what failed, if something did. num_cached_tokens: prompt tokens that
    needed no computing.
    """

    def __init__(
        self,
        request_id: int,
        index: int,
        prompt: str | None,
        prompt_tokens: list[int],
        params: Params,
        eos_tokens: frozenset[int],
        max_tokens: int,
        cache_salt: Hashable,
        tokenizer: Tokenizer | None,
    ) -> None:
        self.id = request_id
        self.index = index
        self.prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.params = params
        self.eos_tokens = eos_tokens
        self.stop_tokens = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_tokens)
        self.max_tokens = max_tokens  # bounded by the context
        self.cache_salt = cache_salt
        self.tokenizer = tokenizer
        self.seed = secrets.randbits(64) if params.seed is None else params.seed
        self.width = params.width
        # The first branch computes the prompt; the others fork from it when its K and V are there.
        self.branches = [Branch(self, 0, self.width)]
        self.finished_beams: list[Branch] = []  # the best so far
        self.finished = False
        self.error: str | None = None
        self.num_cached_tokens = 0
        self.metrics = RequestMetrics(arrival=perf_counter())

    @property
    def has_ended(self) -> bool:
        """Whether none of its branches goes on."""
        return all(branch.finish_reason is not None for branch in self.branches)

    def __repr__(self) -> str:
        state = "finished" if self.finished else count_of(len(self.branches), "branch", "branches")
        return f"Request(id={self.id}, {count_of(len(self.prompt_tokens), 'prompt token')}, {state})"


class Branch:
    """One continuation. It owns a sequence while it runs, and none while it waits.

    output: the tokens chosen so far. While the branch decodes, the last of them has no slot yet.
    order: who goes before whom; who arrived last is preempted first.
    seats: how many branches it stands for: all of the request's, until they fork from it.
    """

    def __init__(self, request: Request, index: int, seats: int = 1) -> None:
        self.request = request
        self.index = index
        self.order = (request.id, index)
        self.seats = seats
        self.sequence: Sequence | None = None
        self.output: list[int] = []
        self.logprobs: list[dict[int, float]] = []
        self.cumulative_logprob = 0.0
        self.logits_hash = hashlib.blake2b(digest_size=8)  # of the logits behind `output`
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._detokenizer: Detokenizer | None = None
        self.lookup: PromptLookup | None = None
        # A beam that knows its best next tokens computes nothing until its siblings know theirs.
        self.candidates: list[Candidate] | None = None

    @property
    def detokenizer(self) -> Detokenizer | None:
        """What turns the output to text, and has seen what there is of it; None without a tokenizer."""
        request = self.request
        if self._detokenizer is None and request.tokenizer is not None:
            self._detokenizer = Detokenizer(request.tokenizer, request.prompt_tokens, request.params.stop)
            self._detokenizer.extend(self.output)
        return self._detokenizer

    def text(self) -> str:
        """The text so far, without what a stop string could still take back. Without a tokenizer, none."""
        try:
            detokenizer = self.detokenizer
            if detokenizer is None:
                return ""
            detokenizer.extend(self.output[detokenizer.num_tokens :])
            return detokenizer.visible(self.finish_reason is not None)
        except Exception:
            if self.request.error is None:
                raise
            return ""  # it is known that something fails here

    def forget_text(self) -> None:
        """Have the text made anew from the output, after a step that got no further than reading new tokens."""
        self._detokenizer = None

    def __repr__(self) -> str:
        tokens = count_of(len(self.output), "token")
        return f"Branch({self.index} of request {self.request.id}, {tokens}, {self.sequence})"
