"""An engine's scheduler without a model: requests made by hand, and what a pass would do to them."""

from collections.abc import Hashable, Sequence

from kvpaged import EventLog, PagedKVCache
from kvpaged.engine import Params, SamplingParams
from kvpaged.engine.batch import Chunk
from kvpaged.engine.metrics import Counters
from kvpaged.engine.request import Branch, Request
from kvpaged.engine.scheduler import Scheduler

GREEDY = SamplingParams(temperature=0, ignore_eos=True)


def new_scheduler(
    num_pages: int = 32,
    page_size: int = 4,
    *,
    budget: int = 64,
    seats: int = 8,
    guesses: int = 0,
    prefix_caching: bool = True,
) -> Scheduler:
    cache = PagedKVCache(num_pages, page_size, prefix_caching, events=EventLog())
    return Scheduler(cache, Counters(), budget, seats, guesses)


def new_request(
    number: int,
    prompt: Sequence[int] = (1, 2, 3),
    params: Params = GREEDY,
    max_tokens: int = 20,
    cache_salt: Hashable = None,
) -> Request:
    return Request(number, number, None, list(prompt), params, frozenset(), max_tokens, cache_salt, None)


def waiting(scheduler: Scheduler, *requests: Request) -> list[Branch]:
    """Let requests wait; their branches."""
    for request in requests:
        scheduler.wait(request.branches[0])
    return [request.branches[0] for request in requests]


def compute(chunks: Sequence[Chunk], token: int = 9) -> None:
    """What a pass and its end do to the branches: mark, and give a token to who has computed everything."""
    for branch, _, stop, num_drafts in chunks:
        assert branch.sequence is not None
        branch.sequence.truncate(len(branch.sequence) - num_drafts)
        branch.sequence.mark_computed(min(stop, len(branch.sequence)))
        if branch.sequence.num_computed == len(branch.sequence):
            branch.output.append(token)


def spans(chunks: Sequence[Chunk]) -> list[tuple[int, int, int]]:
    """Who computes from where to where."""
    return [(branch.request.id, start, stop) for branch, start, stop, _ in chunks]
