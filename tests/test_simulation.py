"""The simulation finds nothing wrong with the package, and does find what is planted in it."""

import re
from collections import Counter
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from kvpaged.page_pool import PagePool
from kvpaged.page_table import pages_for
from kvpaged.prefix_cache import PrefixCache, PrefixMatch
from kvpaged.sequence import Sequence
from kvpaged.tokens import TOKEN_BYTES
from long_checks import app
from support.engine_simulation import simulate_engine
from support.simulation import SimulationFailed, simulate
from support.slot_storage import SlotStorage
from support.traffic import cache_traffic, engine_traffic

QUICK = range(100)  # seeds of 50 requests each


def quick_set() -> Counter[str]:
    return sum((simulate(seed, 50) for seed in QUICK), Counter())


def test_five_thousand_requests_through_the_bookkeeping_go_right() -> None:
    counts = quick_set()
    assert counts["requests"] == 5_000
    # Nothing that could go wrong was left out.
    for what in ("forks", "slots copied", "guesses taken back", "preempted", "cancelled", "failures injected"):
        assert counts[what] > 100, what
    for what in ("begin: OutOfPages", "append: OutOfPages", "begin: InjectedError", "append: InjectedError"):
        assert counts[what] > 10, what
    assert 0.3 < counts["tokens found in the cache"] / counts["tokens begun"] < 0.7


@pytest.mark.parametrize("first", range(0, 12, 3))
def test_requests_through_the_recall_model_get_what_they_get_alone(first: int) -> None:
    counts = sum((simulate_engine(seed, 12) for seed in range(first, first + 3)), Counter())
    assert counts["requests"] == 36
    assert counts["tokens generated"] > 0


def test_an_episode_is_the_same_each_time() -> None:
    assert simulate(5, 50) == simulate(5, 50)


# --- planted bugs -----------------------------------------------------------------------------------------------


def skip_the_copy(patch: Callable[..., None]) -> None:
    patch("kvpaged.memory.Memory.must_copy", lambda memory, table: False)


def copy_a_slot_too_few(patch: Callable[..., None]) -> None:
    copy = SlotStorage.copy
    patch(SlotStorage, "copy", lambda self, source, target, n: copy(self, source, target, n - 1))


def forget_to_release_the_source_of_a_copy(patch: Callable[..., None]) -> None:
    patch(PagePool, "release", lambda self, page_id: None)


def forget_to_release_a_page(patch: Callable[..., None]) -> None:
    release_many = PagePool.release_many
    patch(PagePool, "release_many", lambda self, page_ids: release_many(self, list(page_ids)[1:]))


def hand_out_a_page_that_has_an_owner(patch: Callable[..., None]) -> None:
    def release_many(self: PagePool, page_ids: list[int]) -> None:
        for page_id in page_ids:
            self.ref_counts[page_id] -= 1
            self._released.append(page_id)

    patch(PagePool, "release_many", release_many)


def forget_to_share_with_a_fork(patch: Callable[..., None]) -> None:
    share_many = PagePool.share_many
    patch(PagePool, "share_many", lambda self, page_ids: share_many(self, list(page_ids)[:-1]))


def let_a_fork_have_the_same_list_of_tokens(patch: Callable[..., None]) -> None:
    fork = Sequence.fork

    def aliased(self: Sequence) -> Sequence:
        child = fork(self)
        child.tokens = self.tokens
        return child

    patch(Sequence, "fork", aliased)


def share_across_salts(patch: Callable[..., None]) -> None:
    match_packed = PrefixCache.match_packed

    def any_salt(self: PrefixCache, packed: bytes, cache_salt: object) -> PrefixMatch:
        found = [match_packed(self, packed, salt) for salt in self._roots]
        return max(found, key=lambda match: match.num_tokens, default=PrefixMatch([], 0))

    patch(PrefixCache, "match_packed", any_salt)


def find_pages_by_their_own_tokens(patch: Callable[..., None]) -> None:
    def match_packed(self: PrefixCache, packed: bytes, cache_salt: object) -> PrefixMatch:
        width, found = self.page_size * TOKEN_BYTES, []
        page_of = {node.edge: node.page_id for node in self.nodes()}
        while packed[:width] in page_of and len(packed) >= width:
            found.append(page_of[packed[:width]])
            packed = packed[width:]
        return PrefixMatch(found, len(found) * self.page_size)

    patch(PrefixCache, "match_packed", match_packed)


def match_a_token_too_many(patch: Callable[..., None]) -> None:
    match_packed = PrefixCache.match_packed

    def longer(self: PrefixCache, packed: bytes, cache_salt: object) -> PrefixMatch:
        match = match_packed(self, packed, cache_salt)
        return match._replace(num_tokens=match.num_tokens + 1) if match.partial else match

    patch(PrefixCache, "match_packed", longer)


def cache_what_is_not_computed(patch: Callable[..., None]) -> None:
    def all_of_it(self: Sequence, num_tokens: int) -> None:
        cache_computed(self, len(self) // self.table.page_size * self.table.page_size)

    cache_computed = Sequence._cache_computed
    patch(Sequence, "_cache_computed", all_of_it)


def take_back_a_guess_and_call_it_computed(patch: Callable[..., None]) -> None:
    truncate = Sequence.truncate

    def lazy(self: Sequence, length: int) -> None:
        path = self._cached_path
        truncate(self, length)
        while path and path.depth > pages_for(length, self.table.page_size):
            path = path.parent
        self._cached_path = path

    patch(Sequence, "truncate", lazy)


def evict_what_is_in_use(patch: Callable[..., None]) -> None:
    choose = PrefixCache._choose_victims

    def careless(self: PrefixCache, num_pages: int) -> list[object]:
        victims = choose(self, num_pages)
        leaves = [node for node in self.nodes() if not node.children and node not in victims]
        return victims + leaves[: num_pages - len(victims)]

    patch(PrefixCache, "_choose_victims", careless)


def evict_a_page_before_what_it_continues(patch: Callable[..., None]) -> None:
    def from_the_root(self: PrefixCache, num_pages: int) -> list[object]:
        return [node for node in self.nodes() if self.pool.ref_count(node.page_id) == 1][:num_pages]

    patch(PrefixCache, "_choose_victims", from_the_root)


def lose_pages_when_an_allocation_fails(patch: Callable[..., None]) -> None:
    begin_from = Sequence._begin_from.__func__

    def leaky(cls: type[Sequence], match: PrefixMatch, memory: object, *rest: object) -> Sequence:
        try:
            return begin_from(cls, match, memory, *rest)
        except BaseException:
            memory.pool.share_many(match.page_ids)
            raise

    patch(Sequence, "_begin_from", classmethod(leaky))


BUGS = [
    skip_the_copy,
    copy_a_slot_too_few,
    forget_to_release_the_source_of_a_copy,
    forget_to_release_a_page,
    hand_out_a_page_that_has_an_owner,
    forget_to_share_with_a_fork,
    let_a_fork_have_the_same_list_of_tokens,
    share_across_salts,
    find_pages_by_their_own_tokens,
    match_a_token_too_many,
    cache_what_is_not_computed,
    take_back_a_guess_and_call_it_computed,
    evict_what_is_in_use,
    evict_a_page_before_what_it_continues,
    lose_pages_when_an_allocation_fails,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_quick_set_catches_a_planted_bug_and_says_how_to_see_it_again(
    bug: Callable[[Callable[..., None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch.setattr)
    with pytest.raises(SimulationFailed) as caught:
        quick_set()
    said = str(caught.value)
    [(seed, requests)] = re.findall(r"^python tools/long_checks.py cache --seed (\d+) --requests (\d+)  # .+$", said)
    with pytest.raises(SimulationFailed) as again:
        simulate(int(seed), int(requests))
    assert str(again.value) == said


def test_the_command_says_a_failure_in_one_line_and_what_it_did_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    command = CliRunner()
    right = command.invoke(app, ["cache", "--requests", "200", "--first", "7"])
    assert right.exit_code == 0
    assert right.stdout.startswith("cache: seeds 7 to 8, ")
    assert "200 requests" in right.stdout
    skip_the_copy(monkeypatch.setattr)
    wrong = command.invoke(app, ["cache", "--requests", "200"])
    assert wrong.exit_code == 1
    assert re.fullmatch(r"python tools/long_checks.py cache --seed 0 --requests 100  # .+\n", wrong.stderr)
    with pytest.raises(SimulationFailed):  # and the whole story, when it is run again
        command.invoke(app, ["cache", "--seed", "0"], catch_exceptions=False)


def test_the_simulation_of_the_engine_says_how_to_see_a_failure_again(monkeypatch: pytest.MonkeyPatch) -> None:
    share_across_salts(monkeypatch.setattr)
    monkeypatch.setattr("kvpaged.memory.Memory.must_copy", lambda memory, table: False)
    with pytest.raises(SimulationFailed, match=r"^python tools/long_checks.py engine --seed \d+ --requests 12  # \w+"):
        sum((simulate_engine(seed, 12) for seed in range(20)), Counter())


# --- long runs, in short ----------------------------------------------------------------------------------------


def test_requests_leave_nothing_behind_in_the_cache() -> None:
    measured = cache_traffic(minutes=4, requests_a_minute=300, measure_every=1)
    assert [each.own_objects for each in measured[1:]] == [measured[0].own_objects] * 3
    assert measured[-1].objects - measured[1].objects < 100  # 600 requests later


def test_requests_leave_nothing_behind_in_the_engine() -> None:
    measured = engine_traffic(minutes=4, requests_a_minute=30, measure_every=1)
    assert [each.own_objects for each in measured[1:]] == [measured[0].own_objects] * 3
    assert measured[-1].objects - measured[1].objects < measured[-1].requests - measured[1].requests
