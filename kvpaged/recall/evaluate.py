"""Measure the recall model on stories it has not seen: `python -m kvpaged.recall.evaluate`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kvpaged.model.decoder import Decoder
from kvpaged.model.loading import load_model, load_tokenizer
from kvpaged.recall.batch_cache import BatchCache, batch_logits
from kvpaged.recall.text import KINDS, Fact, Story, make_story

SENTENCE = re.compile(r" \w+ looks for the (\w+) (\w+) the (\w+)\.")
ROWS = 20  # stories computed side by side


def main() -> None:
    """Print what share of questions is answered rightly, and whether the model keeps recalling by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="recall")
    parser.add_argument("--questions", type=int, default=1000, help="for each length of context")
    parser.add_argument("--stories", type=int, default=100, help="to continue, for each length and temperature")
    parser.add_argument("--tokens", type=int, default=100, help="of each continuation")
    options = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation: the same figures every time
    model, tokenizer = load_model(options.checkpoint), load_tokenizer(options.checkpoint)
    for num_facts in (1, 3, 6, 16, 32, 62, 91, 120, 150):
        right = count_right(model, tokenizer, num_facts, options.questions)
        print(f"{num_facts:3} facts, {8 * num_facts + 5:4} tokens: {right} of {options.questions} right", flush=True)
    for temperature in (0.0, 0.7, 1.0):
        for num_facts in (4, 16, 62, 91):
            stories = [make_story(num_facts, 1, seed, kinds=["looks"]) for seed in range(options.stories)]
            print(f"{num_facts:3} facts, then {options.tokens} tokens at temperature {temperature}: ", end="")
            print(judge(stories, continue_stories(model, tokenizer, stories, options.tokens, temperature)), flush=True)


def count_right(model: Decoder, tokenizer: Tokenizer, num_facts: int, num_questions: int, first_seed: int = 0) -> int:
    """How many of `num_questions` stories' questions have every token of their answer as the likeliest."""
    right = 0
    for kind_index, kind in enumerate(KINDS):
        seeds = range(first_seed + kind_index, first_seed + num_questions, len(KINDS))
        for start in range(0, len(seeds), ROWS):
            stories = [make_story(num_facts, 1, seed, kinds=[kind]) for seed in seeds[start : start + ROWS]]
            prompts = _tokens(tokenizer, [story.text + story.questions[0].prompt for story in stories])
            answers = _tokens(tokenizer, [story.questions[0].answer for story in stories])
            logits = batch_logits(model, torch.cat((prompts, answers[:, :-1]), dim=1), BatchCache(len(stories)))
            said = logits[:, prompts.shape[1] - 1 :].argmax(-1)
            right += int((said == answers).all(-1).sum())
    return right


def continue_stories(
    model: Decoder, tokenizer: Tokenizer, stories: Sequence[Story], num_tokens: int, temperature: float = 0.0
) -> list[str]:
    """Each story's first question and what the model says next, going on by itself for `num_tokens` tokens."""
    generator = torch.Generator().manual_seed(0)
    continuations = []
    for start in range(0, len(stories), ROWS):
        rows = stories[start : start + ROWS]
        prompts = _tokens(tokenizer, [story.text + story.questions[0].prompt for story in rows])
        cache, tokens = BatchCache(len(rows)), prompts
        logits = batch_logits(model, tokens, cache)
        for _ in range(num_tokens):
            if temperature:
                shares = (logits[:, -1] / temperature).softmax(-1)
                chosen = torch.multinomial(shares, 1, generator=generator)
            else:
                chosen = logits[:, -1].argmax(-1, keepdim=True)
            logits = batch_logits(model, chosen, cache, start=tokens.shape[1])
            tokens = torch.cat((tokens, chosen), dim=1)
        said = tokenizer.decode_batch(tokens[:, prompts.shape[1] :].tolist())
        continuations += [story.questions[0].prompt + text for story, text in zip(rows, said, strict=True)]
    return continuations


@dataclass
class Verdict:
    """What continuations say: answers right and wrong, questions about things that nobody hid, other text."""

    right: int = 0
    wrong: int = 0
    unknown: int = 0
    malformed: int = 0
    different: int = 0  # facts told, each counted once a continuation

    def __str__(self) -> str:
        return (
            f"{self.right} answers right, {self.wrong} wrong, {self.unknown} about things nobody hid, "
            f"{self.malformed} other sentences, {self.different} different facts told"
        )


def judge(stories: Sequence[Story], continuations: Sequence[str]) -> Verdict:
    """Hold each continuation's whole sentences against its story's facts."""
    verdict = Verdict()
    for story, text in zip(stories, continuations, strict=True):
        facts: dict[str, Fact] = {fact.thing: fact for fact in story.facts}
        told = set()
        for sentence in re.findall(r"[^.]*\.", text):
            match = SENTENCE.fullmatch(sentence)
            if match is None:
                verdict.malformed += 1
            elif match[1] not in facts:
                verdict.unknown += 1
            elif (match[2], match[3]) != (facts[match[1]].preposition, facts[match[1]].place):
                verdict.wrong += 1
            else:
                verdict.right += 1
                told.add(match[1])
        verdict.different += len(told)
    return verdict


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(list(texts))])


if __name__ == "__main__":
    main()
