"""Chapter 10, serving many requests: who computes what, who is let in, who gives way, and which guesses are kept."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, Seen
from kvpaged.exercises.small_cache import compute, draw_memory, memory, see_pool, see_trie
from kvpaged.figures.picture import Picture
from kvpaged.wording import count_of

_LETTERS = "ABCDEFGHIJK"
_MOST_STEPS = 300


def _steps(chance: Random) -> Question:
    """The toy scheduler of the chapter: when each request says its first token, and when all are done."""
    budget = chance.randint(6, 16)
    lengths = {name: (chance.randint(3, 24), chance.randint(2, 5)) for name in "ABC"}
    known = {name: prompt for name, (prompt, _) in lengths.items()}
    computed, first, step = dict.fromkeys(lengths, 0), dict[str, int](), 0
    while known:
        step, left = step + 1, budget
        for name in [*known]:
            count = min(left, known[name] - computed[name])
            computed[name], left = computed[name] + count, left - count
            if count and computed[name] == known[name]:
                known[name] += 1
                first.setdefault(name, step)
                if known[name] == sum(lengths[name]):
                    del known[name]
    told = ", ".join(f"{name} {prompt} and {output}" for name, (prompt, output) in lengths.items())
    words = (
        f"In the toy scheduler, with a budget of {budget}: of prompt and output, {told} tokens. All are there from the "
        "start. In which step does A say its first token, in which B, in which C, and in which is the last token said?"
    )
    return Question(words, (*(first[name] for name in "ABC"), step))


def _batches(chance: Random, size: int) -> Case:
    """Requests in order of arrival, some of which decode, and a budget."""
    requests = {}
    for name in _LETTERS[: (size + 1) // 2 + 1]:
        computed, behind = chance.randint(0, 2 * size), chance.choice([0, 1, 1, chance.randint(2, 2 * size)])
        requests[name] = {"known": computed + behind, "computed": computed}
    budget = chance.randint(1, 2 * size)

    def run(next_batch: Function) -> Seen:
        given = {name: dict(request) for name, request in requests.items()}
        return {"the batch": next_batch(given, budget), "the requests afterwards": given}

    missing = ", ".join(f"{name} {each['known'] - each['computed']}" for name, each in requests.items())
    return Case(f"`next_batch(requests, {budget})`, where so many known tokens are not computed: {missing}", run)


def _next_batch(requests: dict[str, dict[str, int]], budget: int) -> dict[str, int]:
    behind = {name: request["known"] - request["computed"] for name, request in requests.items()}
    batch = {}
    for name in sorted(behind, key=lambda name: behind[name] != 1):
        count = min(budget, behind[name])
        if count:
            batch[name], budget = count, budget - count
    return batch


class _Server:
    """An engine without a model. Its requests have letters, and words of their own."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.engine = SimpleNamespace(cache=memory(num_pages, page_size), running=[], waiting=[])
        self.names: dict[str, Any] = {}

    def come(self, prompt: list[int], output: list[int]) -> Any:
        """A request that has said something."""
        request = mini.Request([*prompt], 20)
        request.output = [*output]
        self.names[_LETTERS[len(self.names)]] = request
        return request

    def run(self, prompt: list[int], output: list[int], num_computed: int) -> None:
        """A request that runs."""
        request = self.come(prompt, output)
        request.sequence = mini.begin(self.engine.cache, prompt + output)
        found = request.sequence.num_computed
        mini.mark_computed(request.sequence, max(num_computed, found))
        compute(request.sequence, found, request.sequence.num_computed)
        self.engine.running.append(request)

    def wait(self, prompt: list[int], output: list[int]) -> None:
        """A request that waits."""
        self.engine.waiting.append(self.come(prompt, output))

    def serve(self, schedule: Function, coming: list[tuple[int, int, int]]) -> list[dict[str, int]]:
        """Serve requests (step of arrival, tokens of prompt and output); who computes how much in each step."""
        steps: list[dict[str, int]] = []
        coming = [*coming]
        while (coming or self.engine.running or self.engine.waiting) and len(steps) < _MOST_STEPS:
            while coming and coming[0][0] <= len(steps) + 1:
                _, prompt, output = coming.pop(0)
                self.wait([*range(10 * len(self.names), 10 * len(self.names) + prompt)], [])
                self.engine.waiting[-1].max_tokens = output
            chunks = schedule(self.engine)
            letters = {request: name for name, request in self.names.items()}
            steps.append({letters[request]: stop - start for request, start, stop in chunks})
            for request, _, stop in chunks:
                mini.mark_computed(request.sequence, stop)
                if not mini.missing(request):
                    request.output.append(100 + len(request.output))
                    if len(request.output) == request.max_tokens:
                        mini.end(request.sequence)
                        self.engine.running.remove(request)
            if not chunks and not coming:
                break  # for ever
        return steps

    def see(self) -> Seen:
        """Who runs on which tokens, who waits, what each has said; the pool and the trie."""
        letters = {request: name for name, request in self.names.items()}
        sequences = {name: each.sequence for name, each in self.names.items()}
        return (
            {
                "running": [letters.get(each, "?") for each in self.engine.running],
                "waiting": [letters.get(each, "?") for each in self.engine.waiting],
                "tokens of the sequences": {name: each.tokens if each else None for name, each in sequences.items()},
                "prompts": {name: each.prompt for name, each in self.names.items()},
                "what each has said": {name: each.output for name, each in self.names.items()},
            }
            | see_pool(self.engine.cache)
            | see_trie(self.engine.cache)
        )

    def draw(self) -> Picture:
        """The pages of those that run."""
        mine = {name: each.sequence for name, each in self.names.items() if each in self.engine.running}
        return draw_memory(self.engine.cache, {name: sequence for name, sequence in mine.items() if sequence})


def _some_words(chance: Random, least: int, most: int) -> list[int]:
    return [chance.randint(1, 3) for _ in range(chance.randint(least, most))]


def _arrivals(chance: Random, size: int) -> Case:
    """Requests that come one after another, served to their ends."""
    page_size, budget = chance.randint(2, 4), chance.randint(2, 4 + size)
    number = 1 + (size + 1) // 2
    coming = [(chance.randint(1, 2 * size), chance.randint(1, size + 2), chance.randint(1, 3)) for _ in range(number)]
    coming.sort()
    largest = max(mini.pages_for(prompt + output, page_size) for _, prompt, output in coming)
    num_pages = largest + chance.randint(0, size)

    def run(schedule: Function) -> Seen:
        server = _Server(num_pages, page_size)
        server.engine.budget = budget
        return {"who computes how many tokens, step by step": server.serve(schedule, coming)}

    told = [f"{name} in step {each[0]} ({each[1]} and {each[2]})" for name, each in zip(_LETTERS, coming, strict=False)]
    pool = f"{count_of(num_pages, 'page')} of {page_size}, budget {budget}"
    return Case(f"`schedule(engine)`, {pool}; there come (tokens of prompt and output) {', '.join(told)}", run)


def _schedule(engine: Any) -> list[Any]:
    for request in [*engine.running]:
        while request.sequence and not mini.missing(request):
            try:
                mini.append(request.sequence, request.output[-1])
            except mini.OutOfPages:
                mini.preempt(engine)
    if not engine.running:
        _admit(engine)
    chunks, budget = [], engine.budget
    for request in sorted(engine.running, key=lambda r: not r.output or mini.missing(r) > 1):
        start, count = request.sequence.num_computed, min(budget, mini.missing(request))
        chunks += [(request, start, start + count)] if count else []
        budget -= count
    return chunks


def _preemptions(chance: Random, size: int) -> Case:
    """Requests that run, and others that wait."""
    page_size = chance.randint(2, 4)
    runs = []
    for _ in range(chance.randint(1, 1 + size // 2)):
        prompt, output = _some_words(chance, 1, size + 1), _some_words(chance, 0, size // 2)
        runs.append((prompt, output, chance.randint(0, len(prompt + output))))
    waits = [(_some_words(chance, 1, size), _some_words(chance, 0, 1)) for _ in range(chance.randint(0, size // 2))]
    enough = sum(mini.pages_for(len(prompt + output), page_size) + 1 for prompt, output, _ in runs)

    def build() -> _Server:
        server = _Server(enough, page_size)
        for running in runs:
            server.run(*running)
        for waiting in waits:
            server.wait(*waiting)
        return server

    def run(preempt: Function) -> Drawn:
        server = build()
        preempt(server.engine)
        return Drawn(server.see(), lambda: {"the pages before": build().draw(), "the pages after": server.draw()})

    who, told = build().names, []
    for name, each in [*who.items()][: len(runs)]:
        told.append(f"{name} {each.prompt} + {each.output} ({each.sequence.num_computed} computed)")
    waiting = ", ".join([*who][len(runs) :]) or "nobody"
    words = f"`preempt(engine)`, pages of {page_size}; running, prompt + output: {', '.join(told)}; waiting: {waiting}"
    return Case(words, run)


def _preempt(engine: Any) -> None:
    mini.preempt(engine)


def _guesses(chance: Random, size: int) -> Case:
    """Guesses, and what the model says behind each."""
    said = [chance.randint(1, 4) for _ in range(chance.randint(1, size + 1))]
    right = chance.randint(0, len(said) - 1)
    guesses = said[:right] + [chance.randint(0, 4) for _ in range(len(said) - 1 - right)]
    if chance.random() < 0.4:
        said[chance.randrange(len(said))] = 0

    def run(accept: Function) -> Seen:
        mine, models = [*guesses], [*said]
        return {"gained": accept(mine, models, 0), "the guesses afterwards": mine, "what was said afterwards": models}

    return Case(f"`accept({guesses}, {said}, eos=0)`", run)


def _accept(guesses: list[int], said: list[int], eos: int) -> list[int]:
    gained = []
    for index, token in enumerate(said):
        gained.append(token)
        if token == eos or index == len(guesses) or guesses[index] != token:
            break
    return gained


def _admissions(chance: Random, size: int) -> Case:
    """Requests that wait, some of which were preempted, and few pages."""
    page_size, num_pages, number = chance.randint(2, 4), chance.randint(1, 1 + size), 1 + chance.randint(0, size // 2)
    waits = [(_some_words(chance, 1, size + 2), _some_words(chance, 0, size // 2)) for _ in range(number)]

    def build() -> _Server:
        server = _Server(num_pages, page_size)
        for each in waits:
            server.wait(*each)
        return server

    def run(admit: Function) -> Drawn:
        server = build()
        admit(server.engine)
        return Drawn(server.see(), lambda: {"the pages after": server.draw()})

    waiting = ", ".join(f"{name} {each.prompt} + {each.output}" for name, each in build().names.items())
    words = f"`admit(engine)`, {count_of(num_pages, 'page')} of {page_size}, waiting (prompt + output): {waiting}"
    return Case(words, run)


def _admit(engine: Any) -> None:
    for request in [*engine.waiting]:
        try:
            request.sequence = mini.begin(engine.cache, request.prompt + request.output)
        except mini.OutOfPages:
            break
        engine.waiting.remove(request)
        engine.running.append(request)


EXERCISES = (
    Predict(
        number="10.1",
        title="first tokens, and the last",
        instance=_steps,
        hints=(
            "Write the budget's split down for each step. The toy deals it out in order of arrival: A first.",
            "A prompt that is computed to its end says its first token in the same step; from then on it asks for one "
            "token a step, and of n tokens of output, n - 1 are ever computed.",
        ),
    ),
    Build(
        number="10.2",
        name="schedule",
        title="a static scheduler",
        cases=_arrivals,
        reference=_schedule,
        hints=(
            "One line of `schedule` decides who is looked at among those who wait.",
            "Look once, before anybody is let in: the first of a batch must not keep the others out.",
        ),
    ),
    Build(
        number="10.5",
        name="next_batch",
        title="those that decode first, then prompts in chunks",
        cases=_batches,
        reference=_next_batch,
        against="a few lines that cannot be wrong",
        hints=(
            "A request decodes if just one of its known tokens is not computed. Go through the requests twice, or sort "
            "them so that those come first.",
            "Python's `sorted` leaves what is equal in its order, and False comes before True.",
            "Take what is left of the budget down each time, and leave out who gets nothing.",
        ),
    ),
    Build(
        number="10.6",
        name="preempt",
        title="the last who came gives way",
        cases=_preemptions,
        reference=_preempt,
        hints=(
            "Who came last is the last of `engine.running`. It must be in line before all that wait.",
            "`end(sequence)` gives the pages back, and leaves what was computed to the trie.",
            "What it has said stays in `request.output`, and its prompt as it was; only `request.sequence` is None.",
        ),
    ),
    Build(
        number="10.7",
        name="accept",
        title="which guesses are kept",
        cases=_guesses,
        reference=_accept,
        against="a few lines that cannot be wrong",
        hints=(
            "`said[0]` is certain: it follows the last known token. `said[1]` follows the first guess, so it counts "
            "only if that guess was right.",
            "If all guesses are right, there is one token more than guesses.",
            "After the end sign nothing is said, no matter who guessed it.",
        ),
    ),
    Build(
        number="10.8",
        kind="debug",
        name="admit",
        title="let nobody overtake, and nobody forget",
        cases=_admissions,
        reference=_admit,
        hints=(
            "A preempted request has said something. When it begins again, that is a part of its prompt.",
            "What happens to a `for` loop over a list from which its body removes?",
            "A request that finds no room keeps the younger ones waiting too: else a long one may wait for ever.",
        ),
    ),
)
