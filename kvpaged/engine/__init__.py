"""Many requests at once from one pool of pages: continuous batching, sampling, beams, speculation."""

import kvpaged.needs_torch  # noqa: F401 (its message comes before torch's own)
from kvpaged.engine.engine import Engine, QueueFull
from kvpaged.engine.events import EngineEvent
from kvpaged.engine.intake import Prompt
from kvpaged.engine.metrics import EngineMetrics, RequestMetrics, StepRecord
from kvpaged.engine.output import CompletionOutput, RequestOutput
from kvpaged.engine.request import Request
from kvpaged.engine.sampling_params import BeamSearchParams, Params, SamplingParams

__all__ = [
    "BeamSearchParams",
    "CompletionOutput",
    "Engine",
    "EngineEvent",
    "EngineMetrics",
    "Params",
    "Prompt",
    "QueueFull",
    "Request",
    "RequestMetrics",
    "RequestOutput",
    "SamplingParams",
    "StepRecord",
]
