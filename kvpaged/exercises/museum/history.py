"""A random history of the small engine's memory: texts begin, grow, fork and end; a judge looks after each line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Function
from kvpaged.exercises.museum.in_place import in_place_of
from kvpaged.exercises.museum.judge import check_write, judge, text_up_to
from kvpaged.exercises.museum.played import Played, told
from kvpaged.exercises.small_cache import Slots


@dataclass(frozen=True)
class Line:
    """One thing that happens: `name = verb(of, tokens)`, as far as it applies."""

    verb: str
    name: str
    tokens: tuple[int, ...] = ()
    other: Any = None  # of begin: a salt; of fork: whose fork it is

    def __str__(self) -> str:
        if self.verb == "begin":
            salted = f", cache_salt={self.other!r}" if self.other is not None else ""
            return f"{self.name} = begin({[*self.tokens]}{salted})"
        if self.verb == "fork":
            return f"{self.name} = fork({self.other})"
        return f"{self.verb}({', '.join([self.name, *map(str, self.tokens)])})"


@dataclass(frozen=True)
class History:
    """What happens, whatever stands in the place of one of the small engine's functions."""

    replaced: str  # the name of that function
    num_pages: int
    page_size: int
    lines: tuple[Line, ...]

    def words(self, steps: int | None = None) -> str:
        """The lines (or the first so many), below the size of the pool."""
        return told(self.num_pages, self.page_size, map(str, self.lines[:steps]))

    def play(self, function: Function) -> Played:
        """Let it happen, until the end or until the judge objects."""
        cache = mini.Cache(self.num_pages, self.page_size, Slots(self.num_pages, self.page_size))
        world, played = _World(cache, {}), Played(cache, ("tokens found", "without room"))
        with in_place_of(self.replaced, function):
            for line in self.lines:
                played.steps += 1
                try:
                    world.happen(line, played)
                    judge(cache, world.live)
                except mini.OutOfPages:
                    played.counted["without room"].append(str(line))
                except AssertionError as objection:
                    played.objection = f"line {played.steps}, `{line}`: {objection}"
                    break
        played.live = world.live
        return played


@dataclass
class _World:
    cache: mini.Cache
    live: dict[str, Any]

    def happen(self, line: Line, played: Played) -> None:
        """One line. What did not begin has no further lines."""
        name = line.name
        if line.verb == "begin":
            begun = mini.begin(self.cache, [*line.tokens], line.other)
            self.live[name] = begun
            played.counted["tokens found"].append(f"{name} {begun.num_cached_tokens}")
            if begun.num_computed == len(begun.tokens):
                raise AssertionError(
                    f"{name} has nothing to compute: no query, so nothing to choose its next token from"
                )
        elif line.verb == "fork" and line.other in self.live:
            self.live[name] = mini.fork(self.live[line.other])
        elif name not in self.live:
            return
        elif line.verb == "append":
            mini.append(self.live[name], *line.tokens)
        elif line.verb == "compute":
            sequence = self.live[name]
            write(self.cache, name, sequence, sequence.num_computed, len(sequence.tokens))
            mini.mark_computed(sequence, len(sequence.tokens))
        else:
            mini.end(self.live.pop(name))


def write(cache: mini.Cache, name: str, sequence: mini.Sequence, start: int, stop: int) -> None:
    """Write what stands for K and V of tokens start to stop - 1 where the slot mapping says."""
    slots = mini.slots_of(sequence.page_table, cache.page_size, start, stop)
    for index, slot in zip(range(start, stop), slots, strict=True):
        check_write(cache, name, sequence, slot)
        page, at = divmod(slot, cache.page_size)
        cache.storage.pages[page][at] = text_up_to(sequence, index)


def histories(
    replaced: str,
    vocabulary: tuple[int, ...] = (0, 1),
    salts: tuple[Any, ...] = (None,),
    computed_at_once: float = 0.85,
    page_sizes: tuple[int, ...] = (1, 2, 2, 3),
    pool_sizes: tuple[int, ...] = (2, 3, 3, 4, 6),
    verbs: tuple[str, ...] = ("begin", "begin", "append", "append", "end", "fork"),
    beginnings: tuple[tuple[int, ...], ...] = ((),),
) -> Callable[[Random, int], History]:
    """Makes random histories of a given size: so many texts begin, grow, fork or end.

    computed_at_once: how often what has just got its slots is computed before anything else happens. beginnings: how
    the first texts begin; later ones begin like any before them.
    """

    def make(chance: Random, size: int) -> History:
        page_size, num_pages = chance.choice(page_sizes), chance.choice(pool_sizes)
        names = iter("ABCDEFGHIJKLMNOP")
        lines: list[Line] = []
        waiting: dict[str, bool] = {}  # live texts: has one tokens that are not computed?
        said = [*beginnings]
        for _ in range(size + 1):
            verb = chance.choice(verbs) if waiting else "begin"
            name = chance.choice([*waiting]) if waiting else ""
            if verb == "fork" and waiting[name]:
                verb = "append"
            if verb == "begin":
                name = next(names)
                known = chance.choice(said)
                length = chance.randint(1, max(1, min(2 * page_size + 1, num_pages * page_size - 1)))
                tokens = (*known, *(chance.choice(vocabulary) for _ in range(length)))[:length]
                lines.append(Line("begin", name, tokens, chance.choice(salts)))
                said.append(tokens)
                waiting[name] = True
            elif verb == "fork":
                lines.append(Line("fork", new := next(names), other=name))
                waiting[new] = False
            elif verb == "append":
                lines.append(Line("append", name, (chance.choice(vocabulary),)))
                waiting[name] = True
            else:
                lines.append(Line("end", name))
                del waiting[name]
            if waiting.get(name) and chance.random() < computed_at_once:
                lines.append(Line("compute", name))
                waiting[name] = False
        return History(replaced, num_pages, page_size, tuple(lines))

    return make
