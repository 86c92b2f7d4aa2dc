"""Causal attention, four times: from first principles, on contiguous tensors, through a page table, and page by page.

Shapes: query [q_len, heads, head_dim]; keys and values [kv_len, num_kv_heads, head_dim]. Query i is token
kv_len - q_len + i and sees the tokens up to itself. With fewer kv heads than heads (GQA), heads share a kv head in
consecutive groups of heads / num_kv_heads. Scores are scaled by 1 / sqrt(head_dim).

Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1; Ainslie et al., "GQA" (2023);
Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), section 4.1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable, pages_for
from kvpaged.reader import PagedKVReader, mapped_pages


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
        # The heads of a group become the rows of one query, so that K and V are read once per group. A lone query sees all.
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


def paged_attention(query: Tensor, storage: PageStorage, table: PageTable, layer: int) -> Tensor:
    """Attention of one sequence's last q_len tokens, K and V behind a page table.

    Returns [q_len, heads, head_dim]: bit for bit what `contiguous_attention` makes of the same K and V in one piece.
    Raises ValueError, TypeError or IndexError for a query, table or layer that does not fit; nothing is read then.
    """
    _check_paged(query, storage, table, layer)
    reader = PagedKVReader(storage, table)
    return contiguous_attention(query, reader.keys(layer), reader.values(layer))


def streaming_attention(query: Tensor, storage: PageStorage, table: PageTable, layer: int) -> Tensor:
    """The same as `paged_attention`, page by page: no more than one page's scores exist at any time.

    Keeps, per query and head, the largest score so far, the sum of exp(score - largest) and the sum of the values so
    weighted, in float32; a page with a larger score scales down what came before it. Returns [q_len, heads, head_dim].
    Raises as `paged_attention` does.

    Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3.
    """
    page_ids = _check_paged(query, storage, table, layer)
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


def paged_attention_decode(
    query: Tensor, storage: PageStorage, page_tables: Tensor, seq_lens: Tensor, layer: int
) -> Tensor:
    """Attention of one new token for each of B sequences: the decode step of a batch.

    query: [B, heads, head_dim]. page_tables: int32 [B, max_pages], row i the pages of sequence i in logical order; what
    stands behind the pages that its length needs is padding and never read. seq_lens: int32 [B], tokens of each
    sequence with the new one, whose K and V are stored already. Returns [B, heads, head_dim]; each sequence gets, bit for bit,
    what it gets alone. Raises ValueError, TypeError or IndexError for what does not fit; nothing is read then.
    """
    query_lens = torch.ones(len(query), dtype=torch.int32)
    return paged_attention_packed(query, storage, page_tables, seq_lens, query_lens, layer)


def paged_attention_packed(
    query: Tensor, storage: PageStorage, page_tables: Tensor, seq_lens: Tensor, query_lens: Tensor, layer: int
) -> Tensor:
    """Attention of B sequences whose last tokens stand packed one sequence after another: prefill, decode, or both.

    query: [sum(query_lens), heads, head_dim]; query_lens: int32 [B], at least 1 each. page_tables and seq_lens as for
    `paged_attention_decode`. Returns the shape of query; each sequence gets, bit for bit, what `paged_attention` gives it
    alone. Raises ValueError, TypeError or IndexError for what does not fit; nothing is read then.
    """
    _check_layer(layer, storage)
    _check_query(query, storage.num_kv_heads, storage.head_dim, storage.dtype)
    tables = _tables(storage, page_tables, seq_lens)
    lengths = _ints("query_lens", query_lens, len(tables))
    if sum(lengths) != len(query):
        raise ValueError(f"query_lens add up to {sum(lengths)} tokens, but query has {len(query)}")
    for sequence, (q_len, table) in enumerate(zip(lengths, tables, strict=True)):
        try:
            _check_table(q_len, storage, table)
        except (ValueError, IndexError) as error:
            raise type(error)(f"sequence {sequence}: {error}") from None
    output = torch.empty_like(query)
    for rows, out, table in zip(torch.split(query, lengths), torch.split(output, lengths), tables, strict=True):
        out.copy_(paged_attention(rows, storage, table, layer))
    return output


def _ints(name: str, values: Tensor, length: int) -> list[int]:
    if values.shape != (length,):
        raise ValueError(f"{name} has shape {tuple(values.shape)}, expected ({length},): one per sequence")
    if values.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} is {values.dtype}; give torch.int32")
    return values.tolist()


def _tables(storage: PageStorage, page_tables: Tensor, seq_lens: Tensor) -> list[PageTable]:
    if page_tables.ndim != 2:
        raise ValueError(f"page_tables has shape {tuple(page_tables.shape)}, expected [sequences, max_pages]")
    if page_tables.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"page_tables is {page_tables.dtype}; give torch.int32")
    tables = []
    max_pages = page_tables.shape[1]
    for sequence, seq_len in enumerate(_ints("seq_lens", seq_lens, len(page_tables))):
        used = pages_for(seq_len, storage.page_size)
        if not 1 <= seq_len <= max_pages * storage.page_size:
            raise ValueError(
                f"sequence {sequence} has {seq_len} tokens; a row of page_tables maps 1 to {max_pages * storage.page_size}"
            )
        tables.append(PageTable(storage.page_size, page_tables[sequence, :used].tolist(), seq_len))
    return tables


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


def _check_paged(query: Tensor, storage: PageStorage, table: PageTable, layer: int) -> list[int]:
    _check_layer(layer, storage)
    _check_query(query, storage.num_kv_heads, storage.head_dim, storage.dtype)
    return _check_table(len(query), storage, table)


def _check_layer(layer: int, storage: PageStorage) -> None:
    if not 0 <= layer < storage.num_layers:
        raise IndexError(f"layer {layer} does not exist; the storage has layers 0..{storage.num_layers - 1}")


def _check_query(query: Tensor, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    if query.ndim != 3 or query.shape[2] != head_dim:
        raise ValueError(f"query has shape {tuple(query.shape)}, expected (tokens, heads, {head_dim})")
    if query.dtype != dtype:
        raise TypeError(f"query is {query.dtype}, keys and values are {dtype}: convert with .to({dtype})")
    if query.shape[1] == 0 or query.shape[1] % num_kv_heads:
        raise ValueError(f"query has {query.shape[1]} heads; they must be a multiple of the {num_kv_heads} kv heads")


def _check_table(q_len: int, storage: PageStorage, table: PageTable) -> list[int]:
    if table.page_size != storage.page_size:
        raise ValueError(f"the table has pages of {table.page_size} slots, the storage pages of {storage.page_size}")
    _check_lengths(q_len, len(table))
    return mapped_pages(table, storage.num_pages)


def _check_lengths(q_len: int, kv_len: int) -> None:
    if not 1 <= q_len <= kv_len:
        raise ValueError(f"query has {q_len} tokens of a sequence of {kv_len}; it must have 1 to {kv_len}")
