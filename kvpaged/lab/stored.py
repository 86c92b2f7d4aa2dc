"""What long checks found when they were last asked to store it, with the date: shown in the book, and tested."""

import json
from importlib.resources import files
from typing import Any


def found_last(check: str) -> dict[str, Any]:
    """Return what `tools/check_traces.py` ("mooncake") or `tools/check_engines.py` ("engines") stored.

    Or `tools/check_quantised.py` and `benchmarks/quantised.py` ("quantised").
    """
    found = json.loads(files("kvpaged.lab").joinpath(f"{check}.json").read_text(encoding="utf-8"))
    return dict(found)
