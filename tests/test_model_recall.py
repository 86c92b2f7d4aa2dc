"""The recall model answers from its context, in a text that its tokenizer restores to the letter."""

import random

import pytest
import torch

from kvpaged.model import load_model, load_tokenizer
from kvpaged.recall.batch_cache import BatchCache, batch_logits
from kvpaged.recall.evaluate import continue_stories, count_right, judge
from kvpaged.recall.passages import IGNORED, make_passage
from kvpaged.recall.text import KINDS, NAMES, PLACES, THINGS, Fact, ask, make_stories, make_story
from kvpaged.recall.tokenizer import EOS, build_tokenizer

TOKENIZER = load_tokenizer("recall")


def greedy_answer(text: str, num_tokens: int) -> str:
    """What the model says next, recomputed from the whole text at each token."""
    model, tokens = load_model("recall"), TOKENIZER.encode(text).ids
    said: list[int] = []
    while len(said) < num_tokens:
        logits = batch_logits(model, torch.tensor([tokens + said]), BatchCache(1))
        said.append(int(logits[0, -1].argmax()))
    return TOKENIZER.decode(said, skip_special_tokens=False)


@pytest.mark.parametrize("num_facts", [3, 16, 62, 91])
def test_held_out_questions_are_answered_rightly(num_facts: int) -> None:
    assert count_right(load_model("recall"), TOKENIZER, num_facts, num_questions=30, first_seed=10**6) == 30


@pytest.mark.parametrize("num_facts", [4, 62])
def test_the_model_goes_on_by_itself_and_every_answer_is_right(num_facts: int) -> None:
    stories = [make_story(num_facts, 1, seed, kinds=["looks"]) for seed in range(10)]
    verdict = judge(stories, continue_stories(load_model("recall"), TOKENIZER, stories, 100))
    assert verdict.right >= 95, "of 110 sentences; a few may ask about what nobody hid"
    assert (verdict.wrong, verdict.malformed) == (0, 0)


def test_a_conversation_over_several_turns_is_answered_rightly() -> None:
    for seed in range(3):
        text, known = "", []
        for turn in range(3):
            story = make_story(4, 3, seed=100 * seed + turn, earlier=known)
            known += story.facts
            text += story.text
            for question in story.questions:
                answer = TOKENIZER.encode(question.answer).ids
                assert greedy_answer(text + question.prompt, len(answer)) == question.answer
                text += question.text


def test_stories_that_share_their_beginning_are_told_apart() -> None:
    common = make_story(6, 0, seed=1)
    for seed in (2, 3):
        own = make_story(3, 3, seed, earlier=common.facts, kinds=["where"])
        for question in own.questions:
            assert greedy_answer(common.text + own.text + question.prompt, 4) == question.answer


@pytest.mark.parametrize("kind", ["where", "who"])
def test_a_direct_question_is_answered_and_the_turn_ended(kind: str) -> None:
    story = make_story(5, 1, seed=7, kinds=[kind])
    question = story.questions[0]
    length = len(TOKENIZER.encode(question.answer).ids) + 1
    assert greedy_answer(story.text + question.prompt, length) == question.answer + EOS
    assert TOKENIZER.token_to_id(EOS) == load_model("recall").config.eos_token_id


def test_the_same_seed_gives_the_same_story_and_another_seed_another() -> None:
    assert make_story(9, 4, seed=5) == make_story(9, 4, seed=5)
    assert make_story(9, 4, seed=5) != make_story(9, 4, seed=6)
    assert make_stories(3, 4, seed=5) == make_stories(3, 4, seed=5)


def test_a_story_hides_no_thing_twice_and_asks_about_what_it_told() -> None:
    story = make_story(len(THINGS), 2 * len(THINGS), seed=0)
    assert {fact.thing for fact in story.facts} == set(THINGS)
    assert story.text == " ".join(fact.text for fact in story.facts)
    first, second = story.questions[: len(THINGS)], story.questions[len(THINGS) :]
    for questions in (first, second):
        assert {question.fact for question in questions} == set(story.facts)


def test_a_question_reads_on_from_the_story() -> None:
    fact = Fact("Ada", "coin", "in", "attic")
    assert fact.text == "Ada hid the coin in the attic."
    assert ask(fact, "looks", "Cy").text == " Cy looks for the coin in the attic."
    assert ask(fact, "where").text == " Where is the coin? In the attic."
    assert ask(fact, "who").text == " Who hid the coin? Ada."


def test_a_later_turn_hides_other_things_and_asks_about_all() -> None:
    first = make_story(5, 0, seed=1)
    later = make_story(3, 8, seed=2, earlier=first.facts)
    assert not {fact.thing for fact in first.facts} & {fact.thing for fact in later.facts}
    assert later.text.startswith(" ")
    assert {question.fact for question in later.questions} == {*first.facts, *later.facts}


def test_stories_made_together_share_things_but_no_secret() -> None:
    stories = make_stories(8, 12, 5, seed=3)
    for story in stories:
        assert [fact.thing for fact in story.facts] == [fact.thing for fact in stories[0].facts]
    for attribute in ("name", "place"):
        owners = [{getattr(fact, attribute) for fact in story.facts} for story in stories]
        assert sum(map(len, owners)) == len(set.union(*owners))


def test_impossible_stories_are_refused() -> None:
    with pytest.raises(ValueError, match="176 facts need as many things, and 175 are left"):
        make_story(176)
    with pytest.raises(ValueError, match="2 questions need a fact to ask about"):
        make_story(0, 2)
    with pytest.raises(ValueError, match="49 stories need as many places, and there are 48"):
        make_stories(49, 2)
    with pytest.raises(ValueError, match="176 facts need as many things, and there are 175"):
        make_stories(2, 176)
    with pytest.raises(ValueError, match="unknown kind of question 'why'"):
        ask(Fact("Ada", "coin", "in", "attic"), "why")


def test_decoding_restores_the_text_wherever_it_is_cut() -> None:
    story = make_story(20, 20, seed=4)
    text = story.text + "".join(question.text for question in story.questions)
    tokens = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(tokens) == text
    assert "".join(TOKENIZER.decode([token]) for token in tokens) == text
    parts = [story.text, *(part for question in story.questions for part in (question.prompt, question.answer))]
    assert [token for part in parts for token in TOKENIZER.encode(part).ids] == tokens


def test_a_fact_is_eight_tokens_so_a_page_of_sixteen_holds_two() -> None:
    story = make_story(10, 0, seed=0)
    assert len(TOKENIZER.encode(story.text).ids) == 80


def test_every_word_of_the_language_is_known_and_others_are_marked() -> None:
    for word in (*NAMES, *THINGS, *PLACES):
        assert TOKENIZER.token_to_id(f" {word}") is not None
    assert TOKENIZER.encode("Ada hid the spaceship.").tokens[3] == "<unk>"
    assert TOKENIZER.decode(TOKENIZER.encode("Ada, hid").ids) == "Ada, hid"


def test_the_shipped_tokenizer_is_the_one_the_script_builds() -> None:
    assert TOKENIZER.to_str() == build_tokenizer().to_str()


def test_training_teaches_answers_and_never_facts() -> None:
    passage = make_passage(TOKENIZER, num_facts=6, num_questions=6, rng=random.Random(0))
    assert len(passage.tokens) == len(passage.targets) == len(passage.weights)
    hid = TOKENIZER.token_to_id(" hid")
    assert hid in passage.tokens
    assert hid not in passage.targets
    for start, stop in passage.answers:
        assert passage.targets[start:stop] == passage.tokens[start + 1 : stop + 1]
    taught = [weight > 0 for weight in passage.weights]
    assert taught == [target != IGNORED for target in passage.targets]


def test_questions_of_every_kind_are_asked() -> None:
    assert {question.kind for question in make_story(9, 60, seed=0).questions} == set(KINDS)
