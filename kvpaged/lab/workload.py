"""Workloads: requests that arrive by chance, drawn from a seed, for simulations, for the engine, and for other servers.

Prompts are text made of words. A word is a token for the recall model, and nearly so for any other tokenizer, so one
workload has one size wherever it runs. The words mean nothing; only `stories` can be answered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import exp, inf, log
from statistics import NormalDist
from typing import NamedTuple

from kvpaged.checks import positive_int
from kvpaged.lab.measured import MeasuredLengths
from kvpaged.lab.published import ALPACA_MEANS, SHAREGPT_MEANS

# Of the recall model's vocabulary, words that are one token each behind a space for the tokenizers of GPT-2, GPT-4,
# GPT-4o, Llama 2 and Llama 3 as well. The first word of a text has no space before it, and may be two.
FIRST_WORDS = (
    "Ada Alf Amy Ben Bo Cal Cy Dan Eli Emma Eva Finn Flo Gil Hal Ian Jan Jo June Kit Leo Liv Lou Mo Nan Ned Otto Pam "
    "Ray Rosa Roy Sam Sol Sue Tam Ted Tom Uri Val Wes Yan"
).split()
WORDS = (
    "anchor apple arrow ball basket bean bed bell boat book boot bow box bread brick bridge bucket bush button cabin "
    "camera cap card cart castle chain clock coat coin comb crown cup dice doll door drum egg fan fig flag flask fork "
    "gem hat hook horn jar key kitchen lamp letter library lock magnet map mask match medal mill mirror nest net nut "
    "orange pan pen piano pin pipe plate pot radio ring rose ruby rug saw scroll shell shield stable stamp statue "
    "stone sword table ticket tower tub wall watch well"
).split()

SHARED_PREFIXES = 8  # of the "prefix" workload, which has the longer of the paper's two (section 6.4)
PREFIX_WORDS = 341
CHAT_TURNS = 6
SECONDS_TO_THINK = 20.0  # between a chat's answer and its next question, on average
TRACE_CHUNK = 16  # words that one of `hash_ids` stands for: the default of vLLM's timed traces


class Arrival(NamedTuple):
    """A request: when it comes (seconds), what it says, how many tokens it generates, and a right answer, if any."""

    at: float
    prompt: str
    output_tokens: int
    answer: str = ""

    @property
    def num_words(self) -> int:
        """Words in the prompt: its length in tokens, exactly or nearly."""
        return len(self.prompt.split())


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens: log-normal, cut off above `most`, with the mean that is asked for after the cut.

    `spread` is the standard deviation of the logarithm: how much longer than the usual ones the long ones are.
    """

    mean: float
    spread: float
    most: int

    def __post_init__(self) -> None:
        if not (1 <= self.mean < self.most and self.spread > 0):
            raise ValueError(
                f"lengths with mean {self.mean}, spread {self.spread} and at most {self.most}: the mean must be at "
                "least 1 and below the most, the spread above 0"
            )

    @property
    def location(self) -> float:
        """The mean of the logarithm that gives the wanted mean of the lengths, found by halving."""
        low, high = -10.0, 100.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (middle, high) if self._mean_at(middle) < self.mean else (low, middle)
        return low

    def draw(self, count: int, rng: random.Random) -> list[int]:
        """Return so many lengths, each from 1 to `most`."""
        location = self.location
        lengths: list[int] = []
        while len(lengths) < count:
            length = rng.lognormvariate(location, self.spread)
            if length <= self.most:
                lengths.append(max(1, round(length)))
        return lengths

    def _mean_at(self, location: float) -> float:
        """The mean of a log-normal cut off above `most`."""
        normal, cut = NormalDist(), (log(self.most) - location) / self.spread
        below, weighted = normal.cdf(cut), normal.cdf(cut - self.spread)
        return exp(location + self.spread**2 / 2) * weighted / below if below > 1e-12 else inf


class Traffic(NamedTuple):
    """How long prompts and outputs are."""

    prompt: Lengths | MeasuredLengths
    output: Lengths | MeasuredLengths

    def draw(self, count: int, seed: int = 0) -> list[tuple[int, int]]:
        """Return prompt and output lengths of so many requests."""
        rng = random.Random(seed)
        return list(zip(self.prompt.draw(count, rng), self.output.draw(count, rng), strict=True))


# The means are the paper's. The spreads are ours: the paper draws them, and gives no number.
SHAREGPT = Traffic(*(Lengths(mean, spread, 1024) for mean, spread in zip(SHAREGPT_MEANS, (1.2, 1.0), strict=True)))
ALPACA = Traffic(*(Lengths(mean, spread, 1024) for mean, spread in zip(ALPACA_MEANS, (0.6, 1.0), strict=True)))


def sharegpt(requests: int, rate: float, seed: int = 0) -> list[Arrival]:
    """Requests as long as conversations of ShareGPT, with nothing in common."""
    return _independent(SHAREGPT, requests, rate, seed)


def alpaca(requests: int, rate: float, seed: int = 0) -> list[Arrival]:
    """Requests as short as instructions of Alpaca, with nothing in common."""
    return _independent(ALPACA, requests, rate, seed)


def prefix(requests: int, rate: float, seed: int = 0) -> list[Arrival]:
    """Alpaca's lengths behind one of a few prefixes, as instructions to an assistant are."""
    times, lengths, rng = _drawn(ALPACA, requests, rate, seed)
    prefixes = [_text(PREFIX_WORDS, rng) for _ in range(SHARED_PREFIXES)]
    return [
        Arrival(at, f"{rng.choice(prefixes)} {_text(prompt, rng)}", output)
        for at, (prompt, output) in zip(times, lengths, strict=True)
    ]


def chats(requests: int, rate: float, seed: int = 0) -> list[Arrival]:
    """Conversations: each turn's prompt is all that was said before, and a new question.

    `rate` counts requests, so conversations begin at a sixth of it. What is said before includes answers that were
    drawn too: a real model answers otherwise, so of its answers nothing is found in its prefix cache.
    """
    begins, lengths, rng = _drawn(ALPACA, requests, rate / CHAT_TURNS, seed)
    arrivals: list[Arrival] = []
    for start in range(0, requests, CHAT_TURNS):
        at, said = begins[start // CHAT_TURNS], ""
        for prompt, output in lengths[start : start + CHAT_TURNS]:
            said = f"{said} {_text(prompt, rng)}".strip()
            arrivals.append(Arrival(at, said, output))
            said += f" {_text(output, rng)}"
            at += rng.expovariate(1 / SECONDS_TO_THINK)
    return sorted(arrivals)


def stories(requests: int, rate: float, seed: int = 0, num_stories: int = 16, output_tokens: int = 32) -> list[Arrival]:
    """Questions about stories of 2 to 30 facts, which the recall model can answer. What `serve-sim` serves.

    The fewer stories, the more prompts begin alike.
    """
    from kvpaged.recall.text import make_story

    _check(requests, rate)
    positive_int("num_stories", num_stories)
    rng = random.Random(seed)
    told = [make_story(rng.randint(2, 30), 64, seed=rng.getrandbits(32)) for _ in range(num_stories)]
    arrivals = []
    for at in poisson(requests, rate, rng):
        story = rng.choice(told)
        question = rng.choice(story.questions)
        arrivals.append(Arrival(at, story.text + question.prompt, output_tokens, question.answer))
    return arrivals


WORKLOADS: dict[str, Callable[[int, float, int], list[Arrival]]] = {
    "sharegpt": sharegpt,
    "alpaca": alpaca,
    "prefix": prefix,
    "chats": chats,
    "stories": stories,
}


def poisson(requests: int, rate: float, rng: random.Random) -> list[float]:
    """Return so many times (seconds, the first is 0) at exponentially distributed distances, `rate` in a second."""
    times = [0.0]
    for _ in range(requests - 1):
        times.append(times[-1] + rng.expovariate(rate))
    return times


def json_lines(arrivals: Iterable[Arrival]) -> Iterator[str]:
    """Write requests as the JSON lines that vLLM's serving benchmark reads (checked in the source of vLLM 0.33.0).

    `prompt` and `output_tokens` are for `vllm bench serve --dataset-name custom`, which chooses times of its own. The
    rest is for `--dataset-name timed_trace`, which keeps ours, and makes prompts of its own: of `input_length` tokens,
    alike as far as their `hash_ids` are, one for each 16 tokens.
    """
    numbers: dict[tuple[int, ...], int] = {}  # of a chunk, by the number of the chunk before and its own words
    number_of_word: dict[str, int] = {}
    for arrival in arrivals:
        words = [number_of_word.setdefault(word, len(number_of_word)) for word in arrival.prompt.split()]
        chunks: list[int] = []
        for start in range(0, len(words), TRACE_CHUNK):
            chunk = (*chunks[-1:], -1, *words[start : start + TRACE_CHUNK])
            chunks.append(numbers.setdefault(chunk, len(numbers)))
        line = {
            "prompt": arrival.prompt,
            "output_tokens": arrival.output_tokens,
            "timestamp": round(arrival.at, 3),
            "input_length": len(words),
            "hash_ids": chunks,
        }
        yield json.dumps(line)


def _independent(traffic: Traffic, requests: int, rate: float, seed: int) -> list[Arrival]:
    times, lengths, rng = _drawn(traffic, requests, rate, seed)
    return [Arrival(at, _text(prompt, rng), output) for at, (prompt, output) in zip(times, lengths, strict=True)]


def _drawn(
    traffic: Traffic, requests: int, rate: float, seed: int
) -> tuple[list[float], list[tuple[int, int]], random.Random]:
    """Times, lengths, and the generator to draw words with."""
    _check(requests, rate)
    rng = random.Random(seed)
    return poisson(requests, rate, rng), traffic.draw(requests, rng.getrandbits(32)), rng


def _check(requests: int, rate: float) -> None:
    positive_int("requests", requests)
    if not 0 < rate < inf:
        raise ValueError(f"rate is {rate}; it must be a number of requests per second above 0")


def _text(num_words: int, rng: random.Random) -> str:
    return " ".join([rng.choice(FIRST_WORDS), *rng.choices(WORDS, k=num_words - 1)])
