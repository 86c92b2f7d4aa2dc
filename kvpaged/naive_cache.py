"""The contiguous caches we leave behind: recompute everything, grow by copying, reserve for the worst case.

Each has `attend(layer, query, keys, values)`, which a decoder calls once per layer with the K and V of its new tokens,
in the order of the layers. One sequence per cache: n counts new tokens, query is [n, heads, head_dim], keys and values
are [n, num_kv_heads, head_dim].
"""

import torch
from torch import Tensor

from kvpaged.attention import contiguous_attention
from kvpaged.checks import positive_int


class NoCache:
    """Keeps nothing: the caller hands in every token of the sequence again, at each step."""

    num_bytes = 0
    bytes_copied = 0

    def __len__(self) -> int:
        return 0

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Causal attention among the given tokens: [n, heads, head_dim]."""
        return contiguous_attention(query, keys, values)

    def clone(self) -> "NoCache":
        """A branch; there is nothing to copy."""
        return NoCache()


class GrowingCache:
    """Holds what was computed and not a byte more; makes room for new tokens by copying everything (`torch.cat`).

    keys, values: for each layer, [n, num_kv_heads, head_dim]. num_bytes: bytes held. bytes_copied: bytes that were
    stored once already and were moved again, by growth or `clone`.
    """

    def __init__(self, num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32) -> None:
        empty = torch.empty(0, num_kv_heads, head_dim, dtype=dtype)
        self.keys = [empty] * num_layers
        self.values = [empty] * num_layers
        self.bytes_copied = 0

    def __len__(self) -> int:
        """Tokens stored in every layer."""
        return len(self.keys[-1])

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store the new K and V, attend to everything stored: [n, heads, head_dim].

        Raises ValueError for a wrong shape, TypeError for a wrong dtype; nothing is stored then.
        """
        _check_new(self.keys[layer], keys, values)
        all_keys = torch.cat((self.keys[layer], keys))
        all_values = torch.cat((self.values[layer], values))
        output = contiguous_attention(query, all_keys, all_values)
        self.bytes_copied += self.keys[layer].nbytes + self.values[layer].nbytes
        self.keys[layer], self.values[layer] = all_keys, all_values
        return output

    def clone(self) -> "GrowingCache":
        """A branch of the sequence, which copies all of it; the branch's `bytes_copied` starts with that copy."""
        num_kv_heads, head_dim = self.keys[0].shape[1:]
        branch = GrowingCache(len(self.keys), num_kv_heads, head_dim, self.keys[0].dtype)
        branch.keys = [tensor.clone() for tensor in self.keys]
        branch.values = [tensor.clone() for tensor in self.values]
        branch.bytes_copied = self.num_bytes
        return branch


class ReservedCache:
    """Reserves room for `max_tokens` before the first one comes: nothing moves, and most of it may never be used.

    keys, values: [num_layers, max_tokens, num_kv_heads, head_dim], zeros where nothing is stored yet. num_bytes: bytes
    reserved. bytes_copied: bytes that were stored once already and were copied by `clone`.
    """

    def __init__(
        self,
        max_tokens: int,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_tokens = positive_int("max_tokens", max_tokens)
        self.keys = torch.zeros(num_layers, max_tokens, num_kv_heads, head_dim, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self._lengths = [0] * num_layers
        self.bytes_copied = 0

    def __len__(self) -> int:
        """Tokens stored in every layer."""
        return self._lengths[-1]

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store the new K and V, attend to everything stored: [n, heads, head_dim].

        Raises ValueError when the reservation is full or a shape is wrong, TypeError for a wrong dtype; nothing counts
        as stored then.
        """
        _check_new(self.keys[layer], keys, values)
        start, stop = self._lengths[layer], self._lengths[layer] + len(keys)
        if stop > self.max_tokens:
            raise ValueError(
                f"the cache reserved room for {self.max_tokens} tokens and holds {start}: {len(keys)} more do not fit; "
                f"reserve at least {stop}"
            )
        self.keys[layer, start:stop] = keys
        self.values[layer, start:stop] = values
        output = contiguous_attention(query, self.keys[layer, :stop], self.values[layer, :stop])
        self._lengths[layer] = stop
        return output

    def clone(self) -> "ReservedCache":
        """A branch of the sequence: a second reservation as large, into which everything stored is copied."""
        num_layers, max_tokens, num_kv_heads, head_dim = self.keys.shape
        branch = ReservedCache(max_tokens, num_layers, num_kv_heads, head_dim, self.keys.dtype)
        for layer, length in enumerate(self._lengths):
            branch.keys[layer, :length] = self.keys[layer, :length]
            branch.values[layer, :length] = self.values[layer, :length]
            branch.bytes_copied += self.keys[layer, :length].nbytes + self.values[layer, :length].nbytes
        branch._lengths = list(self._lengths)
        return branch


ContiguousCache = NoCache | GrowingCache | ReservedCache


def _check_new(stored: Tensor, keys: Tensor, values: Tensor) -> None:
    for name, tensor in (("keys", keys), ("values", values)):
        if tensor.ndim != 3 or len(tensor) != len(keys) or tensor.shape[1:] != stored.shape[1:]:
            raise ValueError(
                f"{name} have shape {tuple(tensor.shape)}, expected (n, {stored.shape[1]}, {stored.shape[2]})"
            )
        if tensor.dtype != stored.dtype:
            raise TypeError(
                f"{name} are {tensor.dtype}, the cache holds {stored.dtype}: convert with .to({stored.dtype})"
            )
