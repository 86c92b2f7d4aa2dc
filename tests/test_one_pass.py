"""All layers of a pass in one call: the bits of layer by layer, and only where nobody watches the pages."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from kvpaged import PagedKVCache, attention
from kvpaged.engine import Engine, SamplingParams
from kvpaged.kernel import one_pass
from kvpaged.model import Decoder, ModelConfig, load_model
from kvpaged.model.compute import compute, open_storage
from kvpaged.model.decoder import Attend
from kvpaged.model.fast import fast
from kvpaged.page import PageStorage
from kvpaged.paged_step import PagedStep, Span
from kvpaged.poison import PoisonedStorage
from kvpaged.quantised import TokenStorage

ODD = ModelConfig(
    vocab_size=211, hidden_size=74, intermediate_size=101, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=16,
    max_position_embeddings=2048,
)  # fmt: skip


def decoder(config: ModelConfig = ODD) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config).requires_grad_(False)


class World:
    """A model, its pages, and some sequences on them."""

    def __init__(self, model: Decoder, storage: PageStorage, lengths: list[int]) -> None:
        self.model, self.storage, self.random = model, storage, random.Random(len(lengths))
        self.cache = PagedKVCache(storage.num_pages, storage.page_size, prefix_caching=False, storage=storage)
        if isinstance(storage, PoisonedStorage):
            storage.watch(self.cache)
        self.sequences = [self.cache.sequence([self.token() for _ in range(length)]) for length in lengths]

    def token(self) -> int:
        return self.random.randrange(self.model.config.vocab_size)

    def run(self, way: Callable[[PagedStep], Attend] = lambda step: step, every: int = 1) -> Tensor:
        """Logits of every so many of the tokens that are not computed yet."""
        spans = [Span(sequence, sequence.num_computed, len(sequence)) for sequence in self.sequences]
        tokens = torch.tensor([token for sequence, start, stop in spans for token in sequence.tokens[start:stop]])
        positions = torch.tensor([position for _, start, stop in spans for position in range(start, stop)])
        at = torch.arange(0, len(tokens), every)
        return fast(self.model)(tokens, positions, way(PagedStep(self.storage, spans)), at)

    def go_on(self) -> None:
        for sequence in self.sequences:
            sequence.mark_computed()
            sequence.append(self.token())


def by_layers(step: PagedStep) -> Attend:
    return step.attend


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Of each pass that came so far: whether it was run in one call."""
    honest, ran = one_pass.run_layers, []

    def noting(*arguments: object) -> bool:
        ran.append(honest(*arguments))  # type: ignore[arg-type]
        return ran[-1]

    monkeypatch.setattr(one_pass, "run_layers", noting)
    before = torch.get_num_threads()
    yield ran
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(24))
def test_it_gives_the_bits_of_layer_by_layer(seed: int, whole: list[bool]) -> None:
    choose = random.Random(seed)
    model, page_size = choose.choice((decoder(), load_model("recall"))), choose.choice((1, 3, 16))
    longest = 1100 if seed % 4 == 0 else 40  # beyond 1024 tokens attention is cut into splits
    lengths = [choose.choice((1, 5, longest)) for _ in range(choose.randint(1, 6))]
    every = choose.choice((1, 2, 7))
    worlds = [World(model, open_storage(model, 8000 // page_size, page_size), lengths) for _ in range(2)]
    for _ in range(3):
        torch.set_num_threads(choose.choice((1, 2, 3)))
        found, expected = worlds[0].run(every=every), worlds[1].run(by_layers, every)
        assert torch.equal(found, expected)
        for world in worlds:
            world.go_on()
    for layer in range(model.config.num_layers):
        assert torch.equal(worlds[0].storage.keys(layer), worlds[1].storage.keys(layer))
        assert torch.equal(worlds[0].storage.values(layer), worlds[1].storage.values(layer))
        assert worlds[0].storage.keys(layer).any()
    assert whole == [True] * 3


def test_the_engine_and_compute_run_a_pass_in_one_call(whole: list[bool]) -> None:
    model = decoder()
    engine = Engine(model)
    engine.generate([[3, 4, 5], [6]], SamplingParams(max_tokens=4, ignore_eos=True))
    assert whole == [True] * engine.metrics().steps
    storage = open_storage(model, 4, 16)
    cache = PagedKVCache(4, 16, storage=storage)
    compute(model, cache, cache.sequence([1, 2]))
    assert whole[-1]
    assert len(whole) == engine.metrics().steps + 1


class Mine(PageStorage):
    """Pages of somebody who has replaced nothing yet."""


@pytest.mark.parametrize("kind", [PoisonedStorage, TokenStorage, Mine])
def test_pages_of_another_class_see_every_layer(kind: type[PageStorage], whole: list[bool]) -> None:
    model = decoder()
    found = World(model, open_storage(model, 8, 16, kind), [5, 20]).run()
    assert whole == []
    if kind is not TokenStorage:
        assert torch.equal(found, World(model, open_storage(model, 8, 16), [5, 20]).run())


@pytest.mark.parametrize("on_the_class", [False, True])
@pytest.mark.parametrize("method", ["write", "check_read"])
def test_one_who_replaces_a_method_of_the_pages_sees_every_layer(
    method: str, on_the_class: bool, whole: list[bool]
) -> None:
    model, seen = decoder(), []
    world = World(model, open_storage(model, 8, 16), [5, 20])
    expected = world.run()
    replaced = PageStorage if on_the_class else world.storage
    honest = getattr(replaced, method)

    def watching(*arguments: object) -> None:
        seen.append(arguments[on_the_class])
        honest(*arguments)

    with patch.object(replaced, method, watching):
        assert torch.equal(world.run(), expected)
    assert seen == [0, 1, 2]
    world.run()
    assert seen == [0, 1, 2]
    assert whole == [True, True]


def test_one_who_stands_between_the_model_and_the_pages_sees_every_layer(whole: list[bool]) -> None:
    model, seen = decoder(), []
    world = World(model, open_storage(model, 8, 16), [5, 20])

    def watched(step: PagedStep) -> Attend:
        def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            seen.append(layer)
            return step(layer, query, keys, values)

        return attend

    assert torch.equal(world.run(watched), world.run(by_layers))
    assert seen == [0, 1, 2]
    assert whole == []


def test_other_numbers_known_tokens_and_gathered_pages_go_layer_by_layer(
    whole: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = decoder()
    half = decoder().half()
    World(half, open_storage(half, 8, 16), [5]).run()
    world = World(model, open_storage(model, 8, 16), [7])
    world.sequences[0].mark_computed(5)
    step = PagedStep(world.storage, [Span(world.sequences[0], 0, 7)])
    fast(model)(torch.arange(7), torch.arange(7), step)
    assert not world.storage.keys(0)[0, 0, :5].any()  # they are said to be there, and are not written again
    assert world.storage.keys(0)[0, 0, 5:7].any()
    monkeypatch.setattr(attention, "default_backend", lambda head_dim: "gather")
    World(model, open_storage(model, 8, 16), [5]).run()
    assert whole == []


def test_what_does_not_fit_is_refused_as_layer_by_layer_and_changes_nothing(whole: list[bool]) -> None:
    model = decoder()
    other = open_storage(decoder(replace(ODD, num_kv_heads=3)), 8, 16)
    wrong = [
        (World(model, other, [5]), ValueError, "keys have shape"),
        (World(model, open_storage(decoder(replace(ODD, head_dim=32)), 8, 16), [5]), ValueError, "keys have shape"),
        (World(model, open_storage(model, 8, 16), [5, 6]), ValueError, "slot 0 is named twice"),
    ]
    wrong[2][0].sequences[1].table.page_ids[0] = wrong[2][0].sequences[0].table.page_ids[0]
    for world, error, message in wrong:
        with pytest.raises(error, match=message):
            world.run()
        assert not world.storage.keys(0).any()
    world = World(model, open_storage(model, 8, 16), [5])
    step = PagedStep(world.storage, [Span(world.sequences[0], 0, 5)])
    with pytest.raises(ValueError, match="keys have shape"):
        fast(model)(torch.arange(6), torch.arange(6), step)
    assert not world.storage.keys(0).any()
    bytes_too_few = World(model, open_storage(decoder().half(), 8, 16), [5])
    with pytest.raises(TypeError, match="float16"):
        bytes_too_few.run()
    assert whole == [False] * 5


def test_pages_with_more_layers_than_the_model_are_written_layer_by_layer(whole: list[bool]) -> None:
    model, roomy = decoder(), open_storage(decoder(replace(ODD, num_layers=4)), 8, 16)
    assert torch.equal(World(model, roomy, [5]).run(), World(model, open_storage(model, 8, 16), [5]).run())
    assert whole == [False, True]


def test_a_weight_that_is_stored_elsewhere_is_read_there(whole: list[bool]) -> None:
    model = decoder()
    before = World(model, open_storage(model, 8, 16), [5]).run()
    weight = model.layers[1].mlp.down_proj.weight
    weight.data = weight.data * 3
    after = World(model, open_storage(model, 8, 16), [5])
    assert not torch.equal(after.run(), before)
    assert torch.equal(after.run(), after.run(by_layers))
    assert whole == [True] * 3
