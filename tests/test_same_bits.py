"""The bits of a request's logits, K and V depend on the weights and on its own tokens, and on nothing else."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kvpaged.attention import PackedAttention, streaming_attention
from kvpaged.engine import Engine, SamplingParams
from kvpaged.kernel import layers, one_pass
from kvpaged.model import load_model
from kvpaged.page_table import PageTable, pages_for
from kvpaged.paged_step import PagedStep
from support.same_bits import BitsEpisode, compare_bits
from support.simulation import SimulationFailed

EPISODES, REQUESTS = 16, 20


def compare_all() -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(EPISODES):
        counts += compare_bits(seed, REQUESTS)
    return counts


def test_three_hundred_requests_get_the_bits_in_engines_of_any_shape_that_their_texts_get_alone() -> None:
    counts = compare_all()
    assert counts["requests"] == EPISODES * REQUESTS >= 300
    assert counts["rows of logits"] > 1000
    assert counts["numbers of K and V"] > 1_000_000
    for what in ("preempted", "tokens found in the cache", "guesses that came true", "copies"):
        assert counts[what] > 20, what


def test_a_matrix_product_chosen_by_the_number_of_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = layers.Stream.logits

    def chosen(self: layers.Stream, norm: Tensor, head: Tensor) -> Tensor:
        if self.num_tokens > 2:
            return honest(self, norm, head)
        normed = honest(self, norm, torch.eye(self.width))
        return torch.nn.functional.linear(normed, head.float())

    monkeypatch.setattr(layers.Stream, "logits", chosen)
    with pytest.raises(SimulationFailed, match="other logits behind"):
        compare_all()


def test_attention_cut_otherwise_in_a_batch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = PackedAttention.__call__

    def cut_by_the_batch(self: PackedAttention, layer: int, query: Tensor) -> Tensor:
        output = honest(self, layer, query)
        lengths = self._seq_lens.tolist()
        if len(lengths) > 1 and len(query) == len(lengths):  # a batch that decodes: page by page, not by splits
            for row, length in enumerate(lengths):
                size = self._storage.page_size
                table = PageTable(size, self._page_tables[row, : pages_for(length, size)].tolist(), length)
                output[row] = streaming_attention(query[row : row + 1], self._storage, table, layer)[0]
        return output

    monkeypatch.setattr(PackedAttention, "__call__", cut_by_the_batch)
    monkeypatch.setattr(PagedStep, "unwatched", lambda _: None)
    with pytest.raises(SimulationFailed, match="other logits behind|other K or V of"):
        compare_all()


def test_a_bit_that_company_changes_in_a_pass_of_one_call_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = one_pass.run_layers

    def nudged(stream: layers.Stream, weights: Sequence[layers.Weights], pages: one_pass.Pages) -> bool:
        if stream.num_tokens == 2:
            stream._hidden[1, 0] *= 1 + 2**-23
        return honest(stream, weights, pages)

    monkeypatch.setattr(one_pass, "run_layers", nudged)
    with pytest.raises(SimulationFailed, match="other logits behind|other K or V of"):
        compare_all()


def test_a_failure_prints_the_line_that_does_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: BitsEpisode, num_requests: int) -> Counter[str]:
        raise AssertionError("other logits")

    monkeypatch.setattr(BitsEpisode, "run", failing)
    with pytest.raises(SimulationFailed, match=r"^python tools/long_checks.py bits --seed 3 --requests 7  # Assertion"):
        compare_bits(3, 7)


def test_a_hash_of_the_logits_is_reported_if_asked_for() -> None:
    prompts = ["Ada hid the coin in the attic.", "Bo hid the map under the bed."]
    params = SamplingParams(temperature=0, max_tokens=6, hash_logits=True, ignore_eos=True)
    together = [output.outputs[0] for output in Engine(load_model("recall")).generate(prompts, params)]
    for prompt, output in zip(prompts, together, strict=True):
        [lone] = Engine(load_model("recall"), page_size=3, max_batched_tokens=4).generate(prompt, params)
        assert lone.outputs[0].logits_hash == output.logits_hash
    assert together[0].logits_hash != together[1].logits_hash
    assert len(together[0].logits_hash) == 16
    silent = Engine(load_model("recall")).generate(prompts[0], SamplingParams(max_tokens=2))
    assert silent[0].outputs[0].logits_hash is None
