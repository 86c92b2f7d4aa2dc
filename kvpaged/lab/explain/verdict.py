"""What became of one request, and of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from kvpaged.lab.explain.ledger import Ledger
from kvpaged.lab.explain.prefix_tree import Added
from kvpaged.lab.trace import Trace, TraceRequest


@dataclass(frozen=True, slots=True)
class Verdict:
    """One request: what became of its tokens, and where it parts from what came before."""

    name: str
    tokens: Ledger
    relative: str | None  # the latest request before it that begins with the most of the same tokens
    parts_at: int  # tokens that the two have in common
    other_salt: bool  # more of them than it has in common with any request of its own cache salt


def judge(
    trace: Trace, request: TraceRequest, own: Added, of_all: Added, elsewhere: int, without_limit: int, kept: int
) -> Verdict:
    """Account for each token of a request.

    `own` is how far it agrees with requests of its cache salt, `of_all` with any; `elsewhere` of its other tokens were
    seen before; a cache finds `kept` of them, and one without limits `without_limit`, in whole pages.
    """
    reusable = trace.tokens_in(request, own.num_shared)
    in_common = trace.tokens_in(request, of_all.num_shared)
    last_token = int(reusable == request.num_tokens)
    ledger = Ledger(
        new=request.num_tokens - in_common - elsewhere,
        elsewhere=elsewhere,
        other_salt=in_common - reusable,
        last_token=last_token,
        rounding=reusable - last_token - without_limit,
        evicted=without_limit - kept,
        kept=kept,
    )
    relative = None if of_all.relative is None else trace.requests[of_all.relative].name
    return Verdict(request.name, ledger, relative, in_common, in_common > reusable)
