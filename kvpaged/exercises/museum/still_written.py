"""vLLM #45357: pages given back while a step that writes to them is still running."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kvpaged import mini
from kvpaged.exercises.exercise import Function
from kvpaged.exercises.museum.judge import judge, text_up_to
from kvpaged.exercises.museum.piece import piece
from kvpaged.exercises.museum.played import Played, told
from kvpaged.exercises.small_cache import Slots
from kvpaged.mini import Sequence, end


def finish(sequence: Sequence, in_flight: list[Sequence], later: list[Sequence]) -> None:
    """A request is over: give its pages back."""
    end(sequence)


def _mended(sequence: Sequence, in_flight: list[Sequence], later: list[Sequence]) -> None:
    if sequence in in_flight:
        later.append(sequence)
    else:
        end(sequence)


@dataclass(frozen=True)
class Overlap:
    """Lines (verb, name, tokens): begin and finish now; launch a step for somebody; and the step lands."""

    num_pages: int
    lines: tuple[tuple[str, str, tuple[int, ...]], ...]

    def words(self, steps: int | None = None) -> str:
        """The lines (or the first so many), below the size of the pool."""
        code = {"begin": "{0} = begin({1})", "launch": "launch({0})", "finish": "finish({0}, ...)", "land": "land()"}
        lines = [code[verb].format(name, [*tokens]) for verb, name, tokens in self.lines]
        return told(self.num_pages, 1, lines[:steps])

    def play(self, function: Function) -> Played:
        """Let it happen, until the end or until the judge objects."""
        cache = mini.Cache(self.num_pages, 1, Slots(self.num_pages, 1))
        played = Played(cache, ("tokens found", "without room", "free after each finish"))
        steps = _Steps(cache, played, {}, {}, [])
        for line in self.lines:
            played.steps += 1
            try:
                steps.happen(function, *line)
                judge(cache, steps.live | {f"{name}, finished,": each for name, each in steps.owning_later().items()})
            except AssertionError as objection:
                played.objection = f"line {played.steps}: {objection}"
                break
        played.live = steps.live
        return played


@dataclass
class _Steps:
    cache: mini.Cache
    played: Played
    live: dict[str, Sequence]
    launched: dict[str, tuple[Sequence, list[tuple[int, int]]]]  # by name: whose, and (token, slot) to be written
    later: list[Sequence]

    def owning_later(self) -> dict[str, Sequence]:
        return {name: each for name, (each, _) in self.launched.items() if each in self.later}

    def happen(self, finish: Function, verb: str, name: str, tokens: tuple[int, ...]) -> None:
        if verb == "begin":
            try:
                self.live[name] = mini.begin(self.cache, [*tokens])
                self.played.counted["tokens found"].append(f"{name} {self.live[name].num_cached_tokens}")
            except mini.OutOfPages:
                self.played.counted["without room"].append(name)
        elif verb == "land":
            self._land()
        elif name not in self.live:
            return
        elif verb == "launch":
            sequence = self.live[name]
            start, stop = sequence.num_computed, len(sequence.tokens)
            slots = mini.slots_of(sequence.page_table, 1, start, stop)
            self.launched[name] = sequence, [*zip(range(start, stop), slots, strict=True)]
        else:
            finish(self.live.pop(name), [each for each, _ in self.launched.values()], self.later)
            self.played.counted["free after each finish"].append(str(len(self.cache.pool.free)))

    def _land(self) -> None:
        """What was launched writes now, to the slots that it was told when it was launched."""
        for name, (sequence, writes) in self.launched.items():
            over = name not in self.live and sequence not in self.later
            for index, page in writes:
                if over:
                    owners = [each for each, other in self.live.items() if page in other.page_table]
                    owner = owners[0] if owners else "nobody"
                    raise AssertionError(f"law 2: page {page} is written for {name}, which is over; its owner: {owner}")
                self.cache.storage.pages[page][0] = text_up_to(sequence, index)
            mini.mark_computed(sequence, len(sequence.tokens))
        self.launched.clear()
        while self.later:
            mini.end(self.later.pop())


def _overlaps(chance: Random, size: int) -> Overlap:
    lines: list[tuple[str, str, tuple[int, ...]]] = []
    names, live = iter("ABCDEFGHIJKLMNOP"), list[str]()
    for _ in range(size + 3):
        verb = chance.choice(["begin", "launch", "launch", "finish", "land"] if live else ["begin"])
        name, tokens = (chance.choice(live) if live and verb != "land" else ""), tuple[int, ...]()
        if verb == "begin":
            tokens = tuple(chance.randrange(2) for _ in range(chance.randint(1, 2)))
            live.append(name := next(names))
        if verb == "finish":
            live.remove(name)
        lines.append((verb, name, tokens))
    return Overlap(chance.randint(2, 4), (*lines, ("land", "", ())))


PIECE = piece(
    number="M.6",
    title="written after it was given back",
    broken=finish,
    mended=_mended,
    trials=_overlaps,
    convicted_by="law 2",
    hints=(
        "A step that was launched has been told its slots. The next owner of those pages shares them with it.",
        "`in_flight` lists the sequences to which the running step still writes. `later` is emptied when it has "
        "landed: each sequence in it is ended then.",
        "If the sequence is in flight, put it into `later`; if not, end it now, for its pages are wanted.",
    ),
)
