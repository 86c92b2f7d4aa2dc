"""Causal attention, four times: from first principles, on contiguous tensors, through a page table, and page by page.

Shapes: query [q_len, heads, head_dim]; keys and values [kv_len, num_kv_heads, head_dim]. Query i is token
kv_len - q_len + i and sees the tokens up to itself. With fewer kv heads than heads (GQA), heads share a kv head in
consecutive groups of heads / num_kv_heads. Scores are scaled by 1 / sqrt(head_dim).

Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1; Ainslie et al., "GQA" (2023);
Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), section 4.1.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kvpaged.page import PageStorage, has_numba, refuse_other_devices
from kvpaged.page_table import PageTable, pages_for

Backend = Literal["kernel", "gather"]


def naive_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention as the formula says it: softmax(Q K^T / sqrt(d)) V with a causal mask.

    Returns [q_len, heads, head_dim]. Raises ValueError for shapes that do not fit, TypeError for mixed dtypes.
    """
    _check_contiguous(query, keys, values)
    (q_len, heads, head_dim), (kv_len, num_kv_heads, _) = query.shape, keys.shape
    keys = keys.repeat_interleave(heads // num_kv_heads, dim=1)
    values = values.repeat_interleave(heads // num_kv_heads, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query, keys) / math.sqrt(head_dim)
    scores = scores.masked_fill(~causal_mask(q_len, kv_len), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values)


def causal_mask(q_len: int, kv_len: int) -> Tensor:
    """Which tokens each query sees: bool [q_len, kv_len], True where token j <= kv_len - q_len + i."""
    return torch.ones(q_len, kv_len, dtype=torch.bool).tril(kv_len - q_len)


def contiguous_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same as `naive_attention`, by torch's fused `scaled_dot_product_attention`.

    Returns [q_len, heads, head_dim]. Raises ValueError for shapes that do not fit, TypeError for mixed dtypes.
    """
    _check_contiguous(query, keys, values)
    (q_len, heads, head_dim), (kv_len, num_kv_heads, _) = query.shape, keys.shape
    keys, values = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
    if q_len == 1:
        # The heads of a group become the rows of one query, so that K and V are read once. A lone query sees all.
        grouped = query.reshape(1, num_kv_heads, heads // num_kv_heads, head_dim)
        return F.scaled_dot_product_attention(grouped, keys, values).reshape(1, heads, head_dim)
    whole = q_len == kv_len
    output = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys,
        values,
        attn_mask=None if whole else causal_mask(q_len, kv_len),
        is_causal=whole,  # torch aligns its own causal mask to the first token, so it serves whole sequences only
        enable_gqa=heads != num_kv_heads,
    )
    return output[0].transpose(0, 1)


def default_backend(head_dim: int) -> Backend:
    """What attention on pages uses when not told.

    "kernel" (`kvpaged.kernel`) reads the pages in place; it needs numba and a head_dim that is a multiple of 16.
    "gather" copies them into one piece first. They agree to rounding: about 1e-6 in float32.
    """
    return "kernel" if has_numba() and head_dim % 16 == 0 else "gather"


def paged_attention(
    query: Tensor, storage: PageStorage, table: PageTable, layer: int, backend: Backend | None = None
) -> Tensor:
    """Attention of one sequence's last q_len tokens, K and V behind a page table.

    Returns [q_len, heads, head_dim]. backend="gather" gives bit for bit what `contiguous_attention` makes of the same K
    and V in one piece; "kernel" gives each token the same bits, however many are asked for at once. For the default,
    see `default_backend`. Raises ValueError, TypeError or IndexError for a query, table, layer or backend that does not
    fit; nothing is read then.
    """
    page_ids = _check_paged(query, storage, table)
    page_tables, seq_lens, query_lens = (
        torch.tensor(each, dtype=torch.int32) for each in ([page_ids], [len(table)], [len(query)])
    )
    return attention_on(storage)(storage, page_tables, seq_lens, query_lens, backend)(layer, query)


def paged_attention_decode(
    query: Tensor,
    storage: PageStorage,
    page_tables: Tensor,
    seq_lens: Tensor,
    layer: int,
    backend: Backend | None = None,
) -> Tensor:
    """Attention of one new token for each of B sequences: the decode step of a batch.

    query: [B, heads, head_dim]. page_tables: int32 [B, max_pages], row i the pages of sequence i in logical order; what
    stands behind the pages that its length needs is padding and never read. seq_lens: int32 [B], tokens of each
    sequence with the new one, whose K and V are stored already. Returns [B, heads, head_dim]; each sequence gets, bit
    for bit, what it gets alone. For backend, see `default_backend`.
    Raises ValueError, TypeError or IndexError for what does not fit; nothing is read then.
    """
    return attention_on(storage)(storage, page_tables, seq_lens, torch.ones_like(seq_lens), backend)(layer, query)


class PackedAttention:
    """Attention of the last tokens of S sequences, packed one sequence after another: planned once, for all layers.

    page_tables, seq_lens: as for `paged_attention_decode`. query_lens: int32 [S], how many tokens of each sequence are
    queries. With the kernel each token gets, bit for bit, what it gets alone, and what several sequences read from the
    same pages is read once.

    Raises ValueError, TypeError or IndexError for what does not fit; ModuleNotFoundError where a kernel is asked for
    and numba is missing.
    """

    def __init__(
        self,
        storage: PageStorage,
        page_tables: Tensor,
        seq_lens: Tensor,
        query_lens: Tensor,
        backend: Backend | None = None,
    ) -> None:
        if backend not in (None, "kernel", "gather"):
            raise ValueError(f"backend is {backend!r}; give 'kernel', 'gather' or nothing")
        refuse_other_devices(page_tables=page_tables, seq_lens=seq_lens, query_lens=query_lens)
        _check_batch(page_tables, seq_lens, query_lens)
        if backend == "kernel" and not has_numba():
            raise ModuleNotFoundError("backend is 'kernel', and numba cannot be used here: install it, or say 'gather'")
        self.backend = backend or default_backend(storage.head_dim)
        self._storage, self._page_tables, self._seq_lens = storage, page_tables, seq_lens
        if self.backend == "kernel":
            from kvpaged.kernel import Plan

            pages = storage.num_pages, storage.page_size
            self.plan = Plan(page_tables, seq_lens, query_lens, *pages, by_page=storage.attention is not None)
            self._num_queries = self.plan.num_queries
        else:
            self._tables = [self._table(sequence, length) for sequence, length in enumerate(seq_lens.tolist())]
            self._query_lens = query_lens.tolist()
            self._num_queries = sum(self._query_lens)
            for q_len, table in zip(self._query_lens, self._tables, strict=True):
                _check_lengths(q_len, len(table))
        self._begin(query_lens)

    def __call__(self, layer: int, query: Tensor) -> Tensor:
        """query: [n, heads, head_dim], n the sum of query_lens -> the same. K and V are stored already."""
        _check_query(query, self._storage.num_kv_heads, self._storage.head_dim, self._storage.dtype)
        refuse_other_devices(query=query)
        if len(query) != self._num_queries:
            raise ValueError(f"query has {len(query)} tokens; the sequences have {self._num_queries} together")
        self._storage.check_read(layer, self._page_tables, self._seq_lens)
        if self.backend == "kernel":
            return without_gradient(self._in_place(layer, query), query)
        parts = zip(torch.split(query, self._query_lens), self._tables, strict=True)
        outputs = [self._gathered(layer, part, table) for part, table in parts]
        return without_gradient(torch.cat([query.new_empty(0, *query.shape[1:]), *outputs]), query)

    def _begin(self, query_lens: Tensor) -> None:
        """Tell the storage what it must know before anything is written. This one need not know anything."""

    def _in_place(self, layer: int, query: Tensor) -> Tensor:
        from kvpaged.kernel import attention

        return attention(self.plan, query, self._storage.keys(layer), self._storage.values(layer))

    def _gathered(self, layer: int, query: Tensor, table: PageTable) -> Tensor:
        return contiguous_attention(query, *self._storage.read(layer, table))

    def _table(self, sequence: int, seq_len: int) -> PageTable:
        size = self._storage.page_size
        room = self._page_tables.shape[1] * size
        if not 1 <= seq_len <= room:
            raise ValueError(f"sequence {sequence} has {seq_len} tokens; a row of page_tables maps 1 to {room}")
        table = PageTable(size, self._page_tables[sequence, : pages_for(seq_len, size)].tolist(), seq_len)
        try:
            self._storage.pages_of(table)
        except IndexError as error:
            raise IndexError(f"sequence {sequence}: {error}") from None
        return table


def attention_on(storage: PageStorage) -> type[PackedAttention]:
    """The class that attends to what a storage holds."""
    return storage.attention or PackedAttention


def streaming_attention(query: Tensor, storage: PageStorage, table: PageTable, layer: int) -> Tensor:
    """The same as `paged_attention`, page by page: no more than one page's scores exist at any time.

    Keeps, per query and head, the largest score so far, the sum of exp(score - largest) and the sum of the values so
    weighted, in float32; a page with a larger score scales down what came before it. Returns [q_len, heads, head_dim].
    Raises as `paged_attention` does.

    Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3.
    """
    page_ids = _check_paged(query, storage, table)
    storage.check_read(layer, [page_ids], [len(table)])
    (q_len, heads, head_dim), num_kv_heads = query.shape, storage.num_kv_heads
    first_query = len(table) - q_len
    # [kv_head, group * q_len, head_dim]: all queries that read one kv head, as the rows of one matrix
    scaled = query.float().transpose(0, 1).reshape(num_kv_heads, -1, head_dim) / math.sqrt(head_dim)
    position = (first_query + torch.arange(q_len)).repeat(heads // num_kv_heads)[:, None]
    largest = torch.full((num_kv_heads, scaled.shape[1], 1), float("-inf"))
    total = torch.zeros_like(largest)
    output = torch.zeros_like(scaled)
    for index, page_id in enumerate(page_ids):
        start = index * table.page_size
        filled = min(table.page_size, len(table) - start)
        scores = scaled @ storage.keys(layer)[page_id, :, :filled].float().transpose(1, 2)
        if start + filled > first_query + 1:
            scores = scores.masked_fill(torch.arange(start, start + filled) > position, float("-inf"))
        # Every query sees token 0, so from the first page on `larger` is finite.
        larger = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        weights = torch.exp(scores - larger)
        shrink = torch.exp(largest - larger)
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        output = output * shrink + weights @ storage.values(layer)[page_id, :, :filled].float()
        largest = larger
    return (output / total).to(query.dtype).view(heads, q_len, head_dim).transpose(0, 1)


def _check_batch(page_tables: Tensor, seq_lens: Tensor, query_lens: Tensor) -> None:
    num_sequences = seq_lens.numel()
    if page_tables.ndim != 2 or page_tables.shape[0] != num_sequences:
        raise ValueError(f"page_tables has shape {tuple(page_tables.shape)}, expected ({num_sequences}, max_pages)")
    for name, lengths in (("seq_lens", seq_lens), ("query_lens", query_lens)):
        if lengths.shape != (num_sequences,):
            raise ValueError(f"{name} has shape {tuple(lengths.shape)}, expected ({num_sequences},)")
    for name, tensor in (("page_tables", page_tables), ("seq_lens", seq_lens), ("query_lens", query_lens)):
        if tensor.dtype != torch.int32:
            raise TypeError(f"{name} is {tensor.dtype}; convert with .to(torch.int32)")


def _check_contiguous(query: Tensor, keys: Tensor, values: Tensor) -> None:
    if keys.ndim != 3 or keys.shape != values.shape:
        raise ValueError(
            f"keys have shape {tuple(keys.shape)} and values {tuple(values.shape)}, expected one shape "
            "[kv_len, num_kv_heads, head_dim]"
        )
    if values.dtype != keys.dtype:
        raise TypeError(f"keys are {keys.dtype}, values {values.dtype}: convert one of them")
    _check_query(query, keys.shape[1], keys.shape[2], keys.dtype)
    _check_lengths(len(query), len(keys))


def _check_paged(query: Tensor, storage: PageStorage, table: PageTable) -> list[int]:
    _check_query(query, storage.num_kv_heads, storage.head_dim, storage.dtype)
    refuse_other_devices(query=query)
    page_ids = storage.pages_of(table)
    _check_lengths(len(query), len(table))
    return page_ids


def _check_query(query: Tensor, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    if query.ndim != 3 or query.shape[2] != head_dim:
        raise ValueError(f"query has shape {tuple(query.shape)}, expected (tokens, heads, {head_dim})")
    if query.dtype != dtype:
        raise TypeError(f"query is {query.dtype}, keys and values are {dtype}: convert with .to({dtype})")
    if query.shape[1] == 0 or query.shape[1] % num_kv_heads:
        raise ValueError(f"query has {query.shape[1]} heads; they must be a multiple of the {num_kv_heads} kv heads")


def without_gradient(result: Tensor, *sources: Tensor) -> Tensor:
    """The same result; but to ask for the gradient of what it was computed from is an error, not a wrong number."""
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        found: Tensor = _WithoutGradient.apply(result.detach(), *sources)  # type: ignore[no-untyped-call]
        return found
    return result


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, result: Tensor, *_sources: Tensor) -> Tensor:
        return result.view_as(result)

    @staticmethod
    def backward(_context: object, *_gradients: Tensor) -> Tensor:
        raise RuntimeError("no gradient passes through pages: train without a paged cache")


def _check_lengths(q_len: int, kv_len: int) -> None:
    if not 1 <= q_len <= kv_len:
        raise ValueError(f"query has {q_len} tokens of a sequence of {kv_len}; it must have 1 to {kv_len}")
