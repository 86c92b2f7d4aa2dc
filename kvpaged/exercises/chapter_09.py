"""Chapter 9, copy-on-write: who copies, how much, and what a write must never touch."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.exercises.small_cache import compute_last, draw_memory, keep_alone, memory, read, see_memory, text
from kvpaged.figures.picture import Picture
from kvpaged.wording import count_of

_REFUSALS = (mini.OutOfPages,)


def _copies(chance: Random) -> Question:
    """Pages and copies after forks that all go on."""
    size, forks, more = chance.choice([16, 8, 4]), chance.randint(1, 4), chance.randint(1, 3)
    length = chance.randint(size // 2, 3 * size)
    if chance.random() > 0.8:
        length += -length % size
    one_ends = forks > 1 and chance.random() < 0.4
    cache = mini.Cache(200, size)
    family = [mini.Sequence(cache, [], [], 0, None)]
    mini.append(family[0], *range(length))
    family += [mini.fork(family[0]) for _ in range(forks)]
    if one_ends:
        mini.end(family.pop())
    copies = slots = 0
    for _ in range(more):
        for each in family:
            last, slot = each.page_table[-1], len(each.tokens) % size
            mini.append(each, 0)
            if slot and each.page_table[-1] != last:
                copies, slots = copies + 1, slots + slot
    used = sum(count > 0 for count in cache.pool.ref_counts)
    times = {1: "once", 2: "twice", 3: "three times"}
    tokens = "a token" if more == 1 else f"{more} tokens"
    words = (
        f"Pages of {size}, and no prefix cache. A has {length} tokens, and is forked {times.get(forks, 'four times')}. "
        + ("Then one of the forks ends. " if one_ends else "")
        + f"Then all that are there append {tokens} each, in turn, one at a time. How many pages are in use then, how "
        "many copies were made, and of how many slots in all?"
    )
    return Question(words, (used, copies, slots))


def _family(chance: Random, size: int, spare: int) -> tuple[str, Callable[[], dict[str, mini.Sequence]]]:
    """A sequence A and perhaps a fork B, in a pool with few pages more: told in words, and how to build it."""
    page_size = chance.randint(2, min(4, size + 1))
    length = chance.randint(1, min(size + 1, 3 * page_size))
    forked, cached = chance.random() < 0.6, chance.random() < 0.3
    strange = chance.randint(1, page_size) if chance.random() < 0.3 else 0
    num_pages = mini.pages_for(length, page_size) + bool(strange) + spare

    def build() -> dict[str, mini.Sequence]:
        cache = memory(num_pages, page_size)
        keep_alone(cache, [*range(90, 90 + strange)])
        family = {"A": text(cache, range(1, length + 1))}
        if cached:
            mini.mark_computed(family["A"], length)
        if forked:
            family["B"] = mini.fork(family["A"])
        return family

    words = [f"{count_of(num_pages, 'page')} of {page_size}", f"A has {count_of(length, 'token')}"]
    words += ["B is a fork of A"] * forked
    words += ["the trie owns A's full pages"] * (cached and length >= page_size)
    words += ["the trie owns a page that nobody uses"] * bool(strange)
    return ", ".join(words), build


class _ParentsGoOn:
    """A memory under the colleague's rule: a child copies at its first write, and a parent goes on in place."""

    def __init__(self, length: int, page_size: int) -> None:
        self.first = text(memory(40, page_size), range(1, length + 1))
        self.family, self.children = [self.first], set[mini.Sequence]()
        self.said = {self.first: [*self.first.tokens]}  # their tokens, by these three functions alone

    def fork(self, sequence: mini.Sequence) -> mini.Sequence:
        child: mini.Sequence = mini.fork(sequence)
        self.family.append(child)
        self.children.add(child)
        self.said[child] = [*child.tokens]
        return child

    def append(self, sequence: mini.Sequence, token: int) -> None:
        slot = len(sequence.tokens) % sequence.cache.page_size
        if slot and sequence not in self.children:
            sequence.tokens.append(token)  # in place, no matter who reads there
        else:
            mini.append(sequence, token)
        if slot:
            self.children.discard(sequence)
        compute_last(sequence)
        self.said[sequence].append(token)

    def truncate(self, sequence: mini.Sequence, length: int) -> None:
        _truncate(sequence, length)
        del self.said[sequence][length:]

    def deceived(self) -> bool:
        """Whether somebody reads a token that is not its own, though nothing was changed but by these functions."""
        honest = all(each.tokens == self.said[each] for each in self.family)
        return honest and any(read(each) != each.tokens for each in self.family)


def _betrayals(chance: Random, size: int) -> Case:
    """A, with two tokens at least in its last page."""
    page_size = chance.randint(2, 2 + min(size, 4))
    length = page_size * chance.randint(0, size // 2) + chance.randint(2, page_size)

    def run(betray: Function) -> Seen:
        rule = _ParentsGoOn(length, page_size)
        betray(rule.first, rule.fork, rule.append, rule.truncate)
        return {"by these calls somebody reads a token that is not its own": "yes" if rule.deceived() else "no"}

    return Case(f"`betray(A, fork, append, truncate)`: A has {length} tokens, in pages of {page_size}", run)


def _betray(sequence: Any, fork: Function, append: Function, truncate: Function) -> None:
    fork(sequence)
    truncate(sequence, len(sequence.tokens) - 1)
    append(sequence, 50)


def _appends(chance: Random, size: int) -> Case:
    """Tokens appended to A and B in turn, until there may be no page left."""
    words, build = _family(chance, size, spare=chance.randint(0, 1 + size // 3))
    who = [chance.choice(sorted(build())) for _ in range(1 + size // 2)]

    def run(append: Function) -> Drawn:
        family, came = build(), []
        for token, name in enumerate(who, start=50):
            answer = outcome(append, family[name], token, refusals=_REFUSALS)
            came.append(answer.get("it raised", "done"))
            if "it raised" not in answer:
                compute_last(family[name])
        return _seen({"what came of the calls": came}, build, family)

    calls = ", ".join(f"`append({name}, {token})`" for token, name in enumerate(who, start=50))
    return Case(f"{calls}: {words}", run)


def _seen(came: Seen, before: Callable[[], dict[str, mini.Sequence]], after: dict[str, mini.Sequence]) -> Drawn:
    """What came of a call, and what it made of the memory of some sequences."""

    def draw() -> dict[str, Picture]:
        families = {"the pages before": before(), "the pages after": after}
        return {name: draw_memory(family["A"].cache, family) for name, family in families.items()}

    return Drawn(came | see_memory(after["A"].cache, after), draw)


def _append(sequence: Any, token: int) -> None:
    mini.append(sequence, token)


def _eager_forks(chance: Random, size: int) -> Case:
    """A is forked, with its last page copied at once, if there is a page."""
    words, build = _family(chance, size, spare=chance.randint(0, 1))

    def run(eager_fork: Function) -> Drawn:
        family: dict[str, Any] = dict(build())
        came = outcome(eager_fork, family["A"], refusals=_REFUSALS)
        child = came.get("it returned")
        if hasattr(child, "page_table"):
            family["C"] = child
        answer = came.get("it raised", "a sequence" if "C" in family else repr(child))
        return _seen({"what came of it": answer}, build, family)

    return Case(f"`C = eager_fork(A)`: {words}", run)


def _eager_fork(sequence: Any) -> Any:
    child = mini.fork(sequence)
    try:
        if len(child.tokens) % child.cache.page_size:
            mini.append(child, 0)
            child.tokens.pop()
    except mini.OutOfPages:
        for page in child.page_table:
            mini.release(child.cache.pool, page)
        raise
    return child


def _truncations(chance: Random, size: int) -> Case:
    """A forgets its end, and goes on."""
    words, build = _family(chance, size, spare=2)
    length = chance.randint(0, len(build()["A"].tokens))
    more = chance.random() < 0.7
    computed = max(0, len(build()["A"].tokens) - chance.choice([0, 0, 1]))

    def before() -> dict[str, mini.Sequence]:
        family = build()
        family["A"].num_computed = computed
        return family

    def run(truncate: Function) -> Drawn:
        family = before()
        truncate(family["A"], length)
        if more:
            mini.append(family["A"], 50)
            compute_last(family["A"])
        return _seen({}, before, family)

    then = ", then `append(A, 50)`" if more else ""
    return Case(f"`truncate(A, {length})`{then}: {words}, A has computed {computed}", run)


def _truncate(sequence: Any, length: int) -> None:
    cache, table = sequence.cache, sequence.page_table
    needed = mini.pages_for(length, cache.page_size)
    while len(table) > needed:
        mini.release(cache.pool, table.pop())
    del sequence.tokens[length:]
    sequence.num_computed = min(sequence.num_computed, length)


EXERCISES = (
    Predict(
        number="9.1",
        title="copies and pages after forks",
        instance=_copies,
        hints=(
            "How many owners does the last page have when the last of them writes? And when is there a last page to be "
            "copied?",
            "Full pages stay shared. Of n owners of a partly filled page, n - 1 copy it, and the last one writes where "
            "it is.",
        ),
    ),
    Build(
        number="9.2",
        name="eager_fork",
        title="copy the last page at the fork",
        cases=_eager_forks,
        reference=_eager_fork,
        hints=(
            "A child that appends a token and takes it back at once has done its copying.",
            "A last page that is full is never written again: it need not be copied.",
            "`append` may find no page. Then the child must give back what `fork` has shared for it, page by page, "
            "before you let the exception go on.",
        ),
    ),
    Build(
        number="9.3",
        kind="debug",
        name="betray",
        title="break a rule that is almost right",
        cases=_betrayals,
        reference=_betray,
        against="the colleague's rule",
        hints=(
            "The slots after the parent's last token are nobody's as long as the parent only goes forward.",
            "After a truncation, the parent's next slot is one that the child still reads.",
            "The token must be another than the one that stood there, or nobody notices.",
        ),
    ),
    Build(
        number="9.5",
        name="append",
        title="room for one more token",
        cases=_appends,
        reference=_append,
        hints=(
            "First find out whether a page is needed: for a copy (a last page that is partly filled, and has other "
            "owners), or because the last page is full.",
            "`evict(cache, 1 - len(cache.pool.free))` makes sure of a page, or raises OutOfPages. Call it before you "
            "change anything.",
            "To copy: `cache.storage[:, :, new, :slot] = cache.storage[:, :, old, :slot]`, put the new page in the old "
            "one's place, and `release` the old one.",
        ),
    ),
    Build(
        number="9.6",
        kind="debug",
        name="truncate",
        title="forget without touching",
        cases=_truncations,
        reference=_truncate,
        hints=(
            "How many pages do 0 tokens need, and how many do 4 in pages of 4? If the table keeps one page more, the "
            "next `append` fills that page, and does not ask who owns it.",
            "A token that is forgotten is not computed any more: `num_computed` is at most `length`.",
            "Who else may read the slots after `length`? Forgetting must write nothing.",
        ),
    ),
)
