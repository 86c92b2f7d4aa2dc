"""Why a prefix cache finds what it finds: small traces in which each loss was planted, and is found where it was."""

import json
import random
from collections.abc import Callable, Hashable, Iterable

import pytest

from kvpaged import PagedKVCache
from kvpaged.lab.explain import Explanation, Ledger, explain
from kvpaged.lab.explain.eviction import EvictionSimulation, Rule
from kvpaged.lab.explain.page_paths import PagePaths
from kvpaged.lab.explain.prefix_tree import PrefixTree
from kvpaged.lab.explain.words import in_words, lines, notes, parts
from kvpaged.lab.trace import Trace, TraceRequest
from kvpaged.tokens import common_prefix, pack

SYSTEM = list(range(1000, 1064))  # 64 tokens: four pages of 16


def trace_of(*prompts: list[int], salts: Iterable[Hashable] = ()) -> Trace:
    """Prompts of tokens, each named by its place."""
    salts = [*salts, *[None] * len(prompts)]
    requests = [
        TraceRequest(f"line {number}", pack(prompt), len(prompt), salt)
        for number, (prompt, salt) in enumerate(zip(prompts, salts, strict=False), 1)
    ]
    return Trace("planted", requests, block_size=1)


def blocks(*requests: tuple[int, list[int]], block_size: int | None = 512) -> Trace:
    """Prompts of a length in tokens, in blocks."""
    named = [TraceRequest(f"line {number}", pack(ids), n) for number, (n, ids) in enumerate(requests, 1)]
    return Trace("planted", named, block_size)


def ledger(found: Explanation, request: int) -> Ledger:
    """What became of a request's tokens, the first request being 1."""
    return found.verdicts[request - 1].tokens


def test_what_was_never_seen_is_new() -> None:
    found = explain(trace_of(list(range(40)), list(range(100, 150))))
    assert found.tokens == Ledger(new=90)
    assert [verdict.relative for verdict in found.verdicts] == [None, None]


def test_an_identical_prompt_leaves_one_token_to_run_and_loses_what_fills_no_page() -> None:
    found = explain(trace_of(list(range(48)), list(range(48))), num_pages=100)
    assert ledger(found, 2) == Ledger(last_token=1, rounding=15, kept=32)
    assert found.verdicts[1].relative == "line 1"


def test_rounding_loses_what_a_hit_to_the_token_would_find() -> None:
    found = explain(trace_of([*range(37), 1, 2], [*range(37), 3, 4, 5]), num_pages=100)
    assert ledger(found, 2) == Ledger(new=3, rounding=5, kept=32)
    assert found.verdicts[1].parts_at == 37


def test_prompts_that_differ_in_one_token_part_there_and_the_rest_is_behind_another_beginning() -> None:
    one = list(range(100))
    other = [*one[:50], 999, *one[51:]]
    found = explain(trace_of(one, other), num_pages=100)
    assert ledger(found, 2) == Ledger(new=1, elsewhere=49, rounding=2, kept=48)
    (parting,) = found.partings
    assert (parting.tokens, parting.requests, parting.lost) == (50, 1, 49)
    assert (parting.request, parting.relative) == ("line 2", "line 1")
    assert (parting.before, parting.after) == ("44 45 46 47 48 49", "999 51 52 53 54 55")
    assert parting.relative_after == "50 51 52 53 54 55"
    assert in_words(parting) == (
        "49 tokens that were seen before are lost where 1 request parts from others, after 50 tokens: line 2 parts "
        "from line 1 there, … 44 45 46 47 48 49 ▸ 999 51 52 53 54 55 … where the other has ▸ 50 51 52 53 54 55"
    )


def test_a_system_prompt_that_carries_a_date_loses_all_that_follows_the_date() -> None:
    days = [[7, 7, day, *SYSTEM, 2000 + day] for day in (30, 31, 32)]
    found = explain(trace_of(*days), num_pages=100)
    assert found.tokens == Ledger(new=67 + 1 + 2 * 2, elsewhere=2 * 64, rounding=2 * 2)
    (parting,) = found.partings
    assert (parting.tokens, parting.requests, parting.lost) == (2, 2, 2 * 64)
    # The same without the date: nothing but the question is new.
    found = explain(trace_of(*([*SYSTEM, 2000 + day] for day in (30, 31, 32))), num_pages=100)
    assert found.tokens == Ledger(new=64 + 3, kept=2 * 64)


def test_a_run_that_moved_by_some_tokens_is_seen_all_the_same() -> None:
    for shift in range(20):
        found = explain(trace_of(SYSTEM, [*range(shift + 1), *SYSTEM, 5]), num_pages=100)
        assert ledger(found, 2) == Ledger(new=shift + 2, elsewhere=64)


def test_a_salt_takes_what_another_tenant_has() -> None:
    prompts = [[*SYSTEM, number] for number in range(4)]
    found = explain(trace_of(*prompts, salts=["a", "a", "b", "b"]), num_pages=100)
    assert [ledger(found, request).kept for request in (1, 2, 3, 4)] == [0, 64, 0, 64]
    assert ledger(found, 3) == Ledger(new=1, other_salt=64)
    assert [verdict.other_salt for verdict in found.verdicts] == [False, False, True, False]
    assert found.verdicts[2].relative == "line 2"


def test_eviction_takes_what_came_too_long_ago() -> None:
    others = [list(range(start, start + 32)) for start in (100, 200, 300)]
    prompts = [[*SYSTEM, 1], *others, [*SYSTEM, 2]]
    for num_pages, kept in ((4, 0), (6, 0), (8, 32), (9, 48), (10, 64), (100, 64)):
        found = explain(trace_of(*prompts), num_pages=num_pages)
        assert ledger(found, 5) == Ledger(new=1, evicted=64 - kept, kept=kept)
        assert found.kept["LRU"][num_pages] == found.tokens.kept


def test_each_rule_evicts_its_own_victim() -> None:
    def found_at_last(rule: Rule, *tokens: int) -> bool:
        return EvictionSimulation(_paths([[token] for token in tokens]), 2, rule).hits[-1] == 1

    # When 3 comes, 1 came first, and 2 was used least recently.
    assert found_at_last(Rule.LRU, 1, 2, 1, 3, 1)
    assert not found_at_last(Rule.FIFO, 1, 2, 1, 3, 1)
    # When 3 comes, 1 was used least recently, and 2 least often.
    assert not found_at_last(Rule.LRU, 1, 1, 2, 3, 1)
    assert found_at_last(Rule.LFU, 1, 1, 2, 3, 1)
    # When 3 comes, 1 is needed and 2 is not.
    assert found_at_last(Rule.ORACLE, 1, 2, 3, 1)
    assert not any(found_at_last(rule, 1, 2, 3, 1) for rule in (Rule.LRU, Rule.LFU, Rule.FIFO))


def test_the_oracle_lets_nothing_in_that_is_needed_later_than_all_it_has() -> None:
    prompts = [[1], [2], [3], [1], [2], [4], [1], [2]]
    assert EvictionSimulation(_paths(prompts), 2, Rule.ORACLE).hits == [0, 0, 0, 1, 1, 0, 1, 1]
    assert EvictionSimulation(_paths(prompts), 2, Rule.LRU).hits == [0] * 8


def test_a_request_longer_than_the_cache_leaves_its_beginning() -> None:
    prompts = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 9]]
    for rule in Rule:
        assert EvictionSimulation(_paths(prompts), 3, rule).hits[:2] == [0, 3]


def test_lru_finds_what_the_prefix_cache_finds() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        # Each with an end of its own: the cache computes the last token of a known prompt once more, in a page more.
        prompts = [[*prompt, 100 + number] for number, prompt in enumerate(_chats(rng, 60))]
        num_pages = max(map(len, prompts)) + rng.randrange(20)
        cache = PagedKVCache(num_pages, page_size=1)
        found = []
        for prompt in prompts:
            sequence = cache.sequence(prompt)
            sequence.mark_computed()
            found.append(sequence.num_cached_tokens)
            sequence.release()
        assert EvictionSimulation(_paths(prompts), num_pages, Rule.LRU).hits == found


@pytest.mark.parametrize("rule", list(Rule))
def test_each_rule_finds_what_its_definition_finds_page_by_page(rule: Rule) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        prompts = _chats(rng, 40)
        num_pages = rng.randrange(1, 30)
        assert EvictionSimulation(_paths(prompts), num_pages, rule).hits == _by_definition(prompts, num_pages, rule)


def test_no_rule_finds_more_than_the_oracle() -> None:
    for seed in range(20):
        paths = _paths(_chats(random.Random(seed), 60))
        best = sum(EvictionSimulation(paths, 20, Rule.ORACLE).hits)
        assert all(sum(EvictionSimulation(paths, 20, rule).hits) <= best for rule in Rule)


def test_the_tree_knows_the_longest_common_beginning_and_who_has_it() -> None:
    rng = random.Random(1)
    prompts, tree = _chats(rng, 200), PrefixTree()
    for number, prompt in enumerate(prompts):
        added = tree.add(number, pack(prompt))
        shared = [common_prefix(pack(prompt), pack(other)) for other in prompts[:number]]
        longest = max(shared, default=0)
        assert added.num_shared == longest
        latest = number - 1 - shared[::-1].index(longest) if longest else None
        assert added.relative == latest
        assert added.end.stop == len(prompt)


def test_the_lines_add_up_to_the_trace_whatever_the_trace() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        prompts = [prompt * rng.randint(1, 3) for prompt in _chats(rng, 40)]
        salts = [rng.choice([None, "a", "b"]) for _ in prompts]
        trace = trace_of(*prompts, salts=salts)
        found = explain(trace, page_size=rng.randint(1, 8), num_pages=rng.randint(1, 40))
        assert found.tokens.total == sum(map(len, prompts)) == sum(tokens for _, tokens in parts(found))
        assert [verdict.tokens.total for verdict in found.verdicts] == [len(prompt) for prompt in prompts]
        for verdict in found.verdicts:
            assert min(tokens for _, tokens in parts(found)) >= 0
            assert min(vars(verdict.tokens).values()) >= 0
        assert dict(lines(found))["seen before"] == found.tokens.seen


def test_a_trace_of_blocks_counts_the_tokens_in_them() -> None:
    found = explain(blocks((1000, [1, 2]), (1300, [1, 3, 4]), (1000, [1, 2])), num_pages=10)
    assert ledger(found, 2) == Ledger(new=788, kept=512)
    assert ledger(found, 3) == Ledger(last_token=1, kept=999)
    assert found.hidden == 511 + 511  # of the first two requests; the third is known as a whole
    assert "up to 1,022 tokens more" in notes(found)[1]


def test_in_a_trace_of_blocks_a_known_block_behind_another_one_is_seen_and_not_reusable() -> None:
    found = explain(blocks((1100, [1, 2, 3]), (1100, [9, 2, 3])), num_pages=10)
    assert ledger(found, 2) == Ledger(new=512, elsewhere=512 + 76)
    assert found.partings[0].relative is None
    assert in_words(found.partings[0]).endswith("line 2 parts from all others there.")


def test_blocks_of_unknown_sizes_count_as_equal_shares() -> None:
    found = explain(blocks((100, [1, 2, 3, 4]), (10, [1, 2, 7]), block_size=None), num_pages=10)
    assert ledger(found, 2) == Ledger(new=4, kept=6)
    assert found.hidden == 0
    assert "equal share" in notes(found)[1]


def test_an_empty_trace_and_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="planted has no request"):
        explain(trace_of())
    with pytest.raises(ValueError, match="page_size is 0"):
        explain(trace_of([1]), page_size=0)
    with pytest.raises(ValueError, match="num_pages is 0"):
        explain(trace_of([1]), num_pages=0)


def test_it_says_that_it_is_an_upper_bound() -> None:
    assert "upper bound" in notes(explain(trace_of([1])))[0]


def _paths(prompts: list[list[int]]) -> PagePaths:
    """Pages of one token."""
    tree = PrefixTree()
    return PagePaths([tree.add(number, pack(prompt)).end for number, prompt in enumerate(prompts)], 1)


def _chats(rng: random.Random, count: int) -> list[list[int]]:
    """Prompts that begin alike in many ways: each goes on from a part of an earlier one, or begins anew."""
    prompts: list[list[int]] = []
    for _ in range(count):
        earlier = rng.choice(prompts) if prompts and rng.random() < 0.8 else []
        begin = earlier[: rng.randint(0, len(earlier))]
        prompts.append([*begin, *(rng.randrange(3) for _ in range(rng.randint(1, 9)))])
    return prompts


def _by_definition(prompts: list[list[int]], num_pages: int, rule: Rule) -> list[int]:
    """The rule of eviction, page by page, as it is said in words; slow."""
    cached: dict[tuple[int, ...], list[int]] = {}  # beginning -> request it came with, uses since, last use
    hits = []
    for now, prompt in enumerate(prompts):
        own = [tuple(prompt[:stop]) for stop in range(1, len(prompt) + 1)]
        hits.append(next((place for place, page in enumerate(own) if page not in cached), len(own)))
        for page in own[: hits[-1]]:
            cached[page][1:] = cached[page][1] + 1, now

        def next_use(page: tuple[int, ...], after: int = now) -> float:
            later = (at for at in range(after + 1, len(prompts)) if tuple(prompts[at][: len(page)]) == page)
            return next(later, float("inf"))

        key: dict[Rule, Callable[[tuple[int, ...]], tuple[float, ...]]] = {
            Rule.LRU: lambda page: (cached[page][2],),
            Rule.LFU: lambda page: (cached[page][1], cached[page][2]),
            Rule.FIFO: lambda page: (cached[page][0],),
            Rule.ORACLE: lambda page: (-next_use(page),),
        }
        for page in own[hits[-1] :]:
            if len(cached) == num_pages:
                parents = {other[:-1] for other in cached}
                leaves = [other for other in cached if other not in parents and other not in own]
                if rule is Rule.ORACLE:
                    leaves = [other for other in leaves if next_use(other) > next_use(page)]
                if not leaves:
                    break
                del cached[min(leaves, key=key[rule])]
            cached[page] = [now, 1, now]
    return hits


def test_an_explanation_can_be_written_as_json() -> None:
    from kvpaged.cli.explain import _as_dict

    found = json.loads(json.dumps(_as_dict(explain(trace_of([1, 2], [1, 2]), page_size=1))))
    assert found["tokens"]["total"] == 4
    assert found["verdicts"][1]["relative"] == "line 1"
