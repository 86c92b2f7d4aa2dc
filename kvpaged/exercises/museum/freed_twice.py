"""SGLang #18694: preemption frees what has been freed already."""

from typing import Any

from kvpaged import mini
from kvpaged.exercises.museum.piece import piece
from kvpaged.exercises.museum.serving import servings
from kvpaged.mini import end


def preempt(engine: Any) -> None:
    """Who came last gives its pages back and waits. What it has said, it keeps."""
    request = engine.running[-1]
    end(request.sequence)
    engine.waiting.insert(0, request)


PIECE = piece(
    number="M.4",
    title="freed twice",
    broken=preempt,
    mended=mini.preempt,
    trials=servings("preempt"),
    convicted_by="law 1",
    hints=(
        "Pages are still short in the same step, and `preempt` is called once more. Whom does it choose?",
        "Somebody who has given its pages back is not running, and has no sequence.",
        "Take the request out of `engine.running` when you choose it, and set its `sequence` to None after `end`.",
    ),
)
