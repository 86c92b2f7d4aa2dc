"""A paged cache in transformers' own `generate`: the tokens of the default cache, from less memory."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch

from kvpaged import OutOfPages, PagedKVCache
from kvpaged.adapters.huggingface import HuggingFaceModel, PagedCache
from kvpaged.model.compute import open_storage
from kvpaged.page import PageStorage
from kvpaged.poison import PoisonedStorage, PoisonError
from support.interrupts import run_transformers
from support.small_models import ARCHITECTURES, build, generate, memory_for, padded, prompts, served

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
RANDOM = padded(prompts(100, seed=1))
STORY = prompts(1, seed=2, shortest=20, longest=20)[0]


@pytest.fixture
def llama() -> HuggingFaceModel:
    return served("llama")


@contextmanager
def attention(model: HuggingFaceModel, name: str) -> Iterator[None]:
    """Another attention function for a while."""
    before = model.model.config._attn_implementation
    model.model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.model.set_attn_implementation(before)


@architectures
def test_100_random_prompts_get_the_tokens_of_the_default_cache(architecture: str) -> None:
    model = served(architecture)
    expected = generate(model.model, RANDOM)
    memory = memory_for(model)
    with PagedCache(model, memory, **RANDOM) as cache:
        assert generate(model.model, RANDOM, past_key_values=cache) == expected
        assert cache.gathered_pages == 0
        memory.check()
    with PagedCache(model, memory, **RANDOM) as cache:
        assert cache.num_cached_tokens[0] > 0
        assert generate(model.model, RANDOM, past_key_values=cache) == expected
    assert not memory.sequences
    memory.check()


@architectures
def test_sampled_tokens_are_those_of_the_default_cache_under_the_same_seed(architecture: str) -> None:
    model, inputs = served(architecture), padded(prompts(34, seed=3))
    sampling = {"do_sample": True, "num_return_sequences": 3, "temperature": 0.9, "top_k": 20}
    torch.manual_seed(7)
    expected = generate(model.model, inputs, **sampling)
    memory = memory_for(model)
    torch.manual_seed(7)
    with PagedCache(model, memory, **inputs) as cache:
        assert generate(model.model, inputs, past_key_values=cache, **sampling) == expected
        assert cache.num_forks > 34
        memory.check()


@architectures
def test_beams_are_those_of_the_default_cache_and_no_cache_is_copied(architecture: str) -> None:
    model, inputs = served(architecture), padded(prompts(12, seed=4))
    expected = generate(model.model, inputs, num_beams=4, num_return_sequences=2)
    memory = memory_for(model)
    with PagedCache(model, memory, **inputs) as cache:
        assert generate(model.model, inputs, num_beams=4, num_return_sequences=2, past_key_values=cache) == expected
        memory.check()
        assert cache.gathered_pages == 0
        # A beam that parts from another copies the slots in use of one page, at most.
        assert 0 < memory.storage.num_copies <= cache.num_forks
        assert memory.storage.bytes_copied < memory.storage.num_copies * memory.storage.bytes_per_page
        assert cache.num_pages < sum(len(sequence.table.page_ids) for sequence in cache.sequences) / 2


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_any_other_attention_reads_back_through_the_page_table(llama: HuggingFaceModel, name: str) -> None:
    inputs = padded(prompts(20, seed=5))
    with attention(llama, name):
        expected = generate(llama.model, inputs)
        memory = memory_for(llama)
        for _ in range(2):
            with PagedCache(llama, memory, **inputs) as cache:
                assert generate(llama.model, inputs, past_key_values=cache) == expected
                assert cache.gathered_pages > 0
        expected = generate(llama.model, inputs, num_beams=3)
        with PagedCache(llama, memory, **inputs) as cache:
            assert generate(llama.model, inputs, num_beams=3, past_key_values=cache) == expected
        memory.check()


@pytest.mark.parametrize("name", ["sdpa", "eager", "kvpaged"])
def test_any_attention_reads_under_the_eyes_of_a_poisoned_storage(llama: HuggingFaceModel, name: str) -> None:
    storage = open_storage(llama, 100, 4, kind=PoisonedStorage)
    memory, inputs = PagedKVCache(100, 4, storage=storage), padded([STORY, STORY[:9], STORY])
    storage.watch(memory)
    with attention(llama, name):
        expected = generate(llama.model, inputs, num_beams=2)
        with PagedCache(llama, memory, **inputs) as cache:
            assert generate(llama.model, inputs, num_beams=2, past_key_values=cache) == expected
            storage._computed[:, cache.sequences[1].table.page_ids[1], 2] = False
            mask = torch.cat((inputs["attention_mask"].repeat_interleave(2, 0), torch.ones(6, 16)), dim=1)
            with pytest.raises(PoisonError, match=r"token 6 of .* is slot 2 of page .* nobody has computed") as caught:
                llama.model(torch.full((6, 1), 5), attention_mask=mask, past_key_values=cache)
            assert "check_read" in [entry.name for entry in caught.traceback]


def test_decode_reads_pages_in_place(llama: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a page was gathered")

    monkeypatch.setattr(PageStorage, "read", refuse)
    inputs, memory = padded([STORY]), memory_for(llama)
    with PagedCache(llama, memory, **inputs) as cache:
        generate(llama.model, inputs, past_key_values=cache)
        token = torch.tensor([[5]])
        with torch.inference_mode():
            before = llama.model(token, past_key_values=cache).logits
            cache.crop(-1)
            torch.testing.assert_close(llama.model(token, past_key_values=cache).logits, before)
            cache.crop(-1)
            memory.storage[cache.sequences[0].table.page_ids[2]].values.neg_()
            assert (llama.model(token, past_key_values=cache).logits - before).abs().max() > 0.01


def test_every_token_is_written_once_and_padding_never(
    llama: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, memory, written = [*prompts(5, seed=7), STORY, STORY], memory_for(llama), []
    write = memory.storage.write

    def noting(layer: int, slots: list[int], *tensors: torch.Tensor) -> None:
        written.extend((layer, slot) for slot in slots)
        write(layer, slots, *tensors)

    monkeypatch.setattr(memory.storage, "write", noting)
    inputs = padded(texts)
    with PagedCache(llama, memory, **inputs) as cache:
        generate(llama.model, inputs, past_key_values=cache)
        num_tokens = sum(len(sequence) for sequence in set(cache.sequences))
        assert num_tokens == sum(len(text) + 15 for text in texts[:-1])  # equal prompts, greedily continued, are one
        assert len(written) == len(set(written)) == num_tokens * memory.storage.num_layers


def test_a_ragged_batch_holds_no_page_for_padding(llama: HuggingFaceModel) -> None:
    inputs, memory = padded([STORY, STORY[:1], STORY[5:7]]), memory_for(llama, prefix_caching=False)
    with PagedCache(llama, memory, **inputs) as cache:
        assert memory.pool.num_used == cache.num_pages == 5 + 1 + 1
        assert cache.num_bytes == 7 * memory.storage.bytes_per_page


def test_a_second_call_computes_only_what_the_first_did_not(llama: HuggingFaceModel) -> None:
    memory, inputs = memory_for(llama), padded([STORY])
    with PagedCache(llama, memory, **inputs) as cache:
        answer = generate(llama.model, inputs, past_key_values=cache)[0]
        assert (cache.num_cached_tokens, cache.computed_tokens) == ([0], 20 + 15)
    longer = padded([STORY + answer + STORY[:6]])
    expected = generate(llama.model, longer)
    with PagedCache(llama, memory, **longer) as cache:
        assert generate(llama.model, longer, past_key_values=cache) == expected
        # The last token of the answer was never fed, so it is computed now, with the 6 new ones and 15 generated.
        assert (cache.num_cached_tokens, cache.computed_tokens) == ([35], 1 + 6 + 15)


def test_a_batch_skips_the_columns_that_all_rows_know(llama: HuggingFaceModel) -> None:
    memory, known = memory_for(llama), padded([STORY])
    with PagedCache(llama, memory, **known) as cache:
        generate(llama.model, known, past_key_values=cache, max_new_tokens=2)
    inputs = padded([STORY, [*STORY[:18], 3, 3], STORY[:15]])
    expected = generate(llama.model, inputs)
    with PagedCache(llama, memory, **inputs) as cache:
        assert cache.num_cached_tokens == [18, 18, 13]
        assert generate(llama.model, inputs, past_key_values=cache) == expected
    memory.check()


def test_what_all_prompts_begin_with_is_computed_once(llama: HuggingFaceModel) -> None:
    memory = memory_for(llama)
    inputs = padded([[*STORY, first, second] for first, second in prompts(8, seed=8, shortest=2, longest=2)])
    expected = generate(llama.model, inputs)
    with PagedCache(llama, memory, **inputs) as cache:
        assert (cache.num_cached_tokens, cache.computed_tokens) == ([20] * 8, 20)
        assert cache.num_pages == 5 + 8
        assert generate(llama.model, inputs, past_key_values=cache) == expected
        assert cache.computed_tokens == 20 + 8 * (2 + 15)


def test_another_salt_shares_nothing(llama: HuggingFaceModel) -> None:
    memory, inputs = memory_for(llama), padded([STORY])
    for salt, cached in (("a", 0), ("b", 0), ("a", 19)):
        with PagedCache(llama, memory, **inputs, cache_salt=salt) as cache:
            assert cache.num_cached_tokens == [cached]
            generate(llama.model, inputs, past_key_values=cache)


@pytest.mark.parametrize("settings", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": None}])
def test_assisted_generation_takes_back_what_was_guessed_wrong(llama: HuggingFaceModel, settings: dict) -> None:
    if "assistant_model" in settings:
        settings = {"assistant_model": build("llama", num_hidden_layers=1)}
    inputs, memory = padded([STORY]), memory_for(llama)
    expected = generate(llama.model, inputs, max_new_tokens=30)
    for _ in range(2):
        with PagedCache(llama, memory, **inputs) as cache:
            assert generate(llama.model, inputs, past_key_values=cache, max_new_tokens=30, **settings) == expected
            assert cache.computed_tokens > 49  # guesses that were wrong were computed too
            assert len(cache.sequences[0]) == cache.get_seq_length() <= 49
            memory.check()


def test_a_long_prompt_may_come_in_chunks(llama: HuggingFaceModel) -> None:
    inputs, memory = padded([STORY, STORY[:2], STORY]), memory_for(llama)
    expected = generate(llama.model, inputs)
    for name in ("kvpaged", "sdpa"):
        with attention(llama, name), PagedCache(llama, memory, **inputs, cache_salt=name) as cache:
            assert generate(llama.model, inputs, past_key_values=cache, prefill_chunk_size=6) == expected


def test_a_cache_goes_on_with_the_texts_it_has(llama: HuggingFaceModel) -> None:
    inputs, memory = padded(prompts(4, seed=9)), memory_for(llama)
    with PagedCache(llama, memory, **inputs) as cache:
        first = torch.tensor(generate(llama.model, inputs, past_key_values=cache))
        computed = cache.computed_tokens
        longer = {
            "input_ids": torch.cat((inputs["input_ids"], first, torch.full((4, 3), 5)), dim=1),
            "attention_mask": torch.cat((inputs["attention_mask"], torch.ones(4, 19, dtype=torch.int64)), dim=1),
        }
        assert generate(llama.model, longer, past_key_values=cache) == generate(llama.model, longer)
        assert cache.computed_tokens == computed + 4 * (1 + 3 + 15)


def test_rows_can_be_chosen_and_repeated(llama: HuggingFaceModel) -> None:
    inputs, memory = padded(prompts(3, seed=10)), memory_for(llama, prefix_caching=False)
    with PagedCache(llama, memory, **inputs) as cache:
        first, _, last = cache.sequences
        cache.batch_select_indices(torch.tensor([2, 0]))
        assert cache.sequences == [last, first]
        cache.batch_repeat_interleave(2)
        assert cache.sequences == [last, last, first, first]
        cache.reorder_cache(torch.tensor([1, 0, 1, 0]))
        assert cache.sequences == [last] * 4
        assert memory.sequences == {last}
        memory.check()
        cache.reset()
        assert memory.pool.num_used == 0


def test_a_pass_that_fails_leaves_everything_as_it_was(
    llama: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, memory = padded([STORY, STORY[:9]]), memory_for(llama)
    expected = generate(llama.model, inputs, num_beams=2)
    with PagedCache(llama, memory, **inputs) as cache:
        mlp, calls = llama.model.model.layers[1].mlp, []
        forward = mlp.forward

        def failing(*arguments: torch.Tensor) -> torch.Tensor:
            calls.append(arguments)
            if len(calls) == 5:
                raise RuntimeError("out of luck")
            return forward(*arguments)

        monkeypatch.setattr(mlp, "forward", failing)
        with pytest.raises(RuntimeError, match="out of luck"):
            generate(llama.model, inputs, num_beams=2, past_key_values=cache)
        assert cache.get_seq_length() == 20 + 3
        assert {len(sequence) for sequence in cache.sequences} == {23, 12}
        assert memory.sequences == set(cache.sequences)
        memory.check()
    with PagedCache(llama, memory, **inputs) as cache:
        assert generate(llama.model, inputs, num_beams=2, past_key_values=cache) == expected


def test_a_batch_that_does_not_fit_the_pool_owns_nothing(llama: HuggingFaceModel) -> None:
    memory = memory_for(llama, num_pages=8)
    with pytest.raises(OutOfPages):
        PagedCache(llama, memory, **padded([STORY[:8], STORY[8:16], STORY]))
    assert not memory.sequences
    memory.check()
    inputs = padded([STORY, STORY[::-1][:8]])
    with PagedCache(llama, memory, **inputs) as cache:
        with pytest.raises(OutOfPages):
            generate(llama.model, inputs, past_key_values=cache)
        assert [len(sequence) for sequence in cache.sequences] == [20, 8]
        memory.check()


def test_a_cache_leaves_no_trace_on_the_model(llama: HuggingFaceModel) -> None:
    with PagedCache(llama, memory_for(llama), **padded([STORY])):
        assert llama.model._forward_pre_hooks
    assert not llama.model._forward_pre_hooks
    assert not llama.model._forward_hooks


def test_a_cache_that_is_dropped_leaves_no_trace_either(llama: HuggingFaceModel) -> None:
    memory, inputs = memory_for(llama), padded([STORY])
    generate(llama.model, inputs, past_key_values=PagedCache(llama, memory, **inputs))
    assert not llama.model._forward_pre_hooks
    assert not llama.model._forward_hooks
    [dropped] = memory.sequences  # what it owned, it owns until somebody gives it back: you, or the next cache
    memory.check()
    other = memory.sequence(STORY)
    with PagedCache(llama, memory, **inputs) as cache:
        assert cache.num_cached_tokens == [19]
        assert memory.sequences == {other, *cache.sequences}
    with pytest.raises(ValueError, match="is released"):
        dropped.release()
    other.release()
    memory.check()


def test_a_sliding_window_is_served_as_far_as_it_hides_nothing() -> None:
    mistral = HuggingFaceModel(build("mistral", sliding_window=32))
    assert mistral.config.max_position_embeddings == 32
    inputs, memory = padded([STORY, STORY[:4]]), memory_for(mistral)
    expected = generate(mistral.model, inputs, max_new_tokens=13)
    with PagedCache(mistral, memory, **inputs) as cache:
        assert generate(mistral.model, inputs, max_new_tokens=13, past_key_values=cache) == expected
    message = "a row would have 33 tokens, and attention of this model is the same on pages up to 32 only"
    with PagedCache(mistral, memory, **inputs) as cache:
        with pytest.raises(ValueError, match=message):
            generate(mistral.model, inputs, max_new_tokens=14, past_key_values=cache)
        memory.check()


def test_what_a_cache_cannot_know_is_refused(llama: HuggingFaceModel) -> None:
    memory, inputs = memory_for(llama), padded([STORY, STORY[:4]])
    right = {name: tensor.flip(1) for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="row 1 has padding where a token should be: pad on the left"):
        PagedCache(llama, memory, **right)
    with pytest.raises(ValueError, match="input_ids have shape \\(1, 0\\)"):
        PagedCache(llama, memory, torch.empty(1, 0, dtype=torch.int64))
    with PagedCache(llama, memory, **inputs) as cache:
        model = llama.model
        for arguments, message in (
            ({"inputs_embeds": torch.zeros(2, 20, 64)}, "knows texts by their tokens"),
            ({"input_ids": inputs["input_ids"]}, "some rows are padded"),
            ({"input_ids": inputs["input_ids"][:, :3], "attention_mask": torch.ones(2, 3)}, "is not that of 2 rows"),
            ({**inputs, "position_ids": torch.arange(20)[None]}, "must count each row's tokens from 0"),
            (padded([STORY, STORY[1:5]]), "not those that this cache was begun with"),
            (padded([STORY]), "the batch has 1 rows, this cache 2"),
        ):
            with pytest.raises(ValueError, match=message):
                model(**arguments, past_key_values=cache)
        with pytest.raises(ValueError, match="cannot crop by -5: the shortest row has 4 tokens"):
            cache.crop(-5)
        assert not cache.computed_tokens
    with pytest.raises(RuntimeError, match="this cache is released, or was begun for another model"):
        model(**inputs, past_key_values=cache)


@pytest.mark.parametrize(("error", "first"), [(KeyboardInterrupt, 60), (MemoryError, 113)])
def test_an_interrupt_or_an_error_at_any_line_of_generate_leaves_a_clean_memory(
    error: type[BaseException], first: int
) -> None:
    num_lines = run_transformers()
    assert num_lines > 1000
    for number in range(first, num_lines, 211):
        run_transformers(number, error)


@pytest.mark.parametrize("entering", ["__enter__", "__exit__"])
def test_what_an_interrupt_leaves_as_the_with_begins_or_ends_the_next_cache_releases(
    llama: HuggingFaceModel, monkeypatch: pytest.MonkeyPatch, entering: str
) -> None:
    memory, inputs = memory_for(llama), padded([STORY, STORY[:4]])
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(PagedCache, entering, interrupt)
        with PagedCache(llama, memory, **inputs):
            pass
    assert len(memory.sequences) == 2
    memory.check()
    with PagedCache(llama, memory, **inputs) as cache:
        assert memory.sequences == set(cache.sequences)
    assert not memory.sequences
    memory.check()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
