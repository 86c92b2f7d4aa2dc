"""Wrong answers to the exercises of chapter 10."""

from kvpaged import mini
from kvpaged.mini import OutOfPages, begin, end, release


def continuous(engine):
    return mini.schedule(engine)


def one_at_a_time(engine):
    waiting = engine.waiting
    engine.waiting = [] if engine.running else waiting[:1]
    rest = waiting if engine.running else waiting[1:]
    chunks = mini.schedule(engine)
    engine.waiting += rest
    return chunks


def nothing_while_somebody_runs(engine):
    return [] if engine.running else mini.schedule(engine)


def in_order_of_arrival(requests, budget):
    batch = {}
    for name, request in requests.items():
        count = min(budget, request["known"] - request["computed"])
        if count:
            batch[name] = count
            budget -= count
    return batch


def whole_prompts_only(requests, budget):
    batch = {}
    for name, request in sorted(requests.items(), key=lambda each: each[1]["known"] - each[1]["computed"] != 1):
        count = request["known"] - request["computed"]
        if 0 < count <= budget:
            batch[name] = count
            budget -= count
    return batch


def those_without_any_too(requests, budget):
    behind = {name: request["known"] - request["computed"] for name, request in requests.items()}
    batch = {}
    for name in sorted(behind, key=lambda name: behind[name] > 1):
        batch[name] = min(budget, behind[name])
        budget -= batch[name]
    return batch


def decodes_for_free(requests, budget):
    behind = {name: request["known"] - request["computed"] for name, request in requests.items()}
    batch = {name: 1 for name, count in behind.items() if count == 1}
    for name, count in behind.items():
        if count > 1 and budget:
            batch[name] = min(budget, count)
            budget -= batch[name]
    return batch


def the_first(engine):
    request = engine.running.pop(0)
    end(request.sequence)
    request.sequence = None
    engine.waiting.insert(0, request)


def to_the_end_of_the_queue(engine):
    request = engine.running.pop()
    end(request.sequence)
    request.sequence = None
    engine.waiting.append(request)


def keeping_its_pages(engine):
    request = engine.running.pop()
    request.sequence = None
    engine.waiting.insert(0, request)


def leaving_nothing_to_the_trie(engine):
    request = engine.running.pop()
    for page in reversed(request.sequence.page_table):
        release(engine.cache.pool, page)
    request.sequence = None
    engine.waiting.insert(0, request)


def forgetting_its_words(engine):
    request = engine.running.pop()
    end(request.sequence)
    request.sequence, request.output = None, []
    engine.waiting.insert(0, request)


def right_guesses_only(guesses, said, eos):
    gained = []
    for guess, token in zip(guesses, said, strict=False):
        if guess != token:
            break
        gained.append(token)
    return gained


def wherever_they_agree(guesses, said, eos):
    return [token for guess, token in zip(guesses, said, strict=False) if guess == token] + said[-1:]


def past_the_end(guesses, said, eos):
    right = [*(guess == token for guess, token in zip(guesses, said, strict=False)), False].index(False)
    return said[: right + 1]


def the_wrong_guess(guesses, said, eos):
    right = [*(guess == token for guess, token in zip(guesses, said, strict=False)), False].index(False)
    gained = guesses[: right + 1] or said[:1]
    return gained[: gained.index(eos) + 1] if eos in gained else gained


def each_second(engine):
    for request in engine.waiting:
        try:
            request.sequence = begin(engine.cache, request.prompt + request.output)
        except OutOfPages:
            break
        engine.waiting.remove(request)
        engine.running.append(request)


def overtaking(engine):
    for request in [*engine.waiting]:
        try:
            request.sequence = begin(engine.cache, request.prompt + request.output)
        except OutOfPages:
            continue
        engine.waiting.remove(request)
        engine.running.append(request)


def from_its_prompt_alone(engine):
    for request in [*engine.waiting]:
        try:
            request.sequence = begin(engine.cache, request.prompt)
        except OutOfPages:
            break
        engine.waiting.remove(request)
        engine.running.append(request)


def never_leaving_the_queue(engine):
    for request in [*engine.waiting]:
        try:
            request.sequence = begin(engine.cache, request.prompt + request.output)
        except OutOfPages:
            break
        engine.running.append(request)


WRONG = {
    "10.2": [
        (continuous, "who computes how many tokens, step by step"),
        (one_at_a_time, "who computes how many tokens, step by step"),
        (nothing_while_somebody_runs, "who computes how many tokens, step by step"),
    ],
    "10.5": [
        (in_order_of_arrival, "the batch"),
        (whole_prompts_only, "the batch"),
        (those_without_any_too, ": 0"),
        (decodes_for_free, "the batch"),
    ],
    "10.6": [
        (the_first, "running"),
        (to_the_end_of_the_queue, "waiting"),
        (keeping_its_pages, "the trie (path, page)"),
        (leaving_nothing_to_the_trie, "the trie (path, page)"),
        (forgetting_its_words, "what each has said"),
    ],
    "10.7": [
        (right_guesses_only, "gained"),
        (wherever_they_agree, "gained"),
        (past_the_end, "gained"),
        (the_wrong_guess, "gained"),
    ],
    "10.8": [
        (each_second, "waiting"),
        (overtaking, "running"),
        (from_its_prompt_alone, "tokens of the sequences"),
        (never_leaving_the_queue, "waiting"),
    ],
}
