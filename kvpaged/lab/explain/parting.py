"""Where requests part from those that they resemble most, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from kvpaged.lab.explain.prefix_tree import Added, TreeNode
from kvpaged.lab.explain.verdict import Verdict
from kvpaged.lab.trace import Trace

_WORDS = 6  # units shown on each side


@dataclass
class Parting:
    """A place where requests part from their nearest relatives: what they have in common ends here.

    What follows was seen before in other requests, but behind this it cannot be found. The example is the request that
    loses most by it.
    """

    tokens: int  # in common
    requests: int  # that part here
    lost: int  # tokens behind it that were seen before
    request: str  # the example
    relative: str | None  # from which it parts; None if it begins like no other
    before: str = ""  # the last words in common; empty for a trace of blocks
    after: str = ""  # the next words of the example
    relative_after: str = ""  # and those of its relative


def find_partings(trace: Trace, added: list[Added], verdicts: list[Verdict]) -> list[Parting]:
    """Return the places behind which anything is lost, the most expensive first."""
    here: dict[TreeNode, list[int]] = {}
    for number, each in enumerate(added):
        if verdicts[number].tokens.elsewhere:
            here.setdefault(each.parting, []).append(number)
    partings = [_parting(trace, added, verdicts, numbers) for numbers in here.values()]
    return sorted(partings, key=lambda each: -each.lost)


def _parting(trace: Trace, added: list[Added], verdicts: list[Verdict], numbers: list[int]) -> Parting:
    lost = [verdicts[number].tokens.elsewhere for number in numbers]
    example = numbers[lost.index(max(lost))]
    request, relative, depth = trace.requests[example], added[example].relative, added[example].num_shared
    verdict = verdicts[example]
    parting = Parting(verdict.parts_at, len(numbers), sum(lost), verdict.name, verdict.relative)
    if trace.in_tokens:
        parting.before = trace.words(request, max(0, depth - _WORDS), depth)
        parting.after = trace.words(request, depth, depth + _WORDS)
        if relative is not None:
            parting.relative_after = trace.words(trace.requests[relative], depth, depth + _WORDS)
    return parting
