"""Floats made comparable: what is further from the right ones than rounding goes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kvpaged.exercises.exercise import Seen

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # for numbers around one, in float32


def rows_apart(found: Any, right: Tensor, row: str) -> Seen:
    """What was found, and which of its rows (of what kind, `row` says) are wrong, and by how much at most.

    found: anything; only a tensor of right's shape is compared with it.
    """
    import torch

    if not isinstance(found, torch.Tensor) or found.shape != right.shape:
        shown = f"a tensor {[*found.shape]}" if isinstance(found, torch.Tensor) else found
        return {"it returned": shown, f"{row} that are wrong": "all"}
    errors = (found.double() - right.double()).abs().nan_to_num(torch.inf).reshape(len(right), -1).amax(dim=1)
    wrong = (errors > TOLERANCE).nonzero().flatten().tolist()
    how = "NaN among them" if found.isnan().any() else f"by {float(errors.max()):.2g} at most"
    apart = f"{wrong}, {how}" if wrong else "none"
    return {"it returned": f"a tensor {[*found.shape]}", f"{row} that are wrong": apart}


def number_near(found: Any, right: float) -> Any:
    """The right number, if what was found is equal to it but for rounding; else what was found."""
    if isinstance(found, int | float) and math.isclose(found, right, rel_tol=1e-9, abs_tol=1e-12):
        return right
    return found
