"""What the recall model is trained on: conversations, and what to learn from each of their tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kvpaged.recall.text import NAMES, Fact, ask, make_story
from kvpaged.recall.tokenizer import EOS

IGNORED = -100  # the target of a token from which nothing is learnt
ANSWER, CONTINUATION = 1.0, 0.1  # how much a token's loss weighs


@dataclass
class Passage:
    """One conversation: its tokens, the target after each, that target's weight, and where answers are predicted."""

    tokens: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)

    def add(self, tokens: Sequence[int], weight: float = 0.0) -> None:
        """Append tokens; with a weight, they are to be predicted from what precedes them."""
        start = len(self.tokens)
        self.tokens += tokens
        self.targets += [IGNORED] * len(tokens)
        self.weights += [0.0] * len(tokens)
        if weight:
            for index, token in enumerate(tokens, start):
                self.targets[index - 1], self.weights[index - 1] = token, weight

    def add_answer(self, tokens: Sequence[int]) -> None:
        """Append an answer, to be predicted."""
        self.answers.append((len(self.tokens) - 1, len(self.tokens) - 1 + len(tokens)))
        self.add(tokens, ANSWER)


def make_passage(tokenizer: Tokenizer, num_facts: int, num_questions: int, rng: random.Random) -> Passage:
    """One conversation of `num_facts` facts and about `num_questions` questions, in one turn or several.

    Facts and questions are given; answers are to be predicted. After an answer to "looks" the model goes on by
    itself: the one who hid the next thing in the story looks for it. After "where" and "who" it ends its turn.
    """
    passage = Passage()
    (eos,) = tokenizer.encode(EOS).ids
    turns = min(num_facts, rng.choice((1, 1, 1, 2, 3, 4)))
    cuts = [0, *sorted(rng.sample(range(1, num_facts), turns - 1)), num_facts]
    known: list[Fact] = []
    for start, stop in pairwise(cuts):
        story = make_story(stop - start, -(-num_questions // turns), rng.getrandbits(64), earlier=known)
        known += story.facts
        passage.add(tokenizer.encode(story.text).ids)
        for question in story.questions:
            passage.add(tokenizer.encode(question.prompt).ids)
            passage.add_answer(tokenizer.encode(question.answer).ids)
            if question.kind != "looks":
                passage.targets[-1], passage.weights[-1] = eos, ANSWER
                if rng.random() < 0.2:  # a conversation may be continued with the token or without
                    passage.add([eos])
                continue
            index = known.index(question.fact)
            for _ in range(rng.choice((0, 0, 1, 2, 4))):
                index += 1
                if follows := index < len(known) and index not in cuts:
                    asker = known[index].name
                else:  # no fact follows this one: anybody may ask, about anything that was hidden
                    index = rng.randrange(len(known))
                    asker = rng.choice((known[index].name, rng.choice(NAMES)))
                following = ask(known[index], "looks", asker)
                name, *rest = tokenizer.encode(following.prompt).ids
                passage.add([name], CONTINUATION if follows else 0.0)
                passage.add(rest, CONTINUATION)
                passage.add_answer(tokenizer.encode(following.answer).ids)
    return passage


@dataclass
class Batch:
    """Passages side by side, padded at their ends: all [rows, length]."""

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    answers: list[tuple[int, int, int]]  # row, first position, last position + 1


def make_batch(tokenizer: Tokenizer, max_facts: int, num_tokens: int, rng: random.Random) -> Batch:
    """Passages of at least `num_tokens` tokens together; a third of the batches are as long as they may be."""
    num_facts = max_facts if rng.random() < 1 / 3 else round(math.exp(rng.uniform(0, math.log(max_facts))))
    num_questions = rng.randint(4, 12)
    passages: list[Passage] = []
    while sum(len(passage.tokens) for passage in passages) < num_tokens:
        passages.append(make_passage(tokenizer, num_facts, num_questions, rng))
    length = max(len(passage.tokens) for passage in passages)
    return Batch(
        torch.tensor([passage.tokens + [0] * (length - len(passage.tokens)) for passage in passages]),
        torch.tensor([passage.targets + [IGNORED] * (length - len(passage.targets)) for passage in passages]),
        torch.tensor([passage.weights + [0.0] * (length - len(passage.weights)) for passage in passages]),
        [(row, *answer) for row, passage in enumerate(passages) for answer in passage.answers],
    )
