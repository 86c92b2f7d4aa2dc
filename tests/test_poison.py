"""Every misuse of a page is caught at the access itself, with the page, the slot and the sequence in the message."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kvpaged import EventLog, PagedKVCache, Sequence, paged_step
from kvpaged.attention import paged_attention, paged_attention_decode, streaming_attention
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model
from kvpaged.model.compute import compute as compute_logits
from kvpaged.model.compute import open_storage
from kvpaged.page import PageStorage
from kvpaged.page_pool import PagePool
from kvpaged.page_table import PageTable
from kvpaged.poison import PoisonedStorage, PoisonError
from kvpaged.reader import PagedKVReader
from kvpaged.recall.text import ask, make_story

MODEL = load_model("recall")
STORY = make_story(4, 4, seed=1, kinds=["looks", "where"])
QUERY = torch.ones(1, 1, 16)

Reader = Callable[[PageStorage, PageTable], object]


def open_cache(num_pages: int = 8, page_size: int = 4, **options: object) -> PagedKVCache:
    storage = PoisonedStorage(num_pages, page_size, num_layers=2, num_kv_heads=1, head_dim=16)
    cache = PagedKVCache(num_pages, page_size, storage=storage, **options)
    storage.watch(cache)
    return cache


def compute(cache: PagedKVCache, sequence: Sequence) -> None:
    """Write K and V that say which token they belong to."""
    start, stop = sequence.num_computed, len(sequence)
    kv = torch.tensor(sequence.tokens[start:], dtype=torch.float32)[:, None, None].expand(-1, 1, 16)
    for layer in range(2):
        cache.storage.write(layer, sequence.slot_mapping(start, stop), kv, kv)
    sequence.mark_computed()


def write(cache: PagedKVCache, slots: list[int]) -> None:
    cache.storage.write(0, slots, torch.zeros(len(slots), 1, 16), torch.zeros(len(slots), 1, 16))


def pages_that_hold_numbers(storage: PageStorage) -> set[int]:
    return {page_id for page_id in range(storage.num_pages) if not storage[page_id].keys.isnan().all()}


def test_right_use_passes_and_leaves_nothing_behind() -> None:
    events = EventLog()
    cache = open_cache(events=events)
    first = cache.sequence(range(6))
    compute(cache, first)
    fork = first.fork()
    for sequence, token in ((first, 7), (fork, 8)):
        sequence.append(token)
        compute(cache, sequence)
        assert not paged_attention(QUERY, cache.storage, sequence.table, 1).isnan().any()
    fork.truncate(5)
    fork.append(9)
    compute(cache, fork)
    assert pages_that_hold_numbers(cache.storage) == {*first.table.page_ids, *fork.table.page_ids}
    first.release()
    fork.release()
    cache.prefix.clear()
    assert not pages_that_hold_numbers(cache.storage)
    assert [event.kind for event in events][:4] == ["begin", "allocate", "compute", "insert"]


def test_a_write_to_a_free_page_is_caught() -> None:
    cache = open_cache()
    sequence = cache.sequence(range(3))
    sequence.release()
    with pytest.raises(PoisonError, match="slot 2 of page 0 is written in layer 0, but the page is free: use after"):
        write(cache, [2])


def test_a_write_to_a_page_with_two_owners_is_caught() -> None:
    cache = open_cache()
    sequence = cache.sequence(range(3))
    compute(cache, sequence)
    sequence.fork()
    with pytest.raises(PoisonError, match="slot 3 of page 0 .* belongs to sequence 0, sequence 1: only a sole owner"):
        write(cache, [3])


def test_a_write_to_a_page_that_only_the_prefix_cache_owns_is_caught() -> None:
    cache = open_cache()
    sequence = cache.sequence(range(3))
    compute(cache, sequence)
    sequence.release()
    with pytest.raises(PoisonError, match="slot 3 of page 0 is .* belongs to the prefix cache: only a sole owner"):
        write(cache, [3])


def test_a_write_to_a_slot_that_is_computed_or_not_reserved_is_caught() -> None:
    cache = open_cache(prefix_caching=False)
    compute(cache, cache.sequence(range(3)))
    for slot in (1, 3):
        with pytest.raises(PoisonError, match=f"token {slot} of sequence 0, which has 3 tokens and the first 3 comp"):
            write(cache, [slot])


def test_a_refused_write_stores_nothing() -> None:
    cache = open_cache(prefix_caching=False)
    sequence = cache.sequence(range(3))
    with pytest.raises(PoisonError):
        write(cache, [*sequence.slot_mapping(0, 3), 9])
    assert not pages_that_hold_numbers(cache.storage)


def in_a_batch(backend: str) -> Reader:
    tables, lengths = torch.tensor([[0, 1]], dtype=torch.int32), torch.tensor([6], dtype=torch.int32)
    return lambda storage, table: paged_attention_decode(QUERY, storage, tables, lengths, 0, backend)


READERS: dict[str, Reader] = {
    "storage.read": lambda storage, table: storage.read(0, table),
    "a reader's keys": lambda storage, table: PagedKVReader(storage, table).keys(0),
    "a reader's values": lambda storage, table: PagedKVReader(storage, table).values(0),
    "attention, gathered": lambda storage, table: paged_attention(QUERY, storage, table, 0, "gather"),
    "attention, in the kernel": lambda storage, table: paged_attention(QUERY, storage, table, 0, "kernel"),
    "attention of several tokens": lambda storage, table: paged_attention(QUERY.repeat(2, 1, 1), storage, table, 0),
    "attention of a batch, gathered": in_a_batch("gather"),
    "attention of a batch, in the kernel": in_a_batch("kernel"),
    "attention, page by page": lambda storage, table: streaming_attention(QUERY, storage, table, 0),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_a_slot_that_was_never_computed_is_caught(reader: str) -> None:
    cache = open_cache()
    sequence = cache.sequence(range(6))
    write(cache, sequence.slot_mapping(0, 5))
    with pytest.raises(PoisonError, match="token 5 of sequence 0 is slot 1 of page 1, which nobody has computed in la"):
        READERS[reader](cache.storage, sequence.table)
    write(cache, sequence.slot_mapping(5, 6))
    READERS[reader](cache.storage, sequence.table)


def test_a_model_that_computes_one_sequence_reads_under_the_same_eyes() -> None:
    cache = PagedKVCache(8, 4, storage=open_storage(MODEL, 8, 4, kind=PoisonedStorage))
    cache.storage.watch(cache)
    sequence = cache.sequence([1, 2, 3, 4, 5, 6])
    compute_logits(MODEL, cache, sequence)
    sequence.append(7)
    cache.storage._computed[:, 0, 0] = False
    with pytest.raises(PoisonError, match="token 0 of sequence 0 is slot 0 of page 0, which nobody has") as caught:
        compute_logits(MODEL, cache, sequence)
    assert "check_read" in [entry.name for entry in caught.traceback]


def test_an_engine_reads_under_the_same_eyes() -> None:
    engine = Engine(MODEL, 16, 4, poisoned=True)
    engine.submit(STORY.text[:20], SamplingParams(max_tokens=4, ignore_eos=True))
    engine.step()
    engine.cache.storage._computed[:, 0, 0] = False
    with pytest.raises(PoisonError, match="token 0 of sequence 0 is slot 0 of page 0, which nobody has") as caught:
        engine.step()
    assert "check_read" in [entry.name for entry in caught.traceback]


def test_what_a_rolled_back_guess_left_in_a_page_cannot_be_read() -> None:
    cache = open_cache()
    sequence = cache.sequence(range(6))
    compute(cache, sequence)
    sequence.truncate(5)
    sequence.append(9)
    with pytest.raises(PoisonError, match="token 5 of sequence 0 is slot 1 of page 1, which nobody has computed"):
        paged_attention(QUERY, cache.storage, sequence.table, 0)


def test_a_read_through_a_table_that_was_kept_after_release_is_caught() -> None:
    cache = open_cache(prefix_caching=False)
    sequence = cache.sequence(range(6))
    compute(cache, sequence)
    kept = PageTable(4, sequence.table.page_ids, 6)
    sequence.release()
    with pytest.raises(PoisonError, match="slot 0 of page 0, which nobody .* and the page is free: use after release"):
        paged_attention(QUERY, cache.storage, kept, 0)


def test_a_read_of_what_another_computed_is_caught() -> None:
    cache = open_cache()
    for salt in ("mine", "yours"):
        compute(cache, cache.sequence(range(6), salt))
    with pytest.raises(PoisonError, match=r"6 tokens are read through pages \[0, 3\] in layer 0: no live sequence has"):
        paged_attention(QUERY, cache.storage, PageTable(4, [0, 3], 6), 0)


def test_a_copy_over_a_page_in_use_or_from_a_free_one_is_caught() -> None:
    cache = open_cache(prefix_caching=False)
    for _ in range(2):
        compute(cache, cache.sequence(range(3)))
    with pytest.raises(PoisonError, match="copying page 0 to page 1: page 1 is in use by sequence 1"):
        cache.storage.copy(0, 1, 2)
    with pytest.raises(PoisonError, match="copying page 5 to page 1: page 5 is free: use after release"):
        cache.storage.copy(5, 1, 2)
    with pytest.raises(IndexError, match="page 99 does not exist"):
        cache.storage.copy(99, 1, 2)


def test_a_read_through_too_few_pages_is_caught() -> None:
    cache = open_cache(prefix_caching=False)
    sequence = cache.sequence(range(6))
    compute(cache, sequence)
    cache.storage.check_read(0, [sequence.table.page_ids], [6])
    with pytest.raises(PoisonError, match="6 tokens are read in layer 0, through 1 page only"):
        cache.storage.check_read(0, [sequence.table.page_ids[:1]], [6])


def test_tokens_marked_as_computed_that_were_never_written_are_caught() -> None:
    cache = open_cache()
    sequence = cache.sequence(range(3))
    write(cache, sequence.slot_mapping(0, 3))
    with pytest.raises(PoisonError, match="token 0 of sequence 0 is slot 0 of page 0, .* in layer 1"):
        sequence.mark_computed()


def test_a_storage_that_watches_nobody_says_how_to_begin() -> None:
    storage = PoisonedStorage(4, 4, 1, 1, 16)
    with pytest.raises(ValueError, match="call storage.watch"):
        storage.write(0, [0], torch.zeros(1, 1, 16), torch.zeros(1, 1, 16))
    with pytest.raises(ValueError, match="call storage.watch"):
        storage.read(0, PageTable(4, [0], 1))
    cache = PagedKVCache(4, 4, storage=storage)
    cache.sequence([1])
    with pytest.raises(ValueError, match="before its first sequence begins"):
        storage.watch(cache)
    with pytest.raises(ValueError, match="opened with this storage"):
        storage.watch(PagedKVCache(4, 4))


@pytest.mark.parametrize("backend", ["gather", "kernel"])
def test_poison_that_no_check_sees_still_turns_what_reads_it_into_nan(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    sequence = cache.sequence(range(6))
    write(cache, sequence.slot_mapping(0, 5))
    monkeypatch.setattr(PoisonedStorage, "check_read", PageStorage.check_read)
    assert paged_attention(QUERY, cache.storage, sequence.table, 0, backend).isnan().all()


# --- in the engine ---------------------------------------------------------------------------------------------


def serve(num_pages: int = 24, n: int = 1, **options: object) -> Engine:
    engine = Engine(MODEL, num_pages, 4, poisoned=True, **options)
    prompts = [STORY.text + question.prompt for question in STORY.questions] + [STORY.text] * 2
    engine.generate(prompts, SamplingParams(n=n, seed=0, max_tokens=12, ignore_eos=True))
    return engine


def test_an_engine_is_poisoned_only_when_told() -> None:
    assert type(Engine(MODEL, 8, 4).cache.storage) is PageStorage
    assert type(serve().cache.storage) is PoisonedStorage


@pytest.mark.usefixtures("poisoned_engines")
def test_the_fixture_that_runs_the_engines_own_tests_poisons_every_engine() -> None:
    assert isinstance(Engine(MODEL, 8, 4).cache.storage, PoisonedStorage)


def test_nothing_that_a_request_computed_is_left_when_its_pages_are_free() -> None:
    engine = serve(n=2)
    held = pages_that_hold_numbers(engine.cache.storage)
    assert held == {node.page_id for node in engine.cache.prefix.nodes()}
    engine.cache.prefix.clear()
    assert not pages_that_hold_numbers(engine.cache.storage)


def test_a_page_that_changes_hands_is_empty_when_the_next_request_gets_it() -> None:
    engine = Engine(MODEL, 16, 4, poisoned=True)
    secret = engine.submit(STORY.text[:70], SamplingParams(temperature=0, max_tokens=4), cache_salt="hers")
    while engine.num_unfinished:
        engine.step()
    hers = {node.page_id for node in engine.cache.prefix.nodes()}
    held = {page_id: engine.cache.storage[page_id].keys.clone() for page_id in hers}
    sequence = engine.cache.sequence([1] * 64, "his")  # the whole pool, so her pages are evicted for it
    assert secret.finished
    assert hers <= set(sequence.table.page_ids)
    for page_id in hers:
        assert not held[page_id].isnan().all()
        assert engine.cache.storage[page_id].keys.isnan().all()
        assert engine.cache.storage[page_id].values.isnan().all()


def test_a_forgotten_copy_is_caught_at_the_write_and_not_by_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvpaged.memory.Memory.must_copy", lambda memory, table: False)
    with pytest.raises(PoisonError, match=r"the prefix cache: only a sole owner writes \(law 2\)"):
        serve(max_running=1)


def test_a_forgotten_share_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PagePool, "share_many", lambda pool, page_ids: None)
    with pytest.raises((PoisonError, ValueError, AssertionError), match="page|free|the books were not in order"):
        serve()


def test_a_row_of_page_tables_that_is_out_of_date_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of = paged_step._rows

    def stale(tables: list[PageTable]) -> np.ndarray:
        rows = rows_of(tables)
        for row, table in zip(rows, tables, strict=True):
            row[len(table.page_ids) - 1] = 0
        return rows

    monkeypatch.setattr(paged_step, "_rows", stale)
    with pytest.raises(PoisonError, match="are read through pages .*, 0\\] in layer 0|nobody has computed in layer 0"):
        serve(max_running=2)


def test_a_step_that_was_refused_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MODEL, 24, 4, poisoned=True)
    prompt = STORY.text + ask(STORY.facts[0]).prompt
    expected = Engine(MODEL, 24, 4).generate(prompt, SamplingParams(temperature=0))[0].outputs[0]
    request = engine.submit(prompt, SamplingParams(temperature=0))
    engine.step()
    with monkeypatch.context() as broken:
        broken.setattr(PoisonedStorage, "write", lambda *_: None)
        with pytest.raises(PoisonError, match=re.escape("nobody has computed in layer 0")):
            engine.step()
    while engine.num_unfinished:
        engine.step()
        engine.cache.check()
    assert engine.output(request).outputs[0].tokens == expected.tokens
