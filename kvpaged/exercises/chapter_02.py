"""Chapter 2, runs in a strip: where the first fit is, what it leaves empty, and gaps that must be joined."""

from __future__ import annotations

from random import Random
from typing import Any

from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen, outcome
from kvpaged.figures.contiguous_map import contiguous_map
from kvpaged.lab.contiguous import ContiguousAllocator, NoContiguousSpace


def _places(chance: Random) -> Question:
    """Three runs in a strip of 20 slots, two of which go, and who of two more finds a place."""
    strip = ContiguousAllocator(20)
    lengths = {name: chance.randint(3, 6) for name in "ABC"}
    for name, length in lengths.items():
        strip.allocate(name, length)
    gone = sorted(chance.sample("ABC", 2))
    for name in gone:
        strip.release(name)
    asked = {name: chance.randint(6, 9) for name in "DE"}
    starts = [_start(strip, name, length) for name, length in asked.items()]
    words = (
        f"A strip of 20 slots, first fit. A asks for {lengths['A']} slots, B for {lengths['B']}, C for "
        f"{lengths['C']}. {gone[0]} and {gone[1]} end. D asks for {asked['D']}, and then E for {asked['E']}. In which "
        "slot does D's run begin, in which E's (-1 for one that must wait), and how many slots are free then?"
    )
    return Question(words, (*starts, strip.num_free))


def _start(strip: ContiguousAllocator, owner: str, length: int) -> int:
    try:
        return strip.allocate(owner, length)
    except NoContiguousSpace:
        return -1


def _reserved(chance: Random) -> Question:
    """Three requests in runs of 16, and which of their slots are empty now, and which always."""
    tokens = {name: sorted((chance.randint(1, 14), chance.randint(2, 16))) for name in "ABC"}
    told = "; ".join(f"{name} has {now} tokens and will have {end} at its end" for name, (now, end) in tokens.items())
    words = (
        f"Each request gets a run of 16 slots. {told}. How many reserved slots hold no token now, and how many of them "
        "never will?"
    )
    return Question(words, (sum(16 - now for now, _ in tokens.values()), sum(16 - end for _, end in tokens.values())))


def _strip_with_gaps(chance: Random, size: int) -> Case:
    """A strip in which some runs have ended."""
    lengths = [chance.randint(1, 4) for _ in range(size + 1)]
    gone = [index for index in range(size + 1) if chance.random() < 0.4]

    def strip() -> ContiguousAllocator:
        made = ContiguousAllocator(sum(lengths) + 2)
        for owner, length in enumerate(lengths):
            made.allocate("ABCDEFGHIJK"[owner], length)
        for owner in gone:
            made.release("ABCDEFGHIJK"[owner])
        return made

    def run(rows_to_close: Function) -> Drawn:
        seen = strip()
        came = {"rows that move": rows_to_close(seen), "the runs afterwards": str(seen.regions)}
        return Drawn(came, lambda: {"the strip": contiguous_map(strip())})

    runs = ", ".join(f"{length} from slot {start}" for start, length, _ in strip().regions)
    return Case(f"a strip of {sum(lengths) + 2} slots, with these runs: {runs or 'none'}", run)


def _rows_to_close(strip: ContiguousAllocator) -> int:
    place = rows = 0
    for run in strip.regions:
        rows += run.length if run.start != place else 0
        place += run.length
    return rows


def _pieces(chance: Random, size: int) -> list[tuple[int, int, bool]]:
    """A strip as pieces (start, length, free), at least one of them held."""
    pieces, at = [], 0
    for _ in range(size + 1):
        length = chance.randint(1, 4)
        pieces.append((at, length, chance.random() < 0.5))
        at += length
    held = chance.randrange(len(pieces))
    pieces[held] = (*pieces[held][:2], False)
    return pieces


def _gaps(free: set[int]) -> list[tuple[int, int]]:
    """Free slots as (start, length) of each gap, from the front."""
    starts = sorted(slot for slot in free if slot - 1 not in free)
    ends = sorted(slot for slot in free if slot + 1 not in free)
    return [(start, end + 1 - start) for start, end in zip(starts, ends, strict=True)]


def _free(pieces: list[tuple[int, int, bool]]) -> set[int]:
    return {slot for start, length, free in pieces if free for slot in range(start, start + length)}


def _a_request(chance: Random, size: int) -> Case:
    """Gaps, and a request that wants a run in one of them."""
    gaps = _gaps(_free(_pieces(chance, size + 1)))
    length = chance.randint(1, 6)

    def run(first_fit: Function) -> Seen:
        mine = [*gaps]
        return outcome(first_fit, mine, length) | {"gaps afterwards": mine}

    return Case(f"`first_fit({gaps}, {length})`", run)


def _first_fit(gaps: list[tuple[int, int]], length: int) -> int | None:
    free = {slot for start, available in gaps for slot in range(start, start + available)}
    for start in sorted(free):
        run = set(range(start, start + length))
        if run <= free:
            gaps[:] = _gaps(free - run)
            return start
    return None


def _an_end(chance: Random, size: int) -> Case:
    """Gaps, and a run that ends."""
    pieces = _pieces(chance, size)
    gaps = _gaps(_free(pieces))
    start, length, _ = chance.choice([piece for piece in pieces if not piece[2]])

    def run(give_back: Function) -> Seen:
        mine = [*gaps]
        give_back(mine, start, length)
        return {"gaps afterwards": mine}

    return Case(f"`give_back({gaps}, start={start}, length={length})`", run)


def _give_back(gaps: list[tuple[int, int]], start: int, length: int) -> Any:
    runs = [*gaps, (start, length)]
    gaps[:] = _gaps({slot for first, size in runs for slot in range(first, first + size)})


EXERCISES = (
    Predict(
        number="2.1",
        title="first fit",
        instance=_places,
        hints=(
            "A run that ends may have a free neighbour: the gap is both together. Behind C lie slots that were never "
            "used.",
            "The *first* gap that is long enough, counted from slot 0, even if a later one fits better.",
        ),
    ),
    Build(
        number="2.2",
        name="rows_to_close",
        title="what closing the gaps would move",
        cases=_strip_with_gaps,
        reference=_rows_to_close,
        hints=(
            "A run that has no gap before it stays where it is.",
            "All that lies behind the first gap must move, once, however many gaps there are before it.",
            "`strip.gaps` has (start, length) from the front; `strip.regions` has runs with `start` and `length`.",
        ),
        against="a strip that is pushed together",
    ),
    Build(
        number="2.5",
        name="first_fit",
        title="the first gap that is long enough",
        cases=_a_request,
        reference=_first_fit,
        hints=(
            "Three things can happen to the gap: it is too short, it fits exactly, or some of it remains.",
            "Change the list that you were given: the caller keeps no other. `gaps[index] = ...` and `del gaps[index]` "
            "do; `gaps = ...` makes a name of your own.",
        ),
        against="a search slot by slot",
    ),
    Build(
        number="2.6",
        name="give_back",
        title="gaps that must be joined",
        kind="debug",
        cases=_an_end,
        reference=_give_back,
        hints=(
            "A run has two neighbours. Which of them does the code look at?",
            "If there is a gap on either side, three pieces become one.",
            "Put the run among the gaps and sort them. Then go through them once, and join each with the one before it "
            "if that ends where this one begins.",
        ),
        against="a count slot by slot",
    ),
    Predict(
        number="2.7",
        title="reserved, and empty",
        instance=_reserved,
        hints=(
            "Empty now: all that is reserved, less the tokens that are there.",
            "Never filled: all that is reserved, less the tokens that will be there at the end.",
        ),
    ),
)
