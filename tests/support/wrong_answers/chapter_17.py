"""Wrong answers to the exercises of chapter 17."""

from kvpaged import mini


def follow_events(events, held):
    """What is wrong with the events of a batch, if anything."""
    for kind, *about in events:
        if kind == "cleared":
            held.clear()
        elif kind == "stored":
            if about[1] is not None and about[1] not in held:
                return "no parent", about[0]
            held.add(about[0])
        elif about[0] not in held:
            return "not there", about[0]
        else:
            held.remove(about[0])
    return None


def blind_to_numbers(batches):
    held = set()
    for _, events in batches:
        if wrong := follow_events(events, held):
            return wrong
    return held


def deaf_to_snapshots(batches):
    held = set()
    for due, (number, events) in enumerate(batches):
        if number != due:
            return "not the next", number
        if wrong := follow_events(events, held):
            return wrong
    return held


def counting_the_batches_it_read(batches):
    held = set()
    for due, (number, events) in enumerate(batches):
        if number != due and events[:1] != [("cleared",)]:
            return "not the next", number
        if wrong := follow_events(events, held):
            return wrong
    return held


def content_with_whatever_is_removed(batches):
    held, due = set(), 0
    for number, events in batches:
        if number != due and events[:1] != [("cleared",)]:
            return "not the next", number
        due = number + 1
        for kind, *about in events:
            if kind == "removed":
                held.discard(about[0])
            elif wrong := follow_events([(kind, *about)], held):
                return wrong
    return held


def adopting_orphans(batches):
    held, due = set(), 0
    for number, events in batches:
        if number != due and events[:1] != [("cleared",)]:
            return "not the next", number
        due = number + 1
        free = [(kind, about[0], None) if kind == "stored" else (kind, *about) for kind, *about in events]
        if wrong := follow_events(free, held):
            return wrong
    return held


def owning_nothing(pool, pages, copy):
    return [copy(page) for page in pages]


def one_at_a_time(pool, pages, copy):
    sent = []
    for page in pages:
        mini.share(pool, page)
        try:
            sent.append(copy(page))
        finally:
            mini.release(pool, page)
    return sent


def leaking_when_a_copy_fails(pool, pages, copy):
    for page in pages:
        mini.share(pool, page)
    sent = [copy(page) for page in pages]
    for page in pages:
        mini.release(pool, page)
    return sent


def leaking_those_whose_turn_has_not_come(pool, pages, copy):
    for page in pages:
        mini.share(pool, page)
    sent = []
    for page in pages:
        try:
            sent.append(copy(page))
        finally:
            mini.release(pool, page)
    return sent


def swallowing_the_error(pool, pages, copy):
    sent = []
    for page in pages:
        mini.share(pool, page)
    try:
        for page in pages:
            sent.append(copy(page))
    except OSError:
        pass
    for page in pages:
        mini.release(pool, page)
    return sent


WRONG = {
    "17.7": [
        (blind_to_numbers, "not the next"),
        (deaf_to_snapshots, "not the next"),
        (counting_the_batches_it_read, "not the next"),
        (content_with_whatever_is_removed, "not there"),
        (adopting_orphans, "no parent"),
    ],
    "17.8": [
        (owning_nothing, "a stranger's"),
        (one_at_a_time, "nobody can share it"),
        (leaking_when_a_copy_fails, "owners of each page afterwards"),
        (leaking_those_whose_turn_has_not_come, "owners of each page afterwards"),
        (swallowing_the_error, "it raised"),
    ],
}
