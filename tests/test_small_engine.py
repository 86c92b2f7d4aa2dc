"""The small engine is what the chapters show, stays small, and says what the package says."""

from collections import Counter
from unittest.mock import patch

import pytest
import torch

import small_engine
from kvpaged import mini
from kvpaged.attention import naive_attention
from support.simulation import SimulationFailed
from support.small_engine import compare_books, compare_engines


def test_the_file_is_the_cells_of_the_chapters_letter_for_letter() -> None:
    assert small_engine.FILE.read_text(encoding="utf-8") == small_engine.small_engine(), "run tools/refresh.py"


def test_it_has_at_most_250_lines() -> None:
    lines = small_engine.FILE.read_text(encoding="utf-8").split("\n")
    assert sum(bool(line.strip()) for line in lines) <= 250


def test_each_chapter_from_pages_to_serving_but_the_one_on_tenants_adds_a_piece() -> None:
    headings = [line for line in small_engine.small_engine().split("\n") if line.startswith("# Chapter")]
    assert [int(line.split()[2].rstrip(":")) for line in headings] == [3, 4, 5, 6, 7, 9, 10]


def test_in_an_ample_pool_it_finds_the_hits_and_holds_the_pages_of_the_package() -> None:
    counts = sum((compare_books(seed) for seed in range(100)), Counter[str]())
    assert counts["requests"] == 2_000
    for what in ("append", "fork", "tokens found"):
        assert counts[what] > 500, what


def test_in_pools_that_are_too_small_its_tokens_are_the_engines() -> None:
    counts = sum((compare_engines(seed) for seed in range(12)), Counter[str]())
    assert counts["tokens"] > 200
    assert counts["steps in which nobody new could begin"] > 50
    assert counts["preempted by the package"] > 2


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        ("match", lambda cache, tokens, cache_salt=None: ([], 0)),
        ("mark_computed", lambda sequence, num_tokens: setattr(sequence, "num_computed", num_tokens)),
        ("agreeing", lambda a, b: len(a) if a == b else 0),
    ],
)
def test_a_small_engine_that_finds_less_is_told_apart(broken: str, wrong: object) -> None:
    with patch.object(mini, broken, wrong), pytest.raises(SimulationFailed, match="long_checks.py books --seed"):
        all(compare_books(seed) for seed in range(10))


def test_a_small_engine_that_reads_a_page_to_its_end_says_other_tokens() -> None:
    honest = mini.attention_by_pages

    def to_the_end(query: torch.Tensor, storage: torch.Tensor, layer: int, table: list[int], length: int) -> object:
        return honest(query, storage, layer, table, mini.pages_for(length, storage.shape[3]) * storage.shape[3])

    with patch.object(mini, "attention_by_pages", to_the_end), pytest.raises(SimulationFailed, match="small --seed"):
        all(compare_engines(seed) for seed in range(10))


def test_its_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    storage = torch.full((2, 1, 9, 4, 2, 8), float("nan"))
    for q_len, length in ((1, 1), (1, 10), (3, 10), (10, 10), (5, 12)):
        keys, values, query = torch.randn(length, 2, 8), torch.randn(length, 2, 8), torch.randn(q_len, 4, 8)
        table = [5, 2, 7][: mini.pages_for(length, 4)]
        mini.write(storage, 0, mini.slots_of(table, 4, 0, length), keys, values)
        output = mini.attention_by_pages(query, storage, 0, table, length)
        assert (output - naive_attention(query, keys, values)).abs().max() < 1e-6


def test_a_fork_of_a_running_request_goes_its_own_way() -> None:
    """Copy-on-write in the small engine: what the fork says does not change what its parent reads."""
    from support.small_engine import _recall

    model, tokenizer, _ = _recall()
    prompt = tokenizer.encode("Ada hid the coin in the attic. Bo hid the map under the bed. Where is the").ids

    def alone(*tokens: int) -> list[int]:
        engine = mini.SmallEngine(model, 40, 8)
        request = mini.Request([*prompt, *tokens], 5)
        engine.waiting.append(request)
        while engine.running or engine.waiting:
            mini.step(engine)
        return request.output

    engine = mini.SmallEngine(model, 40, 8)
    parent, child = mini.Request(prompt, 5), mini.Request(prompt, 6)
    engine.waiting.append(parent)
    mini.step(engine)
    other = tokenizer.encode(" map").ids[0]
    assert parent.output != [other]
    child.sequence, child.output = mini.fork(parent.sequence), [other]
    engine.running.append(child)
    free = len(engine.cache.pool.free)
    mini.step(engine)
    assert free - len(engine.cache.pool.free) == 1, "one of the two copied the page that both wrote to"
    while engine.running:
        mini.step(engine)
    assert parent.output == alone()
    assert child.output[1:] == alone(other)


def test_an_older_prompt_gets_on_beside_newcomers_that_miss_one_token() -> None:
    from support.small_engine import _recall

    model, tokenizer, _ = _recall()
    engine = mini.SmallEngine(model, 40, 4, budget=1)
    known = tokenizer.encode("Ada hid the coin.").ids
    older = mini.Request(tokenizer.encode("Bo hid the map under the bed. Where is the map?").ids, 1)
    engine.waiting.append(mini.Request(known, 1))
    while engine.running or engine.waiting:
        mini.step(engine)
    engine.waiting.append(older)
    for _ in older.prompt:
        engine.waiting.append(mini.Request(known, 1))  # all but its last token is cached
        mini.step(engine)
    assert len(older.output) == 1
