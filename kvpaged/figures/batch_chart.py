"""A batch over steps: which requests run in each forward pass, with how many tokens; which wait or are preempted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kvpaged.events import Event, EventKind
from kvpaged.figures.language import owner_colour, owner_name, ranges
from kvpaged.figures.picture import Picture
from kvpaged.figures.svg import hatch, label, mark, rect, text_width
from kvpaged.wording import count_of

_WIDTH, _LEFT, _ROW, _TOP = 740, 40, 26, 20


@dataclass
class _Step:
    """One forward pass: tokens computed for each request; who prefills, waits, or was sent back."""

    computed: Counter[int] = field(default_factory=Counter)
    prefilled: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    preempted: set[int] = field(default_factory=set)


def batch_chart(events: Iterable[Event]) -> Picture:
    """Draw an engine's log: a row for each request, a column for each forward pass.

    A full cell computes several tokens of a sequence (prefill, with their number), a half cell one (decode); hatching
    waits, a cross was preempted. Raises ValueError for a log without forward passes.
    """
    steps = _steps(events)
    if not steps:
        raise ValueError("the log has no forward passes (events of kind 'step'); hand in the log of an engine")
    requests = sorted({request for step in steps for request in [*step.computed, *step.waiting, *step.preempted]})
    cell = min(30.0, (_WIDTH - _LEFT - 4) / len(steps))
    drawn, hatches = [], []
    for row, request in enumerate(requests):
        y, colour = _TOP + row * _ROW, owner_colour(request)
        drawn.append(rect(2, y + 2, 24, 18, rx=4, fill=colour))
        drawn.append(label(14, y + 11.5, owner_name(request), class_="m b o"))
        for column, step in enumerate(steps):
            x, tokens = _LEFT + column * cell, step.computed[request]
            width = cell - min(2.0, cell / 4)
            if tokens:
                height = 20 if request in step.prefilled else 9
                drawn.append(rect(x, y + 21 - height, width, height, fill=colour))
            if request in step.prefilled and text_width(str(tokens), 10) <= width:
                drawn.append(label(x + width / 2, y + 11.5, str(tokens), class_="m s o"))
            if request in step.preempted:
                drawn.append(label(x + width / 2, y + 11.5, "✕", class_="m b"))
            elif request in step.waiting and not tokens:
                hatches.append(hatch(x, y + 4, width, 14))
    bottom = _TOP + len(requests) * _ROW
    every = next(each for each in (1, 2, 5, 10, 20, 50, 100, 1000) if each * cell >= 28)
    for column in range(0, len(steps), every):
        x = _LEFT + column * cell + cell / 2
        drawn.append(label(x, 9, str(column + 1), class_="m s d"))
        drawn.append(label(x, bottom + 9, str(steps[column].computed.total()), class_="m s d"))
    drawn.append(label(2, 9, "step", class_="s d"))
    drawn.append(label(2, bottom + 9, "tokens", class_="s d"))
    drawn.append(mark("path", d="".join(hatches), class_="h") if hatches else "")
    width = max(_LEFT + len(steps) * cell + 4, 200)
    return Picture("".join(drawn), width, bottom + 20, _describe(steps, requests))


def _steps(events: Iterable[Event]) -> list[_Step]:
    steps, now = [], _Step()
    request_of: dict[int, int] = {}
    computed: dict[int, int] = {}
    waiting: set[int] = set()
    for kind, sequence, _, _, number in events:
        if kind == "queue":
            waiting.add(number)
        elif kind == "finish":
            waiting.discard(number)
        elif kind == "step":
            now.waiting |= waiting
            steps.append(now)
            now = _Step()
        if sequence is None:
            continue
        if kind == EventKind.BEGIN:
            computed[sequence] = number
        elif kind == "admit":
            request_of[sequence] = number
            waiting.discard(number)
        elif kind == EventKind.FORK:
            computed[number] = computed[sequence]
            if sequence in request_of:
                request_of[number] = request_of[sequence]
        elif kind == EventKind.TRUNCATE:
            computed[sequence] = min(computed[sequence], number)
        elif kind == EventKind.COMPUTE:
            if sequence in request_of:
                now.computed[request_of[sequence]] += number - computed[sequence]
                if number - computed[sequence] > 1:
                    now.prefilled.add(request_of[sequence])
            computed[sequence] = number
        elif kind == "preempt":
            waiting.add(number)
            now.preempted.add(number)
    return steps


def _describe(steps: list[_Step], requests: list[int]) -> str:
    words = [f"{count_of(len(requests), 'request')} over {count_of(len(steps), 'step')}, each a forward pass."]
    numbered = list(enumerate(steps, start=1))
    for request in requests:
        runs = [number for number, step in numbered if step.computed[request]]
        waits = [number for number, step in numbered if request in step.waiting and not step.computed[request]]
        sent_back = [number for number, step in numbered if request in step.preempted]
        tokens = sum(step.computed[request] for step in steps)
        sentence = f"{owner_name(request)} computes {count_of(tokens, 'token')} in steps {ranges(runs)}"
        sentence += f", waits in {ranges(waits)}" if waits else ""
        sentence += f", is preempted in {ranges(sent_back)}" if sent_back else ""
        words.append(sentence + ".")
    return " ".join(words)
