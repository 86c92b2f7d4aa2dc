"""What a request asks for: how to choose tokens, and when to stop. Names, defaults and refusals are vLLM's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

MAX_BEAM_WIDTH = 8


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
        _at_least("n", self.n, 1)
        _finite("temperature", self.temperature)
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        _finite("top_p", self.top_p)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        _at_least("top_k", self.top_k, -1, "-1 and 0 mean all tokens")
        if self.max_tokens is not None:
            _at_least("max_tokens", self.max_tokens, 1)
        if self.seed is not None:
            _whole("seed", self.seed)
        if self.logprobs is not None:
            _at_least("logprobs", self.logprobs, 0)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(text, str) and text for text in stop):
            raise ValueError(f"stop is {self.stop!r}; it must be a string or several, none of them empty")
        for token in self.stop_token_ids:
            _at_least("each of stop_token_ids", token, 0)
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"n is {self.n}, but temperature 0 gives the same continuation each time; raise one or lower the other"
            )
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))


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
        _at_least("beam_width", self.beam_width, 1)
        if self.beam_width > MAX_BEAM_WIDTH:
            raise ValueError(f"beam_width is {self.beam_width}; it must be at most {MAX_BEAM_WIDTH}")
        _at_least("max_tokens", self.max_tokens, 1)
        _finite("length_penalty", self.length_penalty)


Params = SamplingParams | BeamSearchParams


def _whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be a whole number")


def _at_least(name: str, value: int, least: int, meaning: str = "") -> None:
    _whole(name, value)
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}" + (f": {meaning}" if meaning else ""))


def _finite(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
