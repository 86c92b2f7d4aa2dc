"""What fails for one request ends that request, with a reason, and its neighbours get what they would have got."""

import json
import math
import random
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import kvpaged.engine.advance as advance_room
import kvpaged.engine.beam as beam_room
from kvpaged.engine import BeamSearchParams, Engine, Params, Request, RequestOutput, SamplingParams, detokenizer
from kvpaged.engine.detokenizer import Detokenizer
from kvpaged.model import load_model, load_tokenizer
from kvpaged.recall.text import make_story
from support.byte_tokenizers import byte_fallback, byte_level

MODEL, TOKENIZER = load_model("recall"), load_tokenizer("recall")
VICTIM = "Zoe hid the drum"
STORY = make_story(3, seed=6)
PROMPTS = [STORY.text, STORY.text[:60], STORY.text[:30]]
KINDS: list[Params] = [
    SamplingParams(temperature=0, max_tokens=6, ignore_eos=True),
    SamplingParams(temperature=1.0, seed=3, n=2, max_tokens=6, ignore_eos=True, logprobs=2),
    BeamSearchParams(beam_width=3, max_tokens=6, ignore_eos=True),
]


class Spoilt:
    """A model that computes the logits of some rows wrong: of those that come after a certain token."""

    def __init__(self, after: int, wrong: float, where: int | slice) -> None:
        self.model, self.config, self.dtype, self.checkpoint = MODEL, MODEL.config, MODEL.dtype, MODEL.checkpoint
        self.after, self.wrong, self.where = after, wrong, where

    def __call__(self, tokens, positions, attend, logits_at):  # type: ignore[no-untyped-def]
        logits = MODEL(tokens, positions, attend, logits_at)
        logits[tokens[logits_at] == self.after, self.where] = self.wrong
        return logits


def serve(engine: Engine, params: Params, text: str = "Zoe hid the drum.") -> list[RequestOutput]:
    """One request that may fail, among others; everything is checked after each step, and given back in the end."""
    prompts, kinds = [*PROMPTS[:2], text, PROMPTS[2]], [*KINDS[:2], params, KINDS[2]]
    requests = [engine.submit(prompt, kind) for prompt, kind in zip(prompts, kinds, strict=True)]
    while engine.num_unfinished:
        engine.step()
        engine.cache.check()
    assert not engine.cache.sequences
    assert engine.cache.pool.num_used == len(engine.cache.prefix)
    return [engine.output(request) for request in requests]


def neighbours(outputs: list[RequestOutput]) -> list[object]:
    return [[each.tokens for each in output.outputs] for output in (*outputs[:2], outputs[3])]


@pytest.fixture(scope="module")
def undisturbed() -> list[object]:
    return neighbours(serve(Engine(MODEL, 128, 4), KINDS[0]))


@pytest.mark.parametrize("params", KINDS, ids=["greedy", "samples", "beams"])
@pytest.mark.parametrize(("wrong", "where"), [(math.nan, 3), (math.inf, 5), (-math.inf, slice(None))])
def test_logits_that_are_no_numbers_end_the_request_that_they_belong_to(
    params: Params, wrong: float, where: int | slice, undisturbed: list[object]
) -> None:
    engine = Engine(MODEL, 128, 4)
    engine.model = Spoilt(TOKENIZER.encode(" drum").ids[0], wrong, where)
    outputs = serve(engine, params, "Zoe hid the drum")
    assert {each.finish_reason for each in outputs[2].outputs} == {"error"}
    assert outputs[2].error is not None
    assert "ValueError: the model's logits are no numbers to choose by" in outputs[2].error
    assert [output.error for output in outputs].count(None) == 3
    assert neighbours(outputs) == undisturbed


@pytest.mark.parametrize(
    ("room", "place", "params"),
    [
        (advance_room, "_draws", KINDS[1]),
        (advance_room, "_gain", KINDS[0]),
        (advance_room, "_end", KINDS[1]),
        (beam_room, "next_generation", KINDS[2]),
    ],
    ids=["draws", "gains", "ends", "beams"],
)
def test_whatever_fails_for_one_request_ends_it_alone(
    room: ModuleType, place: str, params: Params, undisturbed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(room, place)

    def failing(first: Any, *rest: object) -> object:
        request = first if isinstance(first, Request) else getattr(first, "branch", first).request
        if request.prompt == VICTIM and len(request.branches[0].output) == 2:
            raise RuntimeError("one of\nmany lines")
        return whole(first, *rest)

    monkeypatch.setattr(room, place, failing)
    outputs = serve(Engine(MODEL, 128, 4), params, VICTIM)
    assert outputs[2].error == "RuntimeError: one of"
    assert {(each.finish_reason, len(each.tokens)) for each in outputs[2].outputs} == {("error", 2)}
    assert neighbours(outputs) == undisturbed


def test_a_failure_that_nobody_can_be_blamed_for_alone_fails_nobody(
    undisturbed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, failed = advance_room.draw, 0

    def crowded(logits: torch.Tensor, draws: list[object]) -> list[int]:
        nonlocal failed
        if len(draws) > 2:
            failed += 1
            raise MemoryError("too many at once")
        return draw(logits, draws)

    monkeypatch.setattr(advance_room, "draw", crowded)
    outputs = serve(Engine(MODEL, 128, 4), KINDS[1])
    assert failed > 0
    assert [output.error for output in outputs] == [None] * 4
    assert neighbours(outputs) == undisturbed


def test_who_fails_by_a_stop_string_has_tokens_and_a_reason_and_the_others_have_everything() -> None:
    class Hostile:
        """A tokenizer that cannot decode one word."""

        get_vocab_size = TOKENIZER.get_vocab_size
        encode = TOKENIZER.encode
        get_vocab = TOKENIZER.get_vocab
        id_to_token = TOKENIZER.id_to_token

        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            if TOKENIZER.token_to_id(" the") in tokens:
                raise ValueError("a word that is not to be said")
            return TOKENIZER.decode(tokens, skip_special_tokens=skip_special_tokens)

    prompts = [STORY.text + " Cy looks for the " + STORY.facts[0].thing, STORY.text]
    greedy = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    for params in (greedy, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, stop="nothing")):
        engine = Engine(MODEL, 64, 4, tokenizer=Hostile())
        first, second = engine.generate([prompts[0], [5]], [params, greedy])
        assert first.error == "ValueError: a word that is not to be said"
        assert (first.outputs[0].finish_reason, first.outputs[0].text) == ("error", "")
        assert (len(first.outputs[0].tokens) == 4) == (not params.stop)  # a stop string is looked for at once
        assert second.error is None
        assert not engine.cache.sequences


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SamplingParams, {"top_k": 2**63}, "top_k is an int of 64 bits; it must be at most 9223372036854775807"),
        (SamplingParams, {"seed": 10**5000}, "seed is an int of 16,610 bits; it must be at most"),
        (SamplingParams, {"seed": -(10**5000)}, "seed is an int of 16,610 bits; it must be at least"),
        (SamplingParams, {"temperature": 10**400}, "temperature is inf; it must be a finite number"),
        (SamplingParams, {"stop_token_ids": [1, 2.5]}, "each of stop_token_ids is 2.5; it must be a whole number"),
        (SamplingParams, {"stop_token_ids": 5}, "stop_token_ids is 5; it must be a list"),
        (SamplingParams, {"stop": 5}, "stop is 5; it must be a list"),
        (SamplingParams, {"stop": b"x"}, "stop is b'x'; it must be a string or several, none of them empty"),
        (SamplingParams, {"ignore_eos": "no"}, "ignore_eos is 'no'; it must be True or False"),
        (SamplingParams, {"hash_logits": 3}, "hash_logits is 3; it must be True or False"),
        (BeamSearchParams, {"beam_width": 2, "ignore_eos": None}, "ignore_eos is None; it must be True or False"),
        (
            BeamSearchParams,
            {"beam_width": 2, "length_penalty": 2000.0},
            "length_penalty is 2000.0; it must be from -10",
        ),
        (
            BeamSearchParams,
            {"beam_width": 2, "length_penalty": -2000},
            "length_penalty is -2000.0; it must be from -10",
        ),
        (BeamSearchParams, {"beam_width": 2, "length_penalty": 10**300}, "length_penalty is 1e+300; it must be from"),
    ],
)
def test_numbers_beyond_what_a_step_can_work_with_are_refused(
    kind: type[Params], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**options)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=2**63 - 1, seed=-(2**63) + 1, temperature=1e-320, top_p=5e-324),
        SamplingParams(temperature=1e308, seed=2**63 - 1, logprobs=2**62),
        BeamSearchParams(beam_width=2, length_penalty=10),
        BeamSearchParams(beam_width=8, length_penalty=-10.0),
    ],
)
def test_numbers_at_their_limits_are_served(params: Params) -> None:
    [output] = Engine(MODEL, 64, 4).generate(STORY.text, params)
    assert output.error is None
    assert {len(each.tokens) for each in output.outputs} <= set(range(1, 17))


def test_parameters_may_be_numbers_of_any_kind_and_are_plain_ones_then() -> None:
    params = SamplingParams(max_tokens=np.int64(5), temperature=np.float32(0.5), stop_token_ids=map(int, ["5"]))
    assert (params.max_tokens, params.temperature, params.stop_token_ids) == (5, 0.5, (5,))
    assert {type(params.max_tokens), type(params.temperature)} == {int, float}
    assert SamplingParams(stop=None, stop_token_ids=None) == SamplingParams()


@pytest.mark.parametrize(
    "prompt",
    [
        np.array([1, 2, 3]),
        torch.tensor([1, 2, 3]),
        [np.int64(1), 2, 3],
        [1, np.int64(2), 3],
        [1, torch.tensor(2), 3],
        range(1, 4),
    ],
    ids=repr,
)
def test_a_prompt_may_be_an_array_a_tensor_or_any_list_of_integers(prompt: object) -> None:
    engine = Engine(MODEL, 16, 4)
    [expected] = engine.generate([[1, 2, 3]], KINDS[0])
    for prompts in (prompt, [prompt]):
        [found] = engine.generate(prompts, KINDS[0])
        assert json.dumps(found.prompt_tokens) == "[1, 2, 3]"
        assert found.outputs[0].tokens == expected.outputs[0].tokens
    assert len(engine.generate(torch.tensor([[1, 2, 3], [4, 5, 6]]), KINDS[0])) == 2
    assert len(engine.generate([torch.tensor([1, 2, 3]), torch.tensor([4])], KINDS[0])) == 2


# --- tokens to text ---------------------------------------------------------------------------------------------


def read(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> str:
    """The text of tokens that come one by one; it only grows, and is that of all of them at once."""
    reader, shown = Detokenizer(tokenizer, prompt, ()), ""
    for token in tokens:
        reader.extend([token])
        assert reader.visible(False).startswith(shown)
        shown = reader.visible(False)
    at_once = Detokenizer(tokenizer, prompt, ())
    at_once.extend(tokens)
    assert at_once.visible(True) == reader.visible(True)
    return reader.visible(True)


@pytest.mark.parametrize("opened", [byte_fallback, byte_level])
def test_any_tokens_can_be_read(opened: Callable[[], Tokenizer]) -> None:
    tokenizer, choose, same = opened(), random.Random(0), 0
    tricky = [0x0A, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, *range(250, tokenizer.get_vocab_size())]
    for _ in range(2000):
        prompt, tokens = (choose.choices(tricky, k=choose.randint(1, 8)) for _ in range(2))
        whole = tokenizer.decode(prompt) + read(tokenizer, prompt, tokens)
        same += whole == tokenizer.decode(prompt + tokens)
    assert same > 1000  # where they differ, bytes that were shown turned out to be no character


def test_text_is_what_the_tokenizer_makes_of_it_wherever_the_prompt_ends() -> None:
    tokenizer, choose = byte_level(), random.Random(0)
    for _ in range(500):
        text = "".join(choose.choices("ab \n\u00e9\u65e5\U0001f600", k=12))
        tokens = tokenizer.encode(text).ids
        cut = choose.randrange(1, len(tokens))
        found = read(tokenizer, tokens[:cut], tokens[cut:])
        begun = len(tokenizer.decode(tokens[:cut]).rstrip(detokenizer.INCOMPLETE))
        assert found == text[begun:]  # the whole character, where the prompt ended within it


def test_a_prompt_that_ends_within_a_character_is_not_repeated_and_no_stop_string_finds_it() -> None:
    tokenizer = byte_level()
    tokens = tokenizer.encode("My PIN: 7\u00e9t").ids
    for prompt, rest in ((tokens[:-2], tokens[-2:]), (tokens[:-1], tokens[-1:])):
        reader = Detokenizer(tokenizer, prompt, ("PIN", "7"))
        assert reader.extend(rest) is None
        assert "PIN" not in reader.visible(True)


def test_a_character_that_stays_incomplete_is_shown_at_the_end() -> None:
    tokenizer = byte_level()
    tokens = tokenizer.encode("a\u00e9").ids
    reader = Detokenizer(tokenizer, tokens[:1], ())
    reader.extend(tokens[1:2])
    assert (reader.visible(False), reader.visible(True)) == ("", detokenizer.INCOMPLETE)
