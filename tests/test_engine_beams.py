"""Beam search by fork, against a search that computes every beam from its first token, every time."""

import random

import pytest
import torch

from kvpaged.engine import BeamSearchParams, Engine, SamplingParams
from kvpaged.model import Decoder, ModelConfig, load_model
from kvpaged.naive_cache import NoCache
from kvpaged.recall.text import ask, make_story

pytestmark = pytest.mark.usefixtures("poisoned_engines")

MODEL = load_model("recall")
STORY = make_story(3, seed=6)
OPEN = STORY.text
QUESTION = STORY.text + ask(STORY.facts[1], "where").prompt
TOKENIZER = Engine(MODEL, 1).tokenizer


def naive_beam_search(
    model: Decoder, prompt: list[int], width: int, max_tokens: int, length_penalty: float, ignore_eos: bool
) -> list[tuple[list[int], float]]:
    """Every beam computed from scratch, and every token looked at; no search is ended early."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[tuple[list[int], float]] = []
    for _ in range(max_tokens):
        extended = []
        for tokens, score in beams:
            whole = torch.tensor(prompt + tokens)
            with torch.no_grad():
                logits = model(whole, torch.arange(len(whole)), NoCache().attend)[-1]
            values, found = logits.double().log_softmax(-1).sort(descending=True)
            extended += [([*tokens, int(t)], score + float(v)) for v, t in zip(values, found, strict=True)]
        extended.sort(key=lambda each: -each[1])
        beams = []
        for each in extended:
            if len(beams) == width:
                break
            ends = each[0][-1] in model.config.eos_token_ids and not ignore_eos
            (finished if ends else beams).append(each)
    finished += beams
    finished.sort(key=lambda each: -(each[1] / len(each[0]) ** length_penalty))
    return finished[:width]


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize(("width", "length_penalty"), [(1, 1.0), (2, 0.0), (3, 1.0), (5, -0.5), (8, 2.0)])
def test_beams_are_those_of_a_search_without_any_cache(width: int, length_penalty: float, ignore_eos: bool) -> None:
    engine = Engine(MODEL, 64, 4)
    params = BeamSearchParams(beam_width=width, max_tokens=6, length_penalty=length_penalty, ignore_eos=ignore_eos)
    for text in (OPEN, QUESTION):
        output = engine.generate(text, params)[0]
        expected = naive_beam_search(MODEL, TOKENIZER.encode(text).ids, width, 6, length_penalty, ignore_eos)
        assert [each.tokens for each in output.outputs] == [tokens for tokens, _ in expected]
        scores = [each.cumulative_logprob for each in output.outputs]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-3)
        assert [each.index for each in output.outputs] == list(range(width))
    engine.cache.check()
    assert engine.cache.pool.num_used == len(engine.cache.prefix)


@pytest.mark.parametrize("seed", range(12))
def test_beams_are_those_where_more_tokens_end_a_text_than_beams_are_kept(seed: int) -> None:
    choose = random.Random(seed)
    eos, width = tuple(choose.sample(range(12), choose.randint(5, 9))), choose.choice([1, 2, 3])
    torch.manual_seed(seed)
    model = Decoder(
        ModelConfig(
            vocab_size=12,
            hidden_size=32,
            intermediate_size=32,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            max_position_embeddings=32,
            eos_token_id=eos,
        )
    ).eval()
    penalty = choose.choice([0.0, 1.0, -1.0, 10.0])
    params = BeamSearchParams(beam_width=width, max_tokens=4, length_penalty=penalty)
    [output] = Engine(model, 64, 4).generate([[1, 2, 3, 4]], params)
    expected = naive_beam_search(model, [1, 2, 3, 4], width, 4, penalty, False)
    assert [each.tokens for each in output.outputs] == [tokens for tokens, _ in expected]


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("page_size", [1, 3, 4, 16])
@pytest.mark.parametrize("spare_pages", [0, 1, 5])
def test_beams_come_out_the_same_from_a_pool_that_holds_one_of_them(
    spare_pages: int, page_size: int, prefix_caching: bool
) -> None:
    params = BeamSearchParams(beam_width=4, max_tokens=7, ignore_eos=True)
    expected = Engine(MODEL, 256, 16).generate(OPEN, params)[0]
    need = -(-(len(expected.prompt_tokens) + 6) // page_size)
    engine = Engine(MODEL, need + spare_pages, page_size, max_batched_tokens=9, prefix_caching=prefix_caching)
    beams = engine.submit(OPEN, params)
    beside = engine.submit(OPEN, SamplingParams(temperature=0, max_tokens=7))
    for _ in range(2000):
        if not engine.num_unfinished:
            break
        engine.step()
        engine.cache.check()
    assert engine.num_unfinished == 0
    assert [each.tokens for each in engine.output(beams).outputs] == [each.tokens for each in expected.outputs]
    assert beside.finished


def test_beams_share_the_pages_of_what_they_have_in_common() -> None:
    engine = Engine(MODEL, 256, 4)
    request = engine.submit(OPEN, BeamSearchParams(beam_width=8, max_tokens=10, ignore_eos=True))
    while engine.num_unfinished:
        engine.step()
    mapped = max(record.mapped_pages for record in engine.history)
    used = engine.metrics().peak_pages
    assert used < 0.5 * mapped
    assert request.metrics.computed_tokens == len(request.prompt_tokens) + 8 * 9


@pytest.mark.parametrize("seed", range(8, 16))
def test_a_beam_that_lost_its_seat_to_another_request_waits_for_one(seed: int) -> None:
    # One beam has room at a time, and a page or two beside it, which a small request takes as soon as there is a seat.
    # When the beams are chosen anew, the one that has its pages may have several heirs.
    prompt = TOKENIZER.encode(make_story(2, seed=seed).text).ids
    params = BeamSearchParams(beam_width=3, max_tokens=10, ignore_eos=True)
    engine = Engine(MODEL, -(-(len(prompt) + 9) // 4) + 2, 4, max_running=3)
    request = engine.submit(prompt, params)
    for _ in range(4):
        engine.submit(prompt[-3:], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    for _ in range(500):
        if not engine.num_unfinished:
            break
        engine.step()
        engine.cache.check()
        assert engine.history[-1].running <= 3
    expected = Engine(MODEL, 256, 16).generate([prompt], params)[0]
    assert [each.tokens for each in engine.output(request).outputs] == [each.tokens for each in expected.outputs]
