"""Models with layers of several kinds: the same bits on pages as without, whatever is evicted or preempted."""

import random
from functools import cache as once

import pytest
import torch
from torch import Tensor

from kvpaged import OutOfPages
from kvpaged.adapters.huggingface import HuggingFaceModel
from kvpaged.adapters.huggingface.grouped import kinds_of
from kvpaged.attention import contiguous_attention
from kvpaged.hybrid import FullAttention, GroupedKVCache, Kind, Recurrent, SlidingWindow, group_layers, page_size_for
from kvpaged.hybrid.compute import compute, gated_linear_attention
from kvpaged.model import load_model, load_tokenizer
from kvpaged.model.config import ModelConfig
from kvpaged.model.decoder import Decoder
from kvpaged.model.language_model import LanguageModel
from kvpaged.page import PageStorage
from kvpaged.recall.text import ask, make_stories
from support.small_models import VOCABULARY, build, generate

KV_HEADS, HEAD_DIM = 2, 16
TOKEN_BYTES, STATE_BYTES = 2 * KV_HEADS * HEAD_DIM * 4, KV_HEADS * HEAD_DIM * HEAD_DIM * 4
WINDOW, FULL, LINEAR = SlidingWindow(TOKEN_BYTES, 11), FullAttention(TOKEN_BYTES), Recurrent(STATE_BYTES)
MODELS = {
    "window": [WINDOW, FULL, WINDOW, FULL],
    "recurrent": [LINEAR, LINEAR, LINEAR, FULL],
    "all three": [LINEAR, WINDOW, FULL, LINEAR],
    "windows alone": [WINDOW, WINDOW, SlidingWindow(TOKEN_BYTES, 30), SlidingWindow(TOKEN_BYTES, 30)],
}


@once
def random_model() -> Decoder:
    torch.manual_seed(0)
    shape = ModelConfig(89, 48, 64, 4, 4, KV_HEADS, HEAD_DIM, max_position_embeddings=512)
    model = Decoder(shape).eval()
    for weights in model.parameters():
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=0.3)
    return model


class Unpaged:
    """The same layers without pages: every K and V in a list, a state in a variable."""

    def __init__(self, kinds: list[Kind]) -> None:
        self.kinds = kinds
        self.past: list[tuple[Tensor, Tensor] | Tensor | None] = [None] * len(kinds)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        kind, past = self.kinds[layer], self.past[layer]
        if isinstance(kind, Recurrent):
            state = torch.zeros(keys.shape[1], keys.shape[2], keys.shape[2]) if past is None else past
            assert isinstance(state, Tensor)
            self.past[layer], output = gated_linear_attention(state, query, keys, values)
            return output
        if past is not None:
            keys, values = torch.cat((past[0], keys)), torch.cat((past[1], values))
        if isinstance(kind, SlidingWindow):
            keys, values = keys[-kind.window :], values[-kind.window :]
        self.past[layer] = keys, values
        return contiguous_attention(query, keys, values)


@torch.no_grad()
def unpaged_logits(model: LanguageModel, kinds: list[Kind], tokens: list[int]) -> list[Tensor]:
    """Of every token."""
    attend = Unpaged(kinds).attend
    return [model(torch.tensor([token]), torch.tensor([position]), attend)[0] for position, token in enumerate(tokens)]


def memory(
    model: LanguageModel, kinds: list[Kind], num_pages: int, page_size: int
) -> tuple[GroupedKVCache, PageStorage]:
    """Pages full of NaN: whoever reads one that was never written, or the null page, gets no bit right."""
    groups, shape = group_layers(kinds), model.config
    storage = PageStorage(
        num_pages, page_size, max(len(layers) for _, layers in groups), shape.num_kv_heads, shape.head_dim
    )
    for layer in range(storage.num_layers):
        storage.keys(layer).fill_(float("nan"))
        storage.values(layer).fill_(float("nan"))
    return GroupedKVCache(groups, num_pages, page_size), storage


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_on_pages_as_without(name: str) -> None:
    kinds, model = MODELS[name], random_model()
    tokens = torch.randint(89, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = unpaged_logits(model, kinds, tokens)
    for size in (8, 16, 24):
        cache, storage = memory(model, kinds, 60, size)
        sequence = cache.sequence(tokens[:1])
        for position, token in enumerate(tokens):
            if position:
                sequence.append(token)
            assert same_bits(compute(model, cache, storage, sequence), expected[position])
            cache.check()


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_whatever_is_cached_evicted_or_preempted(name: str) -> None:
    """Requests with beginnings in common, in a pool so small that they evict and preempt each other all the time."""
    kinds, model, rng = MODELS[name], random_model(), random.Random(2)
    room_for_one = 1 + sum(len(kind.needed(60, 8)) + 1 for kind, _ in group_layers(kinds))
    cache, storage = memory(model, kinds, num_pages=room_for_one * 3 // 2, page_size=8)
    beginnings = [[rng.randrange(89) for _ in range(40)] for _ in range(3)]
    texts = [
        rng.choice(beginnings)[: rng.randint(8, 40)] + [rng.randrange(89) for _ in range(rng.randint(1, 20))]
        for _ in range(14)
    ]
    waiting, running, done = list(enumerate(texts)), [], 0
    expected = {number: unpaged_logits(model, kinds, text) for number, text in enumerate(texts)}
    hits = preempted = evicted = 0
    while waiting or running:
        if waiting and len(running) < 3:
            number, text = waiting.pop(0)
            sequence = cache.sequence(text[: rng.randint(1, len(text))])
            hits += sequence.num_cached_tokens > 0
            running.append((number, sequence))
        number, sequence = running[rng.randrange(len(running))]
        before = len(cache.prefix)
        try:
            logits = compute(model, cache, storage, sequence)
        except OutOfPages:  # whoever came last starts again later, from what is cached of it by then
            cache.check()
            number, sequence = running.pop()
            sequence.release()
            waiting.append((number, texts[number]))
            preempted += 1
            continue
        evicted += len(cache.prefix) < before
        cache.check()
        length = len(sequence.tokens)
        assert same_bits(logits, expected[number][length - 1])
        if length == len(texts[number]):
            running.remove((number, sequence))
            sequence.release()
            done += 1
        else:
            sequence.append(texts[number][length])
    assert done == len(texts)
    assert min(hits, preempted, evicted) > 0, (hits, preempted, evicted)


def test_a_hit_gives_the_same_bits_as_computing() -> None:
    kinds, model = MODELS["all three"], random_model()
    tokens = torch.randint(89, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    cache, storage = memory(model, kinds, 60, 8)
    first = cache.sequence(tokens)
    logits = compute(model, cache, storage, first)
    again = cache.sequence(tokens)
    assert again.num_cached_tokens == 32
    assert same_bits(compute(model, cache, storage, again), logits)


def test_all_computed_is_an_error_that_says_what_to_do() -> None:
    cache, storage = memory(random_model(), MODELS["window"], 20, 8)
    sequence = cache.sequence([1, 2])
    compute(random_model(), cache, storage, sequence)
    with pytest.raises(ValueError, match="all 2 tokens are computed: append the next token first"):
        compute(random_model(), cache, storage, sequence)


def test_a_sequence_of_another_cache_is_refused_and_nothing_is_written() -> None:
    (cache, storage), (other, _) = (memory(random_model(), MODELS["window"], 20, 8) for _ in range(2))
    with pytest.raises(ValueError, match="no live sequence of this cache: give the cache that began it"):
        compute(random_model(), cache, storage, other.sequence([1, 2]))
    assert storage.keys(0).isnan().all()


def test_a_state_fills_a_page_of_the_size_that_was_chosen_for_it() -> None:
    size = page_size_for([FULL, LINEAR])
    storage = memory(random_model(), [FULL, LINEAR], 4, size)[1]
    assert (size, storage.bytes_per_page) == (16, 2 * STATE_BYTES)  # in whole multiples of 16
    assert page_size_for([FULL, LINEAR], multiple_of=8) == 8


# --- the recall model, of which the first layer needs a window only -----------------------------------------------


def recall_answers(window: int | None, num_stories: int = 2) -> tuple[int, int]:
    """Right answers, and questions, with a window in the first layer."""
    model, tokenizer = load_model("recall"), load_tokenizer("recall")
    token_bytes = 2 * 4 * 32 * 4
    first = FullAttention(token_bytes) if window is None else SlidingWindow(token_bytes, window)
    cache, storage = memory(model, [first, FullAttention(token_bytes)], 60, 16)
    right = asked = 0
    for story in make_stories(num_stories, num_facts=12, seed=3):
        for fact in story.facts[::3]:
            question = ask(fact, "where")
            sequence = cache.sequence(tokenizer.encode(story.text + question.prompt).ids)
            words: list[str] = []
            while len(words) < 6 and "." not in words:
                token = int(compute(model, cache, storage, sequence).argmax())
                sequence.append(token)
                words.append(tokenizer.decode([token]).strip())
            sequence.release()
            cache.check()
            right, asked = right + (fact.place in words), asked + 1
    return right, asked


def test_the_recall_model_answers_as_well_with_a_window_of_eight_in_its_first_layer() -> None:
    assert recall_answers(None) == (8, 8)
    assert recall_answers(8) == (8, 8)
    right, asked = recall_answers(3)
    assert right < asked // 2


# --- transformers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("mistral", {"sliding_window": 16}),
        ("gemma3_text", {"num_hidden_layers": 3, "sliding_window": 16, "num_key_value_heads": 1, "head_dim": 16}),
        ("qwen3", {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
    ],
)
def test_sliding_window_models_of_transformers_say_the_same_far_beyond_their_window(
    architecture: str, settings: dict[str, int]
) -> None:
    prompt = torch.randint(2, VOCABULARY, (30,), generator=torch.Generator().manual_seed(4)).tolist()
    inputs = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, 30, dtype=torch.int64)}
    [expected] = generate(build(architecture, **settings), inputs, max_new_tokens=40)

    model = HuggingFaceModel(build(architecture, **settings))
    kinds = kinds_of(model)
    assert any(isinstance(kind, SlidingWindow) and kind.window == 16 for kind in kinds)
    cache, storage = memory(model, kinds, 120, 4)
    sequence = cache.sequence(prompt)
    found = []
    while len(found) < 40:
        found.append(int(compute(model, cache, storage, sequence).argmax()))
        sequence.append(found[-1])
        cache.check()
    assert found == expected
    for (kind, _), table in zip(cache.groups, sequence.tables, strict=True):
        if isinstance(kind, SlidingWindow):
            assert sum(page != 0 for page in table) == 5  # of 18, for 69 tokens
