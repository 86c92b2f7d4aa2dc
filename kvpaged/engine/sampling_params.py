"""What a request asks for: how to choose tokens, and when to stop. Names, defaults and refusals are vLLM's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from kvpaged.checks import MOST, finite_float, flag, int_within

MAX_BEAM_WIDTH = 8
MAX_LENGTH_PENALTY = 10


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How each next token is drawn.

    n: continuations of the prompt, which share its pages.
    temperature: 0 takes the likeliest token; above, logits are divided by it.
    top_k, top_p: draw among the k likeliest tokens (0: all), then among the likeliest that hold p of what remains.
    seed: the same seed gives the same draws, whatever else the engine runs; None draws a new one.
    max_tokens: tokens to generate at most; None: up to the end of the context.
    stop: strings that end the text, which is cut before them. stop_token_ids: tokens that end it, beside <eos>.
    logprobs: report that many likeliest tokens of each position with their log-probabilities, before temperature.
    hash_logits: report a hash of all bits of the logits that the tokens were chosen from.

    Raises ValueError for values that no request can have.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    stop: str | tuple[str, ...] | list[str] = ()
    stop_token_ids: tuple[int, ...] | list[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    hash_logits: bool = False

    only_grows: ClassVar[bool] = True  # what a continuation has, it keeps

    @property
    def width(self) -> int:
        """Sequences that the request runs at once."""
        return self.n

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else _several("stop", self.stop)
        stop_token_ids = _several("stop_token_ids", self.stop_token_ids)
        if not all(isinstance(text, str) and text for text in stop):
            raise ValueError(f"stop is {self.stop!r}; it must be a string or several, none of them empty")
        checked = {
            "n": int_within("n", self.n, 1),
            "temperature": finite_float("temperature", self.temperature),
            "top_p": finite_float("top_p", self.top_p),
            "top_k": int_within("top_k", self.top_k, -1, meaning="-1 and 0 mean all tokens"),
            "seed": None if self.seed is None else int_within("seed", self.seed, -MOST),
            "max_tokens": None if self.max_tokens is None else int_within("max_tokens", self.max_tokens, 1),
            "stop": stop,
            "stop_token_ids": tuple(int_within("each of stop_token_ids", token, 0) for token in stop_token_ids),
            "ignore_eos": flag("ignore_eos", self.ignore_eos),
            "logprobs": None if self.logprobs is None else int_within("logprobs", self.logprobs, 0),
            "hash_logits": flag("hash_logits", self.hash_logits),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"n is {self.n}, but temperature 0 gives the same continuation each time; raise one or lower the other"
            )


@dataclass(frozen=True, kw_only=True)
class BeamSearchParams:
    """Keep the `beam_width` likeliest continuations at each token; beams share the pages of what they have in common.

    length_penalty: a continuation's score is its log-probability / (its tokens ** length_penalty).

    Raises ValueError for values that no request can have.
    """

    beam_width: int
    max_tokens: int = 16
    length_penalty: float = 1.0
    ignore_eos: bool = False

    only_grows: ClassVar[bool] = False  # another beam may take its place
    # What beams are not asked for.
    seed: ClassVar[None] = None
    stop: ClassVar[tuple[str, ...]] = ()
    stop_token_ids: ClassVar[tuple[int, ...]] = ()
    logprobs: ClassVar[None] = None
    hash_logits: ClassVar[bool] = False

    @property
    def width(self) -> int:
        """Sequences that the request runs at once."""
        return self.beam_width

    def __post_init__(self) -> None:
        object.__setattr__(self, "beam_width", int_within("beam_width", self.beam_width, 1, MAX_BEAM_WIDTH))
        object.__setattr__(self, "max_tokens", int_within("max_tokens", self.max_tokens, 1))
        object.__setattr__(self, "ignore_eos", flag("ignore_eos", self.ignore_eos))
        object.__setattr__(self, "length_penalty", finite_float("length_penalty", self.length_penalty))
        if abs(self.length_penalty) > MAX_LENGTH_PENALTY:
            limits = f"{-MAX_LENGTH_PENALTY} to {MAX_LENGTH_PENALTY}"
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be from {limits}")


def _several(name: str, values: object) -> tuple[Any, ...]:
    """All values; none for None, as vLLM has it."""
    if values is not None and not isinstance(values, Iterable):
        raise ValueError(f"{name} is {values!r}; it must be a list")
    return () if values is None else tuple(values)


Params = SamplingParams | BeamSearchParams
