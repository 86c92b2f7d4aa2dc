"""Who is who in a log: a sequence is named after itself, or after the request it runs for."""

from collections.abc import Iterable

from kvpaged.events import Event, EventKind
from kvpaged.figures.language import owner_name

ADMIT, QUEUE = "admit", "queue"  # what kvpaged.engine adds to the log


def request_names(events: Iterable[Event]) -> dict[int, str]:
    """Name the requests of an engine's log by their letters."""
    return {event.number: owner_name(event.number) for event in events if event.kind in (ADMIT, QUEUE)}


def sequence_names(events: Iterable[Event]) -> dict[int, str]:
    """Name every sequence of a log.

    In an engine's log a sequence has the letter of its request, and so has the one that takes its place after a
    preemption; where several live at once (n > 1, beams) they are A, A2, A3. In other logs each has its own letter.
    """
    log = list(events)
    request_of = {event.sequence: event.number for event in log if event.kind == ADMIT}
    names: dict[int, str] = {}
    live: dict[int, tuple[int | None, int]] = {}  # sequence -> its request, and its number within the request
    for event in log:
        if event.sequence is None:
            continue
        if event.kind == EventKind.RELEASE:
            live.pop(event.sequence, None)
        if event.kind not in (EventKind.BEGIN, EventKind.FORK):
            continue
        born = event.number if event.kind == EventKind.FORK else event.sequence
        parent = live.get(event.sequence, (None, 0))[0] if event.kind == EventKind.FORK else None
        request = request_of.get(born, parent)
        if request is None:
            names[born] = owner_name(born)
            continue
        taken = {number for owner, number in live.values() if owner == request}
        number = next(each for each in range(1, len(taken) + 2) if each not in taken)
        live[born] = request, number
        names[born] = owner_name(request) + (str(number) if number > 1 else "")
    return names
