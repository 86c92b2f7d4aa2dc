"""The engine serves many requests at once, and each gets what it would get alone on the naive cache."""

import functools
import random

import pytest
import torch

from kvpaged import EventLog
from kvpaged.engine import BeamSearchParams, Engine, QueueFull, Request, RequestOutput, SamplingParams
from kvpaged.model import Decoder, load_model
from kvpaged.model.compute import generate_naive
from kvpaged.page_table import pages_for
from kvpaged.recall.text import ask, make_stories, make_story
from kvpaged.replay import Replay
from support.faults import FailingModel, InjectedError

pytestmark = pytest.mark.usefixtures("poisoned_engines")

MODEL = load_model("recall")
VOCABULARY = MODEL.config.vocab_size
STORY = make_story(4, 4, seed=1, kinds=["looks", "where"])
OTHER = make_story(4, 4, seed=2)


def open_engine(num_pages: int = 64, page_size: int = 4, **options: object) -> Engine:
    return Engine(MODEL, num_pages, page_size, **options)


def run(engine: Engine) -> None:
    """Step to the end, checking the laws of ownership after every step."""
    while engine.num_unfinished:
        steps = len(engine.history)
        engine.step()
        assert len(engine.history) == steps + 1, "nothing could be scheduled, and nothing ever will"
        assert steps < 5000, "the engine does not come to an end"
        engine.cache.check()
    assert engine.cache.pool.num_used == len(engine.cache.prefix), "somebody still owns pages"


def tokens_of(text: str) -> list[int]:
    return Engine(MODEL, 1).tokenizer.encode(text).ids


def output_of(engine: Engine, request: Request) -> list[int]:
    return engine.output(request).outputs[0].tokens


@functools.cache
def alone(prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    return generate_naive(MODEL, prompt, max_tokens)


def greedy(max_tokens: int = 12) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens)


def workload() -> list[tuple[tuple[int, ...], int]]:
    """Prompts and their max_tokens: common beginnings, twins, one token, and lengths about a page's edge."""
    prompts = [STORY.text + question.prompt for question in STORY.questions]
    prompts += [OTHER.text + question.prompt for question in OTHER.questions[:2]] + [prompts[0]]
    tokens = [tuple(tokens_of(prompt)) for prompt in prompts]
    tokens += [tokens[0][:1], tokens[0][:16], tokens[0][:17], tokens[4][:15]]
    return [(prompt, (1, 7, 12, 20)[index % 4]) for index, prompt in enumerate(tokens)]


def least_pool(requests: list[tuple[tuple[int, ...], int]], page_size: int) -> int:
    return max(pages_for(len(prompt) + max_tokens - 1, page_size) for prompt, max_tokens in requests)


@pytest.mark.parametrize("seed", range(40))
def test_each_request_gets_its_tokens_alone_whatever_the_engine_looks_like(seed: int) -> None:
    rng = random.Random(seed)
    requests = rng.sample(workload(), rng.randint(2, 10))
    page_size = rng.choice([1, 2, 3, 4, 8, 16, 64])
    least = least_pool(requests, page_size)
    engine = open_engine(
        num_pages=rng.choice([least, least + 1, 2 * least, 512]),
        page_size=page_size,
        max_batched_tokens=rng.choice([1, 3, 7, 16, 64, 512]),
        max_running=rng.choice([1, 2, 3, 64]),
        prefix_caching=rng.random() < 0.7,
        num_speculative_tokens=rng.choice([0, 0, 1, 4, 11]),
    )
    submitted = []
    for prompt, max_tokens in requests:
        submitted.append(engine.submit(prompt, greedy(max_tokens)))
        for _ in range(rng.choice([0, 0, 1, 5])):
            engine.step()
            engine.cache.check()
    run(engine)
    for request, (prompt, max_tokens) in zip(submitted, requests, strict=True):
        assert output_of(engine, request) == alone(prompt, max_tokens)


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("page_size", [1, 2, 5, 16])
def test_a_starved_pool_preempts_and_every_answer_stays_right(page_size: int, prefix_caching: bool) -> None:
    requests = [(prompt, 30) for prompt, _ in workload()]
    engine = open_engine(least_pool(requests, page_size) * 3 // 2, page_size, prefix_caching=prefix_caching)
    submitted = [engine.submit(prompt, greedy(max_tokens)) for prompt, max_tokens in requests]
    run(engine)
    assert engine.metrics().preemptions > 0
    for request, (prompt, max_tokens) in zip(submitted, requests, strict=True):
        assert output_of(engine, request) == alone(prompt, max_tokens)


def test_the_recall_model_tells_each_request_its_own_secret() -> None:
    stories = make_stories(8, 6, 1, seed=3, kinds=["where"])
    engine = open_engine(43, 4)  # room for three prompts, but not for their answers
    outputs = engine.generate([story.text + story.questions[0].prompt for story in stories], greedy())
    assert engine.metrics().preemptions > 0
    assert [output.outputs[0].text for output in outputs] == [story.questions[0].answer for story in stories]
    assert {output.outputs[0].finish_reason for output in outputs} == {"stop"}


def test_the_last_arrived_is_preempted_first_and_resumes_on_what_it_left_in_the_cache() -> None:
    events = EventLog()
    engine = open_engine(16, 4, events=events)
    first, second = (engine.submit(tokens_of(story.text)[:22], greedy(30)) for story in (STORY, OTHER))
    run(engine)
    assert first.metrics.preemptions == 0
    assert second.metrics.preemptions > 0
    assert engine.metrics().recovered_tokens > 0
    assert {event.number for event in events if event.kind == "preempt"} == {second.id}
    assert [event.number for event in events if event.kind == "finish"] == [first.id, second.id]


def test_a_lone_request_whose_twin_page_blocks_the_pool_makes_way_for_itself_and_ends() -> None:
    engine = open_engine(4, 4)
    prompt = tokens_of(STORY.text)[:8]
    for _ in range(2):  # the second time the prompt's last page is cached, so a copy of it comes beside it
        request = engine.submit(prompt, greedy(9))
        run(engine)
        assert output_of(engine, request) == alone(tuple(prompt), 9)


def test_two_requests_with_the_same_prefix_in_one_step_compute_it_once() -> None:
    prompts = [STORY.text + question.prompt for question in STORY.questions]
    lengths = [len(tokens_of(prompt)) for prompt in prompts]
    shared = len(tokens_of(STORY.text)) // 4 * 4
    engine = open_engine(512, 4, max_batched_tokens=4096)
    engine.generate(prompts, greedy(1))
    assert engine.metrics().computed_tokens <= sum(lengths) - shared * (len(prompts) - 1)
    twins = open_engine(512, 4, max_batched_tokens=4096)
    twins.generate([prompts[0]] * 3, greedy(1))
    # The last page is not full, so nobody can share it; of a full one, all but the last token are found.
    assert twins.metrics().computed_tokens == lengths[0] + 2 * (lengths[0] % 4 or 1)


def test_requests_that_share_nothing_do_not_wait_for_those_that_share() -> None:
    engine = open_engine(512, 4, max_batched_tokens=4096)
    first, twin, stranger = (engine.submit(prompt, greedy(5)) for prompt in (STORY.text, STORY.text, OTHER.text))
    engine.step()
    assert [len(output_of(engine, request)) for request in (first, twin, stranger)] == [1, 0, 1]
    run(engine)


def test_without_prefix_caching_everything_is_computed() -> None:
    engine = open_engine(512, 4, prefix_caching=False)
    outputs = engine.generate([STORY.text] * 3, greedy(3))
    assert engine.metrics().computed_tokens == 3 * (len(tokens_of(STORY.text)) + 2)
    assert [output.num_cached_tokens for output in outputs] == [0, 0, 0]


def test_another_cache_salt_shares_nothing() -> None:
    engine = open_engine(512, 4)
    hits = [engine.generate(STORY.text, greedy(2), cache_salt=salt)[0].num_cached_tokens for salt in ("a", "b", "a")]
    assert hits == [0, 0, len(tokens_of(STORY.text)) - 1]


def test_the_second_turn_of_a_chat_computes_only_what_is_new() -> None:
    engine = open_engine(512, 16)
    conversation = tokens_of(STORY.text)
    for turn, question in enumerate(STORY.questions[:3]):
        asked = tokens_of(question.prompt)
        output = engine.generate([conversation + asked], greedy(6))[0]
        if turn:  # the answer's last token was never run
            assert output.num_cached_tokens == len(conversation) - 1
            assert output.metrics.computed_tokens == 1 + len(asked) + len(output.outputs[0].tokens) - 1
        assert output.outputs[0].tokens == alone(tuple(conversation + asked), 6)
        conversation += asked + output.outputs[0].tokens


def test_long_prompts_are_computed_in_chunks_while_others_decode() -> None:
    engine = open_engine(64, 4, max_batched_tokens=8)
    talker = engine.submit(tokens_of(STORY.text)[:5], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    engine.step()
    reader = engine.submit(tokens_of(OTHER.text), greedy(2))
    lengths = []
    while not output_of(engine, reader):
        engine.step()
        lengths.append(len(output_of(engine, talker)))
    assert lengths == list(range(2, 2 + len(lengths)))
    assert len(lengths) == -(-len(tokens_of(OTHER.text)) // 7)
    assert max(record.tokens for record in engine.history) <= 8
    run(engine)


def test_no_step_runs_more_sequences_or_tokens_than_allowed() -> None:
    engine = open_engine(512, 4, max_batched_tokens=16, max_running=3)
    engine.generate([prompt for prompt, _ in workload()], greedy(6))
    engine.generate([STORY.text] * 2, SamplingParams(n=3, seed=0, max_tokens=6))
    assert max(record.running for record in engine.history) == 3
    assert max(record.tokens for record in engine.history) == 16


@pytest.mark.parametrize("when", [0, 1, 3, 9, 15])
def test_a_cancelled_request_gives_its_pages_back_and_disturbs_nobody(when: int) -> None:
    engine = open_engine(20, 4, max_batched_tokens=16)
    kinds = [greedy(20), SamplingParams(n=3, seed=1), BeamSearchParams(beam_width=3), greedy(20)]
    requests = [engine.submit(STORY.text, params) for params in kinds]
    for _ in range(when):
        engine.step()
    for request in requests[1:3]:
        was_finished = request.finished
        assert engine.cancel(request) != was_finished
        engine.cache.check()
        assert not engine.cancel(request)
    run(engine)
    for request in (requests[0], requests[3]):
        assert output_of(engine, request) == alone(tuple(tokens_of(STORY.text)), 20)


def test_cancelled_requests_say_so_and_keep_what_they_have() -> None:
    engine = open_engine()
    request = engine.submit(STORY.text, greedy(20))
    for _ in range(4):
        engine.step()
    engine.cancel(request)
    output = engine.output(request)
    assert output.finished
    assert output.outputs[0].finish_reason == "abort"
    assert output.outputs[0].tokens == alone(tuple(tokens_of(STORY.text)), 20)[:4]


def test_a_model_that_fails_in_a_step_leaves_everything_owned_and_the_step_can_be_run_again() -> None:
    engine = open_engine(64, 4, num_speculative_tokens=4)
    prompts = [STORY.text + "".join(ask(fact).text for fact in story.facts * 2) for story in (STORY, OTHER)]
    requests = [engine.submit(prompt, greedy(10)) for prompt in prompts]
    for _ in range(3):
        engine.step()
    engine.model = FailingModel(MODEL, at=MODEL.config.num_layers)
    with pytest.raises(InjectedError):
        engine.step()
    engine.cache.check()
    run(engine)
    for request, prompt in zip(requests, prompts, strict=True):
        assert output_of(engine, request) == alone(tuple(tokens_of(prompt)), 10)


def test_streaming_grows_each_text_and_ends_where_generate_ends() -> None:
    prompts = [STORY.text, OTHER.text]
    expected = open_engine().generate(prompts, greedy(8))
    last: dict[int, RequestOutput] = {}
    steps = 0
    for output in open_engine().stream(prompts, greedy(8)):
        steps += 1
        if output.index in last:
            assert output.outputs[0].text.startswith(last[output.index].outputs[0].text)
        last[output.index] = output
    assert steps == 16
    assert [last[index].outputs for index in (0, 1)] == [output.outputs for output in expected]


def test_an_output_stays_as_it_was_while_its_request_goes_on() -> None:
    engine = Engine(MODEL, 64, 4)
    first, *_, last = engine.stream("Ada hid the coin", greedy())
    assert first.metrics.computed_tokens < last.metrics.computed_tokens
    assert (first.metrics.finished, first.finished) == (None, False)
    assert last.metrics.finished is not None


def test_who_stops_listening_to_a_stream_cancels_the_rest() -> None:
    engine = open_engine()
    for output in engine.stream([STORY.text] * 3, greedy(30)):
        if len(output.outputs[0].tokens) == 2:
            break
    assert engine.num_unfinished == 0
    assert engine.cache.pool.num_used == len(engine.cache.prefix)


def test_generate_leaves_requests_that_others_submitted_to_their_owners() -> None:
    engine = open_engine()
    request = engine.submit(OTHER.text, greedy(40))
    engine.generate(STORY.text, greedy(3))
    assert not request.finished
    run(engine)
    assert output_of(engine, request) == alone(tuple(tokens_of(OTHER.text)), 40)


def test_a_full_queue_refuses_and_generate_feeds_it_as_it_empties() -> None:
    engine = open_engine(max_waiting=2, max_running=1)
    requests = [engine.submit(STORY.text, greedy(3)) for _ in range(2)]
    with pytest.raises(QueueFull, match="2 requests wait, and max_waiting is 2: run some steps"):
        engine.submit(STORY.text)
    run(engine)
    assert all(request.finished for request in requests)
    assert len(engine.generate([STORY.text] * 7, greedy(3))) == 7


def test_stop_tokens_end_the_output_and_stop_strings_cut_the_text() -> None:
    engine = open_engine()
    prompt = STORY.text + ask(STORY.facts[0]).prompt
    plain = engine.generate(prompt, greedy(10))[0].outputs[0]
    token = plain.tokens[2]
    by_token = engine.generate(prompt, SamplingParams(temperature=0, stop_token_ids=[token]))[0].outputs[0]
    assert by_token.tokens == plain.tokens[: plain.tokens.index(token) + 1]
    assert (by_token.finish_reason, by_token.stop_reason) == ("stop", token)
    stop = plain.text[5:9]
    by_string = engine.generate(prompt, SamplingParams(temperature=0, stop=["never said", stop]))[0].outputs[0]
    assert by_string.text == plain.text[: plain.text.index(stop)]
    assert (by_string.finish_reason, by_string.stop_reason) == ("stop", stop)


def test_a_stream_never_shows_text_that_a_stop_string_takes_back() -> None:
    engine = open_engine()
    prompt = STORY.text + ask(STORY.facts[0]).prompt
    text = engine.generate(prompt, greedy(10))[0].outputs[0].text
    stop = text[4:14]
    seen = [each.outputs[0].text for each in engine.stream(prompt, SamplingParams(temperature=0, stop=stop))]
    assert seen[-1] == text[:4]
    assert all(text[:4].startswith(each) for each in seen)


def test_eos_ends_a_request_unless_it_is_ignored() -> None:
    story = make_story(2, 1, seed=5, kinds=["who"])
    prompt = story.text + story.questions[0].prompt
    engine = open_engine()
    output = engine.generate(prompt, greedy(20))[0].outputs[0]
    assert output.tokens[-1] == MODEL.config.eos_token_id
    assert (output.text, output.finish_reason, output.stop_reason) == (story.questions[0].answer, "stop", None)
    ignored = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    assert len(engine.generate(prompt, ignored)[0].outputs[0].tokens) == 20


def test_generation_stops_where_the_context_ends() -> None:
    engine = open_engine(128, 16)
    prompt = (tokens_of(STORY.text) * 70)[:2040]
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    output = engine.generate([prompt], params)[0].outputs[0]
    assert len(output.tokens) == 8
    assert output.finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], greedy(), "the prompt is empty"),
        ("", greedy(), "the prompt is empty"),
        ([1, VOCABULARY], greedy(), f"token {VOCABULARY} is outside the model's vocabulary of {VOCABULARY}"),
        ([1, -1], greedy(), "at index 1: token -1 is outside"),
        ([1] * 2048, greedy(), "the prompt has 2048 tokens, which leaves no room to generate in a context of 2048"),
        ([1] * 40, greedy(30), "40 prompt tokens and up to 30 more need 18 pages of 4 slots, and the pool has 16"),
        ([1], SamplingParams(n=9), "the request runs 9 sequences at once, and max_running is 8"),
        ([1], BeamSearchParams(beam_width=8, max_tokens=65), "need 17 pages"),
    ],
)
def test_a_request_that_can_never_be_served_is_refused_when_submitted(
    prompt: str | list[int], params: SamplingParams | BeamSearchParams, message: str
) -> None:
    engine = open_engine(16, 4, max_running=8)
    with pytest.raises(ValueError, match=message):
        engine.submit(prompt, params)
    with pytest.raises(ValueError, match=message):
        engine.generate([[1, 2, 3], prompt], params if params.max_tokens == 12 else [greedy(), params])
    assert engine.num_unfinished == 0
    assert engine.metrics().steps == 0


def test_a_request_that_only_just_fits_is_served() -> None:
    engine = open_engine(16, 4)
    prompt = tokens_of(STORY.text)[:30]
    assert engine.generate([prompt], greedy(35))[0].outputs[0].tokens == alone(tuple(prompt), 35)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pages": 0}, "num_pages is 0; it must be at least 1"),
        ({"page_size": -1}, "page_size is -1"),
        ({"max_batched_tokens": 0}, "max_batched_tokens is 0"),
        ({"max_batched_tokens": -5}, "max_batched_tokens is -5"),
        ({"max_running": 0}, "max_running is 0"),
        ({"max_running": -2}, "max_running is -2"),
        ({"max_waiting": 0}, "max_waiting is 0"),
        ({"num_speculative_tokens": -1}, "num_speculative_tokens is -1; it must be at least 0"),
    ],
)
def test_an_engine_refuses_numbers_it_cannot_work_with(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(MODEL, **options)


def test_prompts_and_params_must_match_one_to_one() -> None:
    with pytest.raises(ValueError, match="3 prompts, but 2 params"):
        open_engine().generate([STORY.text] * 3, [greedy(), greedy()])
    outputs = open_engine().generate([STORY.text] * 2, [greedy(1), greedy(3)])
    assert [len(output.outputs[0].tokens) for output in outputs] == [1, 3]
    assert open_engine().generate([]) == []


def test_an_engine_without_tokenizer_takes_token_ids_only() -> None:
    bare = Decoder(MODEL.config)
    bare.load_state_dict(MODEL.state_dict())
    engine = Engine(bare, 16, 4)
    with pytest.raises(ValueError, match="no tokenizer: give prompts as lists of token ids"):
        engine.generate("Ada")
    with pytest.raises(ValueError, match="without a tokenizer there is no text to find it in"):
        engine.generate([[1, 2]], SamplingParams(stop="x"))
    assert engine.generate([1, 2, 3], greedy(4))[0].outputs[0].tokens == alone((1, 2, 3), 4)


def test_metrics_add_up() -> None:
    engine = open_engine(20, 4)
    outputs = engine.generate([STORY.text, OTHER.text, STORY.text], greedy(20))
    metrics = engine.metrics()
    lengths = [len(output.prompt_tokens) for output in outputs]
    generated = [len(output.outputs[0].tokens) for output in outputs]
    assert metrics.requests_finished == 3
    assert metrics.requests_running == metrics.requests_waiting == 0
    assert metrics.prompt_tokens == sum(lengths)
    assert metrics.cached_tokens == sum(output.num_cached_tokens for output in outputs) > 0
    assert metrics.generated_tokens == sum(generated)
    assert metrics.computed_tokens == sum(output.metrics.computed_tokens for output in outputs)
    assert metrics.computed_tokens == sum(record.tokens for record in engine.history)
    assert metrics.preemptions == sum(output.metrics.preemptions for output in outputs) > 0
    assert metrics.peak_pages == max(record.used_pages for record in engine.history) <= 20
    assert metrics.used_pages + metrics.free_pages == metrics.num_pages == 20
    assert 0 < metrics.waste < 0.2
    assert 0 < metrics.overhead < 1
    for output in outputs:
        times = output.metrics
        parts = times.queue_time + times.prefill_time + times.decode_time
        assert parts == pytest.approx(times.total_time)
        assert 0 <= times.queue_time <= times.time_to_first_token <= times.total_time


def test_copies_are_counted_and_smaller_than_a_page() -> None:
    engine = open_engine(64, 16)
    prompt = STORY.text + ask(STORY.facts[0]).prompt
    engine.generate(prompt, SamplingParams(n=4, seed=0, max_tokens=5, ignore_eos=True))
    storage = engine.cache.storage
    assert engine.metrics().copies == 3 == storage.num_copies
    shared_slots = len(tokens_of(prompt)) % 16
    assert storage.bytes_copied == 3 * shared_slots * storage.bytes_per_token


def test_the_events_tell_which_sequence_served_which_request_and_rebuild_the_memory() -> None:
    events = EventLog()
    engine = open_engine(20, 4, events=events)
    requests = [engine.submit(story.text, greedy(20)) for story in (STORY, OTHER)]
    run(engine)
    assert [event.number for event in events if event.kind == "queue"] == [request.id for request in requests]
    admitted = [event for event in events if event.kind == "admit"]
    assert len(admitted) == 2 + engine.metrics().preemptions
    assert len({event.sequence for event in admitted}) == len(admitted)
    assert sum(event.number for event in events if event.kind == "step") == engine.metrics().computed_tokens
    assert Replay(4).apply_all(events).num_used == engine.cache.pool.num_used


def test_the_page_tables_given_to_attention_are_those_of_the_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvpaged import paged_step as module

    engine = open_engine(24, 4, max_running=6, num_speculative_tokens=3)
    attention_on, seen = module.attention_on, 0

    def checked(storage: object, tables: torch.Tensor, seq_lens: torch.Tensor, query_lens: torch.Tensor) -> object:
        nonlocal seen
        by_pages = [branch.sequence.table.page_ids for branch in engine._scheduler.running]
        for row, length in zip(tables.tolist(), seq_lens.tolist(), strict=True):
            used = row[: pages_for(length, 4)]
            assert any(page_ids[: len(used)] == used for page_ids in by_pages)
            seen += 1
        return attention_on(storage)(storage, tables, seq_lens, query_lens)

    monkeypatch.setattr(module, "attention_on", lambda storage: checked)
    for prompt, max_tokens in workload():
        engine.submit(prompt, greedy(max_tokens))
    engine.submit(STORY.text, SamplingParams(n=3, seed=0))
    engine.submit(STORY.text, BeamSearchParams(beam_width=4))
    run(engine)
    assert seen > 100


def test_a_request_and_its_branch_say_what_they_have() -> None:
    engine = Engine(load_model("recall"), 8, 4)
    request = engine.submit([5], SamplingParams(temperature=0, max_tokens=1))
    [branch] = request.branches
    assert repr(request) == f"Request(id={request.id}, 1 prompt token, 1 branch)"
    assert repr(branch) == f"Branch(0 of request {request.id}, 0 tokens, None)"
    engine.step()
    assert repr(request) == f"Request(id={request.id}, 1 prompt token, finished)"
    assert repr(branch) == f"Branch(0 of request {request.id}, 1 token, None)"
    twofold = engine.submit([5, 6], SamplingParams(n=2, max_tokens=3, ignore_eos=True))
    engine.step()
    assert repr(twofold) == f"Request(id={twofold.id}, 2 prompt tokens, 2 branches)"


def test_what_is_no_request_has_no_output_and_disturbs_nobody() -> None:
    engine = open_engine()
    request = engine.submit(STORY.text, greedy(4))
    engine.step()
    for ask_for in (engine.output, engine.cancel):
        with pytest.raises(TypeError, match="None is no request: give what `submit` returned"):
            ask_for(None)  # type: ignore[arg-type]
    assert request.metrics.preemptions == 0
    while engine.num_unfinished:
        engine.step()
    assert engine.output(request).outputs[0].finish_reason is not None


def test_a_request_of_another_engine_whose_text_fails_disturbs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(request: Request) -> RequestOutput:
        raise InjectedError

    mine, other = open_engine(), open_engine()
    running, stranger = mine.submit(STORY.text, greedy(4)), other.submit(STORY.text, greedy(4))
    mine.step()
    other.step()
    with monkeypatch.context() as spoilt:
        spoilt.setattr("kvpaged.engine.engine.output_of", failing)
        with pytest.raises(InjectedError):
            mine.output(stranger)
    for engine, request in ((mine, running), (other, stranger)):
        assert request.metrics.preemptions == 0
        while engine.num_unfinished:
            engine.step()
        assert len(engine.output(request).outputs[0].tokens) == 4
        engine.check()
