"""What the engine adds to the story that `kvpaged.events` tells of memory."""

from enum import StrEnum


class EngineEvent(StrEnum):
    """Kinds of events beside `EventKind`; in brackets, which fields of `Event` they use."""

    QUEUE = "queue"  # a request waits [tokens: its prompt; number: the request]
    ADMIT = "admit"  # a sequence runs for a request from now on [sequence; number: the request]
    PREEMPT = "preempt"  # a sequence must go; its request waits again [sequence; number: the request]
    FINISH = "finish"  # a request ends [number: the request]
    STEP = "step"  # a forward pass is over [number: tokens computed in it]
