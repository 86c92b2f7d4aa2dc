"""Answers from pages of fewer bits: `python tools/check_quantised.py`, a thousand stories for each kind of page.

Each story has 24 facts and one question, and goes through the engine with the recall model, 64 at a time. Counted are
the answers that are right; and, over the first 50 stories, how far the logits of the answer's first word are from
those on float32 pages: the largest difference of each, averaged. What was found last is in
`kvpaged/lab/quantised.json`; `--store` writes it anew.
"""

import functools
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
import typer

from kvpaged import PagedKVCache
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import Decoder, load_model, load_tokenizer
from kvpaged.model.compute import compute, open_storage
from kvpaged.page import PageStorage
from kvpaged.quantised import RewritingStorage, TailStorage, TokenStorage
from kvpaged.recall.text import Story, make_story

STORED = Path(__file__).parents[1] / "kvpaged" / "lab" / "quantised.json"
FACTS, COMPARED = 24, 50
Open = Callable[..., PageStorage]
KINDS: dict[str, Open] = {
    "rewritten, keys by channel": RewritingStorage,
    "tail, keys by channel": TailStorage,
    "tail, values by channel": functools.partial(TailStorage, keys="token", values="channel"),
    "tail, both by channel": functools.partial(TailStorage, keys="channel", values="channel"),
    "token": TokenStorage,
}


def main(
    stories: Annotated[int, typer.Option(help="How many, for each kind of page.")] = 1000,
    store: Annotated[bool, typer.Option("--store", help="Keep what is found, to be shown in the book.")] = False,
) -> None:
    """Ask about each story on each kind of page."""
    torch.set_num_threads(1)
    model = load_model("recall")
    told = [make_story(FACTS, seed=seed) for seed in range(stories)]
    exact = [logits(model, story, PageStorage) for story in told[:COMPARED]]
    found: dict[str, dict[str, Any]] = {"float32": {"right": right_answers(model, told, PageStorage)}}
    print(f"{'float32':32}      {found['float32']['right']} of {stories} right", flush=True)
    for bits in (8, 4, 2):
        for name, kind in KINDS.items():
            storage = functools.partial(kind, bits=bits)
            right = right_answers(model, told, storage)
            found_here = [logits(model, story, storage) for story in told[:COMPARED]]
            off = mean(float((a - b).abs().max()) for a, b in zip(found_here, exact, strict=True))
            found[f"{name}, {bits} bits"] = {"right": right, "logits_off": round(off, 3)}
            print(f"{name:32}{bits:3}   {right} of {stories} right, logits {off:.3f} off", flush=True)
    if store:
        keep("recall", {"date": date.today().isoformat(), "stories": stories, "facts": FACTS, "found": found})


def right_answers(model: Decoder, stories: list[Story], storage: Open) -> int:
    """How many stories' questions the engine answers rightly on pages of this kind."""
    engine = Engine(model, 1024, storage=storage)
    prompts = [story.text + story.questions[0].prompt for story in stories]
    outputs = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=6))
    said = [output.outputs[0].text for output in outputs]
    return sum(text.startswith(story.questions[0].answer) for text, story in zip(said, stories, strict=True))


def logits(model: Decoder, story: Story, storage: Open) -> torch.Tensor:
    """Logits [vocab_size] of the first word of the answer."""
    cache = PagedKVCache(16, 16, storage=open_storage(model, 16, 16, storage))
    tokens = load_tokenizer("recall").encode(story.text + story.questions[0].prompt).ids
    return compute(model, cache, cache.sequence(tokens))


def keep(part: str, found: dict[str, Any]) -> None:
    """Write one part of what is stored anew."""
    known = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    STORED.write_text(json.dumps(known | {part: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
