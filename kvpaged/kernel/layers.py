"""What a decoder computes between its attentions, compiled: linear layers, RMSNorm, rotary positions, SwiGLU.

Tokens stand in panels, float32 [panels, features, LANES]: LANES tokens side by side, each in a lane of its own. Weights
are read where a model stores them, as float32, float16 or bfloat16; sums are float32. A token gets the same bits
whatever stands in the other lanes, in other panels, or in none (see `kvpaged.kernel.compiled`).
"""

import torch
from torch import Tensor

from kvpaged.kernel.compiled import (
    LANES,
    normalize_all,
    project_gated_all,
    project_heads_all,
    project_onto_all,
    project_rows_all,
    spread_all,
)
from kvpaged.kernel.team import run

_KIND = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # what `_multiply` in the compiled code calls them
DTYPES = tuple(_KIND)


def spread(rows: Tensor) -> Tensor:
    """Rows float32 [n, features] as panels; lanes that no row fills hold zeros."""
    num_rows, width = rows.shape
    rows, panels = rows.contiguous(), torch.empty(-(-num_rows // LANES), width, LANES)
    run(spread_all, 0, rows.data_ptr(), num_rows, width, panels.data_ptr())
    return panels


def collect(panels: Tensor, at: Tensor) -> Tensor:
    """The rows [len(at), features] of the tokens `at`, int64."""
    return panels[at // LANES, :, at % LANES]


def normalize(hidden: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
    """RMSNorm. weight, epsilon: float32 [features], [1]."""
    output = torch.empty_like(hidden)
    num_panels, width, _ = hidden.shape
    run(
        normalize_all,
        2 * hidden.numel(),
        hidden.data_ptr(),
        num_panels,
        width,
        weight.data_ptr(),
        epsilon.data_ptr(),
        output.data_ptr(),
    )
    return output


def project_heads(
    tokens: Tensor, n: int, weights: tuple[Tensor, Tensor, Tensor], head_dim: int, angles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, keys and values of the first n tokens, float32 [n, heads, head_dim]; query and keys are turned.

    weights: of query, keys and values, [heads * head_dim, features] each. angles: panels of cosines, then sines,
    [panels, head_dim, LANES], of which a pair (i, i + head_dim / 2) of numbers takes the i-th.
    """
    query_weight, key_weight, value_weight = weights
    width, num_heads, num_kv_heads = tokens.shape[1], len(query_weight) // head_dim, len(key_weight) // head_dim
    query = torch.empty(n, num_heads, head_dim)
    keys, values = torch.empty(n, num_kv_heads, head_dim), torch.empty(n, num_kv_heads, head_dim)
    run(
        project_heads_all,
        n * width * head_dim * (num_heads + 2 * num_kv_heads),
        tokens.data_ptr(),
        n,
        width,
        query_weight.data_ptr(),
        key_weight.data_ptr(),
        value_weight.data_ptr(),
        _KIND[query_weight.dtype],
        num_heads,
        num_kv_heads,
        head_dim,
        angles.data_ptr(),
        query.data_ptr(),
        keys.data_ptr(),
        values.data_ptr(),
    )
    return query, keys, values


def project_gated(tokens: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """The inner half of SwiGLU: panels of the tokens' product with `up`, times the SiLU of that with `gate`."""
    (num_panels, width, _), outputs = tokens.shape, len(gate)
    output = torch.empty(num_panels, outputs, LANES)
    run(
        project_gated_all,
        2 * tokens.numel() * outputs,
        tokens.data_ptr(),
        num_panels,
        width,
        gate.data_ptr(),
        up.data_ptr(),
        _KIND[gate.dtype],
        outputs,
        output.data_ptr(),
    )
    return output


def project_onto(hidden: Tensor, tokens: Tensor, weight: Tensor) -> None:
    """Add the tokens' product with `weight` to the panels `hidden`."""
    (num_panels, width, _), outputs = tokens.shape, len(weight)
    run(
        project_onto_all,
        tokens.numel() * outputs,
        tokens.data_ptr(),
        num_panels,
        width,
        weight.data_ptr(),
        _KIND[weight.dtype],
        outputs,
        hidden.data_ptr(),
    )


def project_rows(tokens: Tensor, n: int, weight: Tensor) -> Tensor:
    """The first n tokens' product with `weight` as rows, float32 [n, outputs]."""
    width, outputs = tokens.shape[1], len(weight)
    rows = torch.empty(n, outputs)
    run(
        project_rows_all,
        n * width * outputs,
        tokens.data_ptr(),
        n,
        width,
        weight.data_ptr(),
        _KIND[weight.dtype],
        outputs,
        rows.data_ptr(),
    )
    return rows
