"""How many pages branches of one prompt save by sharing: Figure 15 of the paper (Kwon et al. 2023, section 6.3).

Real forks and real copies on write, on bookkeeping alone. One request at a time, since no request shares with another.
"""

import random
from collections.abc import Callable, Iterable

from kvpaged.cache import PagedKVCache
from kvpaged.page_table import pages_for
from kvpaged.sequence import Sequence

Step = Callable[[list[Sequence]], list[Sequence]]


def parallel_sampling(lengths: Iterable[tuple[int, int]], samples: int, page_size: int = 16) -> float:
    """The share of pages saved, over all steps, when each prompt has so many outputs that part at once."""
    return _saved(lengths, samples, page_size, lambda branches: branches)


def beam_search(lengths: Iterable[tuple[int, int]], width: int, page_size: int = 16, seed: int = 0) -> float:
    """The same for beams, of which each continues one of the last step's, drawn at random; who has no child ends.

    Which beam is continued depends on the model. That all are equally likely is our assumption.
    """
    rng = random.Random(seed)

    def choose(beams: list[Sequence]) -> list[Sequence]:
        parents = [rng.choice(beams) for _ in beams]
        for beam in set(beams).difference(parents):
            beam.release()
        return [parent.fork() if parent in parents[:index] else parent for index, parent in enumerate(parents)]

    return _saved(lengths, width, page_size, choose)


def _saved(lengths: Iterable[tuple[int, int]], branches: int, page_size: int, step: Step) -> float:
    used = unshared = 0
    for prompt, output in lengths:
        cache = PagedKVCache(branches * (pages_for(prompt + output, page_size) + 1), page_size, prefix_caching=False)
        first = cache.sequence([0] * prompt)
        first.mark_computed()
        sequences = [first, *(first.fork() for _ in range(branches - 1))]
        for _ in range(output - 1):
            sequences = step(sequences)
            for sequence in sequences:
                sequence.append(0)
                sequence.mark_computed()
            used += cache.pool.num_used
            unshared += sum(len(sequence.table.page_ids) for sequence in sequences)
    return 1 - used / unshared if unshared else 0.0
