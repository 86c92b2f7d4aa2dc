"""What is compiled: attention on the pages in place, a decoder's layers, and writes, in numba and LLVM's vector code.

What makes attention fast:

1. K and V are read once, where they lie, in the order they lie: a block of 16 tokens, all its kv heads, then the next
   block. Each cache line of the next block is requested while this one is worked on, because page tables point
   anywhere and the processor's own prefetcher cannot know where.
2. All query heads of a kv head are served by one read of it (GQA), and so are up to 16 consecutive queries of a prompt.
3. A tile of 128 tokens takes two passes: scores of all its K, then softmax, then all its V; the running maximum and sum
   of the online softmax change once per tile.
4. Sixteen numbers at a time, and sixteen dot products summed together: the innermost loops are written in LLVM's vector
   instructions, which it compiles for any processor.

What keeps the bits: a query is computed in an order that depends on the tokens it sees, and on nothing else. Its tokens
are cut into splits of 1024 and tiles of 128 from the first token on. Which queries share its work item, how many
threads take items, and when, is not in the formula. Splits are merged as in Dao et al., "Flash-Decoding for
long-context inference" (2023). The layers have their own way to the same end, told above them.

All that is compiled is in this one file, because numba's cache on disk notices a change in the file of the kernel only.
"""

# What numba compiles has no annotations, and its own have no stubs.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False
# mypy: disable-error-code="call-arg,import-untyped,attr-defined,var-annotated"

import math
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

SPLIT = 1024  # tokens of one work item
QUERIES = 16  # consecutive queries of one work item
TILE = 128  # tokens whose scores exist at one time
HASH_FACTOR = 0x9E3779B1  # spreads slots that are a page apart over a hash table (Knuth's multiplicative hashing)
LOWEST = np.float32(np.finfo(np.float32).min)
FLOAT32, FLOAT16, BFLOAT16 = (np.empty(0, dtype) for dtype in (np.float32, np.int16, np.uint16))  # as they travel
LOG2_E = 1 / math.log(2)

# Vector instructions. AVX-512 has 32 registers of 16 floats; elsewhere 8 floats keep the accumulators in registers.
LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
PHASES, ARGUMENTS = 5, 20  # at most, of what runs in threads
CODED = 10  # integers that say where codes are, see `read_block`
PHASE = 16  # bytes: how many items are taken, how many are done
BLOCK_SIZE = 2 * PHASES + ARGUMENTS
OUTPUTS = 64  # of a linear layer, for two panels of tokens: one work item
WIDE = LANES // 2  # outputs of a tile of two panels: their sums fill half the registers
LINE_FEATURES = 16  # weights of a row between two looks ahead
BLOCK = 16  # tokens scored between two looks at the page table
_FLOAT, _INT, _ADDRESS = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FLOAT_BYTES, _ADDRESS_BYTES, LINE_BYTES = 4, 8, 64


@njit(cache=True, nogil=True)
def count_items(page_tables, seq_lens, query_lens, num_pages, page_size, by_page):
    """How many work items `plan` may need; or -1 - s if sequence s does not fit."""
    num_items = 0
    for sequence in range(len(seq_lens)):
        length, num_queries = seq_lens[sequence], query_lens[sequence]
        if length < 1 or length > page_tables.shape[1] * page_size or not 1 <= num_queries <= length:
            return -1 - sequence
        for index in range((length - 1) // page_size + 1):
            if not 0 <= page_tables[sequence, index] < num_pages:
                return -1 - sequence
        runs = (num_queries - 1) // QUERIES + 1 + by_page * ((num_queries - 1) // page_size + 1)
        num_items += runs * ((length - 1) // SPLIT + 1)
    return num_items


@njit(cache=True, nogil=True)
def plan(page_tables, seq_lens, query_lens, page_size, by_page, items, members, first_partial):
    """Cut attention into work items: up to QUERIES queries, and one split of the tokens that all of them read.

    They are consecutive queries of one sequence, or the lone queries of sequences that hold the same pages there. With
    `by_page` they stand in one page, or all behind what the item reads: a page may read otherwise from within.
    items: [most, 4], filled with (a sequence that holds the pages, queries, first query's position, split). members:
    [most, QUERIES], the queries' numbers. first_partial: [queries + 1], where a query's splits begin among those of all
    queries that see several. Returns the number of items.
    """
    num_items = query = 0
    first_partial[0] = 0
    for sequence in range(len(seq_lens)):
        length, num_queries = seq_lens[sequence], query_lens[sequence]
        first = 0
        while first < num_queries:
            queries, position = min(QUERIES, num_queries - first), length - num_queries + first
            if by_page:
                queries = min(queries, page_size - position % page_size)
            for split in range((position + queries - 1) // SPLIT + 1):
                if num_queries == 1 and _alike(position, page_size, by_page) >= (split + 1) * SPLIT:
                    item = _shared(page_tables, sequence, split, page_size, by_page, items, num_items)
                    if item >= 0:
                        members[item, items[item, 1]] = query
                        items[item, 1] += 1
                        continue
                items[num_items, 0], items[num_items, 1] = sequence, queries
                items[num_items, 2], items[num_items, 3] = position, split
                for q in range(queries):
                    members[num_items, q] = query + first + q
                num_items += 1
            first += queries
        for position in range(length - num_queries, length):
            splits = position // SPLIT + 1
            first_partial[query + 1] = first_partial[query] + (splits if splits > 1 else 0)
            query += 1
    return num_items


@njit(cache=True, nogil=True)
def _alike(position, page_size, by_page):
    """How many tokens a query reads as every other query reads them: all, or those before its own page."""
    return position // page_size * page_size if by_page else position + 1


@njit(cache=True, nogil=True)
def _shared(page_tables, sequence, split, page_size, by_page, items, num_items):
    """The item that reads the same pages for this whole split, and has room for one more lone query; or -1."""
    first, stop = split * SPLIT // page_size, ((split + 1) * SPLIT - 1) // page_size + 1
    for item in range(num_items):
        alike = _alike(items[item, 2], page_size, by_page)
        if items[item, 3] == split and items[item, 1] < QUERIES and alike >= (split + 1) * SPLIT:
            other, index = items[item, 0], first
            while index < stop and page_tables[other, index] == page_tables[sequence, index]:
                index += 1
            if index == stop:
                return item
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def attend(
    phase,
    query_at,
    keys_at,
    values_at,
    output_at,
    partial_at,
    tables_at,
    items_at,
    members_at,
    first_partial_at,
    num_queries,
    heads,
    head_dim,
    num_pages,
    num_kv_heads,
    page_size,
    num_sequences,
    max_pages,
    num_items,
    coded_at,
    empty,
):
    """Attention of all queries, as far as nobody else takes their items.

    coded_at: 0, or the address of what `read_block` needs of pages that hold codes. Their numbers are read back block
    by block, one kv head at a time, and used from there as others from their pages.

    A query that sees one split goes to the output; what others get of each split goes to `partial`, unscaled, with its
    maximum and sum.
    """
    query = carray(_pointer(query_at), (num_queries, heads, head_dim), np.float32)
    output = carray(_pointer(output_at), (num_queries, heads, head_dim), np.float32)
    page_tables = carray(_pointer(tables_at), (num_sequences, max_pages), np.int32)
    items = carray(_pointer(items_at), (num_items, 4), np.int64)
    members = carray(_pointer(members_at), (num_items, QUERIES), np.int64)
    first_partial = carray(_pointer(first_partial_at), (num_queries + 1,), np.int64)
    partial = carray(_pointer(partial_at), (first_partial[num_queries], heads, head_dim + 2), np.float32)
    pages = (num_pages, num_kv_heads, page_size, head_dim)
    keys, values = carray(_pointer(keys_at), pages, empty.dtype), carray(_pointer(values_at), pages, empty.dtype)
    group = heads // num_kv_heads
    page_bytes, head_bytes, row_bytes, _ = keys.strides
    # What the vector code reads and writes is handed over as addresses. A row is one head of one query; the rows of a
    # kv head stand together.
    most = heads * items[:, 1].max()
    scaled = np.empty((most, head_dim), np.float32)
    scores = np.empty((most, TILE), np.float32)
    weighted = np.empty((most, head_dim), np.float32)
    rows = np.empty(SPLIT + 4 * BLOCK, np.int64)  # the last 2 * BLOCK: of `block`
    last_rows = np.empty(2 * BLOCK, np.int64)
    block = np.empty((BLOCK, head_dim), np.float32)
    for i in range(2 * BLOCK):
        rows[SPLIT + 2 * BLOCK + i] = i % BLOCK * row_bytes
    scaled_at, scores_at = scaled.ctypes.data, scores.ctypes.data
    weighted_at, rows_at, last_rows_at = weighted.ctypes.data, rows.ctypes.data, last_rows.ctypes.data
    largest = np.empty(most, np.float32)
    total = np.empty(most, np.float32)
    scale = np.float32(LOG2_E / math.sqrt(head_dim))  # exp(x) = exp2(x log2 e)

    item = _take(phase)
    while item < num_items:
        sequence, queries, position, split = items[item]
        start = split * SPLIT
        # The first query sees the first `seen` tokens of the split, each further one a token more; or all see all.
        seen = position + 1 - start
        count = min(SPLIT, seen + queries - 1)
        # Where in its layer each token's row of kv head 0 begins. Behind the last token stands the last token again,
        # so that a block may be scored, and prefetched, whole.
        for i in range(count):
            page_id = np.int64(page_tables[sequence, (start + i) // page_size])
            rows[i] = page_id * page_bytes + (start + i) % page_size * row_bytes
        for i in range(count, (count + BLOCK - 1) // BLOCK * BLOCK + BLOCK):
            rows[i] = rows[count - 1]
        width = queries * group  # rows of a kv head
        for head in range(heads):
            for q in range(queries):
                row = head // group * width + q * group + head % group
                largest[row] = LOWEST
                total[row] = 0
                for d in range(head_dim):
                    scaled[row, d] = query[members[item, q], head, d] * scale
                    weighted[row, d] = 0

        for tile in range(0, count, TILE):
            filled = min(TILE, count - tile)
            for token in range(0, filled, BLOCK):
                tokens_at = rows_at + (SPLIT + 2 * BLOCK if coded_at else tile + token) * _ADDRESS_BYTES
                blind = max(0, tile + token + 1 - seen)  # queries that see nothing of this block
                for kv_head in range(num_kv_heads):
                    base = keys.ctypes.data + kv_head * head_bytes
                    if coded_at:
                        base = read_block(
                            coded_at, 0, page_tables[sequence], start + tile + token, start + count, position,
                            kv_head, num_kv_heads, page_size, block,
                        )  # fmt: skip
                    row = kv_head * width + blind * group
                    end = kv_head * width + width
                    while row < end:
                        q = scaled_at + row * head_dim * _FLOAT_BYTES
                        s = scores_at + (row * TILE + token) * _FLOAT_BYTES
                        if end - row > 4:
                            _score_rows(keys, base, tokens_at, q, head_dim, s)
                            row += 4
                        elif end - row == 4:
                            _score_block(keys, base, tokens_at, q, head_dim, s, 4)
                            row += 4
                        elif end - row >= 2:
                            _score_block(keys, base, tokens_at, q, head_dim, s, 2)
                            row += 2
                        else:
                            _score_block(keys, base, tokens_at, q, head_dim, s, 1)
                            row += 1

            for q in range(max(0, tile + 1 - seen), queries):
                visible = min(filled, seen + q - tile)
                padded = (visible + BLOCK - 1) // BLOCK * BLOCK
                for kv_head in range(num_kv_heads):
                    for row in range(kv_head * width + q * group, kv_head * width + (q + 1) * group):
                        s = scores_at + row * TILE * _FLOAT_BYTES
                        for token in range(visible, padded):
                            scores[row, token] = LOWEST
                        larger = max(largest[row], _largest(s, padded))
                        if larger > largest[row]:
                            shrink = np.float32(2) ** (largest[row] - larger)
                            total[row] *= shrink
                            for d in range(head_dim):
                                weighted[row, d] *= shrink
                            largest[row] = larger
                        total[row] += _exponentiate(s, padded, larger)

            for token in range(0, filled, BLOCK):
                tokens_at = rows_at + (SPLIT + 2 * BLOCK if coded_at else tile + token) * _ADDRESS_BYTES
                blind = max(0, tile + token + 1 - seen)
                whole = min(queries, max(0, tile + token + BLOCK - seen))  # the first query that sees the whole block
                for kv_head in range(num_kv_heads):
                    base = values.ctypes.data + kv_head * head_bytes
                    if coded_at:
                        base = read_block(
                            coded_at, 1, page_tables[sequence], start + tile + token, start + count, position,
                            kv_head, num_kv_heads, page_size, block,
                        )  # fmt: skip
                    row = kv_head * width + whole * group
                    end = kv_head * width + width
                    while row < end:
                        o = weighted_at + row * head_dim * _FLOAT_BYTES
                        w = scores_at + (row * TILE + token) * _FLOAT_BYTES
                        if end - row > 4:
                            _weigh_block(values, base, tokens_at, w, head_dim, o, 4, 0)
                            row += 4
                        elif end - row == 4:
                            _weigh_block(values, base, tokens_at, w, head_dim, o, 4, 1)
                            row += 4
                        elif end - row >= 2:
                            _weigh_block(values, base, tokens_at, w, head_dim, o, 2, 1)
                            row += 2
                        else:
                            _weigh_block(values, base, tokens_at, w, head_dim, o, 1, 1)
                            row += 1
                # A query that sees a part of the block must not touch the rest, not even with weight 0.
                for q in range(blind, whole):
                    visible = seen + q - tile - token
                    for i in range(2 * BLOCK):
                        last_rows[i] = rows[(SPLIT + 2 * BLOCK if coded_at else tile + token) + min(i, visible - 1)]
                    for kv_head in range(num_kv_heads):
                        base = values.ctypes.data + kv_head * head_bytes
                        if coded_at:
                            base = read_block(
                                coded_at, 1, page_tables[sequence], start + tile + token, start + count, position,
                                kv_head, num_kv_heads, page_size, block,
                            )  # fmt: skip
                        row = kv_head * width + q * group
                        end = row + group
                        while row < end:
                            o = weighted_at + row * head_dim * _FLOAT_BYTES
                            w = scores_at + (row * TILE + token) * _FLOAT_BYTES
                            if end - row >= 4:
                                _weigh_block(values, base, last_rows_at, w, head_dim, o, 4, 0)
                                row += 4
                            elif end - row >= 2:
                                _weigh_block(values, base, last_rows_at, w, head_dim, o, 2, 1)
                                row += 2
                            else:
                                _weigh_block(values, base, last_rows_at, w, head_dim, o, 1, 1)
                                row += 1

        for q in range(max(0, 1 - seen), queries):
            number = members[item, q]
            several = first_partial[number + 1] > first_partial[number]
            for head in range(heads):
                row = head // group * width + q * group + head % group
                if several:
                    slot = first_partial[number] + split
                    for d in range(head_dim):
                        partial[slot, head, d] = weighted[row, d]
                    partial[slot, head, head_dim] = largest[row]
                    partial[slot, head, head_dim + 1] = total[row]
                else:
                    for d in range(head_dim):
                        output[number, head, d] = weighted[row, d] / total[row]
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True, error_model="numpy")
def read_block(coded_at, which, page_table, first, stop, position, kv_head, num_kv_heads, page_size, block):
    """Read back a block of tokens from `first` on, of one kv head, as a query at `position` reads it; return where.

    coded_at: the address of `CODED` integers, see `kvpaged.kernel.attention_on_codes`. which: 0 for K, 1 for V.
    """
    coded = carray(_pointer(coded_at), (CODED,), np.int64)
    bits, tail_of_at, head_dim, own = coded[0], coded[1], block.shape[1], position // page_size
    codes_at, scales_at, by_channel, tails_at = (
        coded[2 + 4 * which], coded[3 + 4 * which], coded[4 + 4 * which], coded[5 + 4 * which],
    )  # fmt: skip
    width, scales = head_dim * bits // 8, head_dim if by_channel else page_size
    index, slot = first // page_size, first % page_size
    ahead = first + BLOCK  # request the codes of the next block, which may be anywhere
    if ahead < stop:
        head = np.int64(page_table[ahead // page_size]) * num_kv_heads + kv_head
        row_at = codes_at + (head * page_size + ahead % page_size) * width
        for at in range(row_at, row_at + min(BLOCK, page_size) * width, LINE_BYTES):
            _prefetch_to_read(at)
    done, count = 0, min(BLOCK, stop - first)
    while done < count:  # the tokens of one page
        run = min(page_size - slot, count - done)
        page_id = np.int64(page_table[index])
        head = page_id * num_kv_heads + kv_head
        target = np.int64(block.ctypes.data) + done * head_dim * _FLOAT_BYTES
        tail = np.int64(-1)
        if index == own:
            tail = np.int64(carray(_pointer(tail_of_at + page_id * 4), (1,), np.int32)[0])
        if tail >= 0:
            row = (tail * num_kv_heads + kv_head) * page_size + slot
            _copy_bytes(target, tails_at + row * head_dim * _FLOAT_BYTES, run * head_dim * _FLOAT_BYTES)
        else:
            row_at = codes_at + (head * page_size + slot) * width
            scale_at = scales_at + (head * scales + (0 if by_channel else slot)) * _FLOAT_BYTES
            if bits == 8 and by_channel:
                _read_rows(row_at, run, width, scale_at, target, 8, 1)
            elif bits == 8:
                _read_rows(row_at, run, width, scale_at, target, 8, 0)
            elif bits == 4 and by_channel:
                _read_rows(row_at, run, width, scale_at, target, 4, 1)
            elif bits == 4:
                _read_rows(row_at, run, width, scale_at, target, 4, 0)
            elif by_channel:
                _read_rows(row_at, run, width, scale_at, target, 2, 1)
            else:
                _read_rows(row_at, run, width, scale_at, target, 2, 0)
            if width % LANES:
                codes = carray(_pointer(row_at), (run, width), np.uint8)
                scale = carray(_pointer(scale_at), (scales,), np.float32)
                for i in range(run):
                    for number in range(head_dim):
                        if number % width >= width // LANES * LANES:
                            code = np.int64(codes[i, number % width]) >> number // width * bits & (1 << bits) - 1
                            whole = np.float32(code - (1 << bits - 1))
                            block[done + i, number] = whole * scale[number if by_channel else i]
        done, index, slot = done + run, index + 1, 0
    return np.int64(block.ctypes.data)


@njit(cache=True, nogil=True, error_model="numpy")
def merge(phase, first_partial_at, partial_at, output_at, num_queries, heads, head_dim):
    """Merge the splits of each query that sees several. An item is a query."""
    first_partial = carray(_pointer(first_partial_at), (num_queries + 1,), np.int64)
    partial = carray(_pointer(partial_at), (first_partial[num_queries], heads, head_dim + 2), np.float32)
    output = carray(_pointer(output_at), (num_queries, heads, head_dim), np.float32)
    query = _take(phase)
    while query < num_queries:
        first, end = first_partial[query], first_partial[query + 1]
        for head in range(heads if end > first else 0):
            largest = partial[first:end, head, head_dim].max()
            total = np.float32(0)
            for d in range(head_dim):
                output[query, head, d] = 0
            for item in range(first, end):
                weight = np.float32(2) ** (partial[item, head, head_dim] - largest)
                total += weight * partial[item, head, head_dim + 1]
                for d in range(head_dim):
                    output[query, head, d] += weight * partial[item, head, d]
            for d in range(head_dim):
                output[query, head, d] /= total
        _done(phase)
        query = _take(phase)


# Linear layers and what stands between them
#
# LANES tokens are computed side by side, each in a lane of its own of every vector: a panel of tokens is
# [features, LANES]. A weight is read where it is stored, spread to all lanes and multiplied with all tokens at once; a
# sum is one chain over the features in their order. No lane looks at another, so no token can tell who its neighbours
# are.


@njit(cache=True, nogil=True)
def spread(phase, rows_at, num_rows, width, panels_at):
    """Rows [num_rows, width] -> panels [panels, width, LANES]; lanes without a row hold zeros. An item is a panel."""
    rows = carray(_pointer(rows_at), (num_rows, width), np.float32)
    num_panels = (num_rows + LANES - 1) // LANES
    panels = carray(_pointer(panels_at), (num_panels, width, LANES), np.float32)
    panel = _take(phase)
    while panel < num_panels:
        first = panel * LANES
        used = min(LANES, num_rows - first)
        for feature in range(width):
            for lane in range(used):
                panels[panel, feature, lane] = rows[first + lane, feature]
            for lane in range(used, LANES):
                panels[panel, feature, lane] = 0
        _done(phase)
        panel = _take(phase)


@njit(cache=True, nogil=True, error_model="numpy")
def normalize(phase, hidden_at, num_panels, width, weight_at, epsilon_at, output_at):
    """RMSNorm of each token. An item is a panel."""
    hidden = carray(_pointer(hidden_at), (num_panels, width, LANES), np.float32)
    output = carray(_pointer(output_at), (num_panels, width, LANES), np.float32)
    weight = carray(_pointer(weight_at), (width,), np.float32)
    epsilon = carray(_pointer(epsilon_at), (1,), np.float32)[0]
    scale = np.empty(LANES, np.float32)
    panel = _take(phase)
    while panel < num_panels:
        scale[:] = 0
        for feature in range(width):
            for lane in range(LANES):
                scale[lane] += hidden[panel, feature, lane] * hidden[panel, feature, lane]
        for lane in range(LANES):
            scale[lane] = np.float32(1) / np.sqrt(scale[lane] / np.float32(width) + epsilon)
        for feature in range(width):
            for lane in range(LANES):
                output[panel, feature, lane] = weight[feature] * (hidden[panel, feature, lane] * scale[lane])
        _done(phase)
        panel = _take(phase)


@njit(cache=True, nogil=True)
def project_heads(
    phase,
    tokens_at,
    num_tokens,
    width,
    query_weight_at,
    key_weight_at,
    value_weight_at,
    kind,
    num_heads,
    num_kv_heads,
    head_dim,
    angles_at,
    query_at,
    keys_at,
    values_at,
):
    """Query, keys and values [num_tokens, heads, head_dim]; query and keys turned. An item is a head of two panels."""
    num_panels = (num_tokens + LANES - 1) // LANES
    angles = carray(_pointer(angles_at), (num_panels, head_dim, LANES), np.float32)
    product = np.empty((2, head_dim, LANES), np.float32)
    half, pairs = head_dim // 2, (num_panels + 1) // 2
    item = _take(phase)
    while item < (num_heads + 2 * num_kv_heads) * pairs:
        head, panel = item // pairs, item % pairs * 2
        used = min(2, num_panels - panel)
        if head < num_heads:
            weight_at, heads, rows_at = query_weight_at, num_heads, query_at
        elif head < num_heads + num_kv_heads:
            weight_at, heads, rows_at = key_weight_at, num_kv_heads, keys_at
            head -= num_heads
        else:
            weight_at, heads, rows_at = value_weight_at, num_kv_heads, values_at
            head -= num_heads + num_kv_heads
        _multiply(tokens_at, panel, used, width, weight_at, kind, head * head_dim, head_dim, product.ctypes.data)
        rows = carray(_pointer(rows_at), (num_tokens, heads, head_dim), np.float32)
        for each in range(used):
            if rows_at != values_at:
                for i in range(half):
                    for lane in range(LANES):
                        left, right = product[each, i, lane], product[each, i + half, lane]
                        cos, sin = angles[panel + each, i, lane], angles[panel + each, i + half, lane]
                        product[each, i, lane] = left * cos - right * sin
                        product[each, i + half, lane] = right * cos + left * sin
            first = (panel + each) * LANES
            for lane in range(min(LANES, num_tokens - first)):
                for i in range(head_dim):
                    rows[first + lane, head, i] = product[each, i, lane]
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def project_gated(phase, tokens_at, num_panels, width, gate_at, up_at, kind, outputs, output_at):
    """SwiGLU's inner half, [num_panels, outputs, LANES]: one product times the SiLU of another."""
    product = np.empty((2, 2, OUTPUTS, LANES), np.float32)  # gate and up, of two panels
    pairs = (num_panels + 1) // 2
    item = _take(phase)
    while item < (outputs + OUTPUTS - 1) // OUTPUTS * pairs:
        first, panel = item // pairs * OUTPUTS, item % pairs * 2
        used, count = min(2, num_panels - panel), min(OUTPUTS, outputs - first)
        gate, up = product[0].ctypes.data, product[1].ctypes.data
        _multiply(tokens_at, panel, used, width, gate_at, kind, first, count, gate)
        _multiply(tokens_at, panel, used, width, up_at, kind, first, count, up)
        for each in range(used):
            here = each * count * LANES * _FLOAT_BYTES
            there = ((panel + each) * outputs + first) * LANES * _FLOAT_BYTES
            _gate(gate + here, up + here, output_at + there, count * LANES)
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def project_onto(phase, tokens_at, num_panels, width, weight_at, kind, outputs, hidden_at):
    """Add a product to the stream [num_panels, outputs, LANES]."""
    hidden = carray(_pointer(hidden_at), (num_panels, outputs, LANES), np.float32)
    scratch = np.empty(2 * OUTPUTS * LANES, np.float32)
    pairs = (num_panels + 1) // 2
    item = _take(phase)
    while item < (outputs + OUTPUTS - 1) // OUTPUTS * pairs:
        first, panel = item // pairs * OUTPUTS, item % pairs * 2
        used, count = min(2, num_panels - panel), min(OUTPUTS, outputs - first)
        _multiply(tokens_at, panel, used, width, weight_at, kind, first, count, scratch.ctypes.data)
        product = scratch[: used * count * LANES].reshape((used, count, LANES))
        for each in range(used):
            for i in range(count):
                for lane in range(LANES):
                    hidden[panel + each, first + i, lane] += product[each, i, lane]
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def project_rows(phase, tokens_at, num_rows, width, weight_at, kind, outputs, rows_at):
    """Products as rows [num_rows, outputs]."""
    rows = carray(_pointer(rows_at), (num_rows, outputs), np.float32)
    scratch = np.empty(2 * OUTPUTS * LANES, np.float32)
    num_panels = (num_rows + LANES - 1) // LANES
    pairs = (num_panels + 1) // 2
    item = _take(phase)
    while item < (outputs + OUTPUTS - 1) // OUTPUTS * pairs:
        first, panel = item // pairs * OUTPUTS, item % pairs * 2
        used, count = min(2, num_panels - panel), min(OUTPUTS, outputs - first)
        _multiply(tokens_at, panel, used, width, weight_at, kind, first, count, scratch.ctypes.data)
        product = scratch[: used * count * LANES].reshape((used, count, LANES))
        for each in range(used):
            row = (panel + each) * LANES
            for lane in range(min(LANES, num_rows - row)):
                for i in range(count):
                    rows[row + lane, first + i] = product[each, i, lane]
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def _multiply(tokens_at, panel, panels, width, weight_at, kind, first, count, output_at):
    """One or two panels of tokens times `count` rows of the weight from `first` on -> [panels, count, LANES].

    Several tiles have the same sums: which one computes an output changes no bit of it.
    """
    if kind == 0:
        _multiply_as(FLOAT32, tokens_at, panel, panels, width, weight_at, first, count, output_at)
    elif kind == 1:
        _multiply_as(FLOAT16, tokens_at, panel, panels, width, weight_at, first, count, output_at)
    else:
        _multiply_as(BFLOAT16, tokens_at, panel, panels, width, weight_at, first, count, output_at)


@njit(cache=True, nogil=True)
def _multiply_as(empty, tokens_at, panel, panels, width, weight_at, first, count, output_at):
    row_bytes, output_bytes = width * empty.itemsize, LANES * _FLOAT_BYTES
    tokens = tokens_at + panel * width * LANES * _FLOAT_BYTES
    rows = weight_at + first * row_bytes
    done = 0
    if panels == 2:
        for done in range(0, count - WIDE + 1, WIDE):
            _tile(empty, tokens, width, 2, rows + done * row_bytes, WIDE, output_at + done * output_bytes, count)
        for done in range(count // WIDE * WIDE, count):
            _tile(empty, tokens, width, 2, rows + done * row_bytes, 1, output_at + done * output_bytes, count)
    else:
        for done in range(0, count - 8 + 1, 8):
            _tile(empty, tokens, width, 1, rows + done * row_bytes, 8, output_at + done * output_bytes, count)
        for done in range(count // 8 * 8, count):
            _tile(empty, tokens, width, 1, rows + done * row_bytes, 1, output_at + done * output_bytes, count)


@njit(cache=True, nogil=True)
def write(
    slots_at,
    keys_at,
    values_at,
    key_pages_at,
    value_pages_at,
    num_tokens,
    num_pages,
    num_kv_heads,
    page_size,
    row_bytes,
):
    """Copy rows to their slots, if all of these exist and are different. The bytes of a row need no type."""
    slots = carray(_pointer(slots_at), (num_tokens,), np.int64)
    if not _are_slots(slots, num_pages * page_size):
        return False
    for token in range(num_tokens):
        following = slots[min(token + 1, num_tokens - 1)]
        for head in range(num_kv_heads):
            source = (token * num_kv_heads + head) * row_bytes
            target = _row_in_layer(slots[token], head, num_kv_heads, page_size) * row_bytes
            ahead = _row_in_layer(following, head, num_kv_heads, page_size) * row_bytes
            for at in range(ahead, ahead + row_bytes, LINE_BYTES):
                _prefetch_to_write(key_pages_at + at)
                _prefetch_to_write(value_pages_at + at)
            _copy_bytes(key_pages_at + target, keys_at + source, row_bytes)
            _copy_bytes(value_pages_at + target, values_at + source, row_bytes)
    return True


@njit(cache=True, nogil=True)
def _row_in_layer(slot, head, num_kv_heads, page_size):
    """How many rows of head_dim numbers stand before this one: pages are [page, kv_head, slot, head_dim]."""
    page_id, offset = divmod(slot, page_size)
    return (page_id * num_kv_heads + head) * page_size + offset


@njit(cache=True, nogil=True)
def _are_slots(slots, num_slots):
    """Whether all slots exist and are different, by a hash table at most half full."""
    size = 2
    while size < 2 * len(slots):
        size *= 2
    seen = np.full(size, -1)
    for slot in slots:
        if not 0 <= slot < num_slots:
            return False
        at = (slot * HASH_FACTOR >> 16) & (size - 1)
        while seen[at] >= 0:
            if seen[at] == slot:
                return False
            at = (at + 1) & (size - 1)
        seen[at] = slot
    return True


# What threads run. A function gets the address of a block of integers: its arguments, and before them, for each of its
# phases, how many items of it are taken and how many are done. A thread takes items until none is left, then waits for
# those that others took; so a phase begins when the one before it is done, and nobody need know how many threads there
# are. `kvpaged.kernel.team` compiles these functions and runs them.


def attention_float32(block):
    _attention(block, FLOAT32)


def attention_float16(block):
    _attention(block, FLOAT16)


def attention_bfloat16(block):
    _attention(block, BFLOAT16)


@njit(cache=True, nogil=True)
def _attention(block, empty):
    """Attend, then merge."""
    phases, a = _open(block)
    query, keys, values, output, partial, tables, items, members, first_partial = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
    )  # fmt: skip
    n, heads, head_dim, num_pages, num_kv_heads, page_size, num_sequences, max_pages, num_items, num_partials = (
        a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16], a[17], a[18],
    )  # fmt: skip
    coded = a[19]
    attend(
        phases, query, keys, values, output, partial, tables, items, members, first_partial, n, heads, head_dim,
        num_pages, num_kv_heads, page_size, num_sequences, max_pages, num_items, coded, empty,
    )  # fmt: skip
    if num_partials:
        _await(phases, num_items)
        merge(phases + PHASE, first_partial, partial, output, n, heads, head_dim)


def begin_layer(block):
    """From the stream to query, keys and values: RMSNorm, linear layers, rotary positions."""
    phases, a = _open(block)
    hidden, normed, n, width, norm, epsilon, query_weight, key_weight, value_weight = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
    )  # fmt: skip
    kind, num_heads, num_kv_heads, head_dim, angles, query, keys, values = (
        a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
    )  # fmt: skip
    panels = num_panels_of(n)
    normalize(phases, hidden, panels, width, norm, epsilon, normed)
    _await(phases, panels)
    project_heads(
        phases + PHASE, normed, n, width, query_weight, key_weight, value_weight, kind, num_heads, num_kv_heads,
        head_dim, angles, query, keys, values,
    )  # fmt: skip


def finish_layer(block):
    """What attention found goes into the stream, and the feed-forward half after it."""
    phases, a = _open(block)
    attended, attended_panels, n, attended_width, output_weight, hidden, normed, width = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
    )  # fmt: skip
    kind, norm, epsilon, gate, up, inner, inner_width, down = (
        a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15],
    )  # fmt: skip
    panels = num_panels_of(n)
    spread(phases, attended, n, attended_width, attended_panels)
    _await(phases, panels)
    phases += PHASE
    project_onto(phases, attended_panels, panels, attended_width, output_weight, kind, width, hidden)
    _await(phases, num_items_of(panels, width))
    phases += PHASE
    normalize(phases, hidden, panels, width, norm, epsilon, normed)
    _await(phases, panels)
    phases += PHASE
    project_gated(phases, normed, panels, width, gate, up, kind, inner_width, inner)
    _await(phases, num_items_of(panels, inner_width))
    project_onto(phases + PHASE, inner, panels, inner_width, down, kind, width, hidden)


def find_logits(block):
    """RMSNorm of the stream, and its products with the head as rows."""
    phases, a = _open(block)
    hidden, normed, n, width, norm, epsilon, weight, kind, outputs, rows = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
    )  # fmt: skip
    panels = num_panels_of(n)
    normalize(phases, hidden, panels, width, norm, epsilon, normed)
    _await(phases, panels)
    project_rows(phases + PHASE, normed, n, width, weight, kind, outputs, rows)


def spread_rows(block):
    """Rows into panels."""
    phases, a = _open(block)
    spread(phases, a[0], a[1], a[2], a[3])


def multiply_rows(block):
    """One linear layer, from rows to rows."""
    phases, a = _open(block)
    rows, panels, n, width, weight, kind, outputs, output = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
    spread(phases, rows, n, width, panels)
    _await(phases, num_panels_of(n))
    project_rows(phases + PHASE, panels, n, width, weight, kind, outputs, output)


@njit(cache=True, nogil=True)
def _open(block):
    """The address of a block's phases, and its arguments."""
    integers = carray(block, BLOCK_SIZE)
    return integers.ctypes.data, integers[2 * PHASES :]


@njit(cache=True, nogil=True)
def _await(phase, num_items):
    """Wait until all items of a phase are done."""
    while _num_done(phase) < num_items:
        pass


@njit(cache=True, nogil=True)
def num_panels_of(num_tokens):
    return (num_tokens + LANES - 1) // LANES


@njit(cache=True, nogil=True)
def num_items_of(num_panels, outputs):
    """Work items of a linear layer: so many outputs of two panels."""
    return (outputs + OUTPUTS - 1) // OUTPUTS * ((num_panels + 1) // 2)


# The innermost loops, in LLVM's vector instructions


def _at(b: ir.IRBuilder, address: ir.Value, offset: int | ir.Value, kind: ir.Type) -> ir.Value:
    """A pointer to what stands `offset` bytes behind an address."""
    return b.inttoptr(b.add(address, _ADDRESS(offset) if isinstance(offset, int) else offset), kind.as_pointer())


def _load(b: ir.IRBuilder, address: ir.Value, offset: int | ir.Value, dtype: types.Type = types.float32) -> ir.Value:
    """LANES numbers as float32, from float32, float16 (int16) or bfloat16 (uint16), the upper half of a float32."""
    if dtype == types.float32:
        return b.load(_at(b, address, offset, _FLOATS), align=4)
    if dtype == types.int16:
        return b.fpext(b.load(_at(b, address, offset, ir.VectorType(ir.HalfType(), LANES)), align=2), _FLOATS)
    bits = b.load(_at(b, address, offset, ir.VectorType(ir.IntType(16), LANES)), align=2)
    return b.bitcast(b.shl(b.zext(bits, _INTS), _INTS([16] * LANES)), _FLOATS)


def _load_one(b: ir.IRBuilder, address: ir.Value, offset: ir.Value, dtype: types.Type) -> ir.Value:
    """The same for one number."""
    if dtype == types.float32:
        return b.load(_at(b, address, offset, _FLOAT))
    if dtype == types.int16:
        return b.fpext(b.load(_at(b, address, offset, ir.HalfType())), _FLOAT)
    bits = b.load(_at(b, address, offset, ir.IntType(16)))
    return b.bitcast(b.shl(b.zext(bits, _INT), _INT(16)), _FLOAT)


def _store(b: ir.IRBuilder, value: ir.Value, address: ir.Value, offset: int | ir.Value) -> None:
    b.store(value, _at(b, address, offset, value.type), align=4)


def _call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value, **flags: Any) -> ir.Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments, **flags)


def _math(b: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    return _call(b, f"llvm.{name}.v{LANES}f32", _FLOATS, *arguments)


def _fill(number: float) -> ir.Constant:
    return _FLOATS([float(np.float32(number))] * LANES)


def _splat(b: ir.IRBuilder, number: ir.Value, vector: ir.VectorType = _FLOATS) -> ir.Value:
    undefined = vector(ir.Undefined)
    return b.shuffle_vector(b.insert_element(undefined, number, _INT(0)), undefined, _INTS([0] * LANES))


def _prefetch(b: ir.IRBuilder, address: ir.Value, count: int) -> None:
    """Request `count` bytes, a cache line at a time."""
    # For reading (0), into the second-level cache (2), as data (1). The first level is too small to hold a block of
    # all heads until it is used, and its few miss buffers are needed by what is read now: a third slower.
    for line in range(0, count, LINE_BYTES):
        pointer = _at(b, address, line, ir.IntType(8))
        _call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, _INT(0), _INT(2), _INT(1))


def _counting(b: ir.IRBuilder, start: ir.Value, stop: ir.Value, step: int) -> Any:
    return cgutils.for_range_slice(b, start, stop, _ADDRESS(step), intp=_ADDRESS)


def _in_chunks(b: ir.IRBuilder, head_dim: ir.Value, most: int) -> Iterator[tuple[ir.Value, range]]:
    """Loops that cover head_dim in chunks of LANES numbers, `most` at a time as long as they fit, then half as many ...

    Yields the first number's index, and the chunks to emit code for; `most` is a power of two.
    """
    start = _ADDRESS(0)
    while most:
        rest = b.and_(b.sub(head_dim, start), _ADDRESS(-most * LANES))
        stop = b.add(start, rest)
        with _counting(b, start, stop, most * LANES) as (d, _):
            yield d, range(most)
        start = stop
        most //= 2


def _element(b: ir.IRBuilder, head_dim: ir.Value, head: int, d: ir.Value, chunk: int) -> ir.Value:
    """Where number d + chunk * LANES of a head is, in bytes from the first head's first."""
    index = b.add(b.add(d, b.mul(head_dim, _ADDRESS(head))), _ADDRESS(chunk * LANES))
    return b.mul(index, _ADDRESS(_FLOAT_BYTES))


def _accumulators(b: ir.IRBuilder, count: int) -> list[ir.Value]:
    return [cgutils.alloca_once_value(b, _fill(0)) for _ in range(count)]


def _add_product(b: ir.IRBuilder, accumulator: ir.Value, x: ir.Value, y: ir.Value) -> None:
    b.store(_math(b, "fma", x, y, b.load(accumulator)), accumulator)


def _sum_each(b: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """LANES vectors -> one vector, lane i the sum of vectors[i].

    Adding neighbours pairwise, each time the halves of every segment, takes 15 additions for 16 sums instead of 64.
    The last lanes come out in bit-reversed order, so the vectors go in in that order.
    """
    bits = LANES.bit_length() - 1
    vectors = [vectors[int(f"{lane:0{bits}b}"[::-1], 2)] for lane in range(LANES)]
    segment = LANES
    while len(vectors) > 1:
        half = segment // 2
        first = [source + lane for lane in range(0, LANES, segment) for source in (0, LANES)]
        low = _INTS([lane + i for lane in first for i in range(half)])
        high = _INTS([lane + half + i for lane in first for i in range(half)])
        vectors = [
            b.fadd(b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        segment = half
    return vectors[0]


def _exp2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2 ** x for x <= 0, zero below the smallest normal float.

    The whole part becomes the exponent bits, the rest goes through Taylor's series.
    """
    clamped = _math(b, "maxnum", x, _fill(-126))
    whole = _math(b, "rint", clamped)
    rest = b.fsub(clamped, whole)  # -0.5 to 0.5
    power = _fill(math.log(2) ** 7 / math.factorial(7))
    for degree in range(6, -1, -1):
        power = _math(b, "fma", power, rest, _fill(math.log(2) ** degree / math.factorial(degree)))
    exponent = b.shl(b.fptosi(whole, _INTS), _INTS([23] * LANES))
    result = b.bitcast(b.add(b.bitcast(power, _INTS), exponent), _FLOATS)
    result = b.select(b.fcmp_ordered("<", x, _fill(-126)), _fill(0), result)
    return b.select(b.fcmp_unordered("uno", x, x), x, result)  # not a number stays visible


Emit = Callable[[ir.IRBuilder, list[ir.Value]], ir.Value | None]


def _emitted(result: types.Type, arguments: tuple[types.Type, ...], emit: Emit) -> tuple[Any, Any]:
    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, values: list[ir.Value]) -> ir.Value:
        value = emit(builder, values)
        return context.get_dummy_value() if value is None else value

    return result(*arguments), codegen


@intrinsic(prefer_literal=True)
def _score_block(_typing, pages, base, row, query, head_dim, scores, group):
    """Scores of BLOCK tokens for `group` query heads of one kv head.

    base: the kv head's address in page 0; row: address of the tokens' row offsets, behind which stand those of the next
    BLOCK tokens, to prefetch. query: address of `group` rows; scores: address of `group` rows TILE apart.
    """
    heads, dtype, itemsize = group.literal_value, pages.dtype, pages.dtype.bitwidth // 8
    step = LANES // heads  # tokens whose accumulators fill LANES registers

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, base, row, query, head_dim, scores, _ = values
        sums = _accumulators(b, LANES)
        with _counting(b, _ADDRESS(0), _ADDRESS(BLOCK), step) as (first, _):
            for accumulator in sums:
                b.store(_fill(0), accumulator)
            rows = b.add(row, b.mul(first, _ADDRESS(_ADDRESS_BYTES)))
            for token in range(step):
                # Row after row, as they lie in memory: chunk by chunk across rows is a fifth slower.
                here = b.add(base, b.load(_at(b, rows, token * _ADDRESS_BYTES, _ADDRESS)))
                ahead = b.add(base, b.load(_at(b, rows, (token + BLOCK) * _ADDRESS_BYTES, _ADDRESS)))
                with _counting(b, _ADDRESS(0), head_dim, LANES) as (d, _):
                    offset = b.mul(d, _ADDRESS(itemsize))
                    key = _load(b, here, offset, dtype)
                    _prefetch(b, b.add(ahead, offset), LANES * itemsize)
                    for head in range(heads):
                        q = _load(b, query, _element(b, head_dim, head, d, 0))
                        _add_product(b, sums[head * step + token], key, q)
            every = _sum_each(b, [b.load(accumulator) for accumulator in sums])
            for head in range(heads):
                lanes = list(range(head * step, head * step + step))
                part = b.shuffle_vector(every, every, ir.VectorType(_INT, step)(lanes))
                _store(b, part, scores, b.mul(b.add(first, _ADDRESS(head * TILE)), _ADDRESS(_FLOAT_BYTES)))

    return _emitted(types.void, (pages, base, row, query, head_dim, scores, group), emit)


@intrinsic(prefer_literal=True)
def _score_rows(_typing, pages, base, row, query, head_dim, scores):
    """Scores of BLOCK tokens for 4 rows, in the order of `_score_block`; from registers, and with no look ahead."""
    dtype, itemsize = pages.dtype, pages.dtype.bitwidth // 8
    heads = 4
    step = LANES // heads

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, base, row, query, head_dim, scores = values
        sums = _accumulators(b, LANES)
        with _counting(b, _ADDRESS(0), _ADDRESS(BLOCK), step) as (first, _):
            for accumulator in sums:
                b.store(_fill(0), accumulator)
            rows = b.add(row, b.mul(first, _ADDRESS(_ADDRESS_BYTES)))
            here = [b.add(base, b.load(_at(b, rows, token * _ADDRESS_BYTES, _ADDRESS))) for token in range(step)]
            with _counting(b, _ADDRESS(0), head_dim, LANES) as (d, _):
                offset = b.mul(d, _ADDRESS(itemsize))
                key = [_load(b, each, offset, dtype) for each in here]
                for head in range(heads):
                    q = _load(b, query, _element(b, head_dim, head, d, 0))
                    for token in range(step):
                        _add_product(b, sums[head * step + token], key[token], q)
            every = _sum_each(b, [b.load(accumulator) for accumulator in sums])
            for head in range(heads):
                lanes = list(range(head * step, head * step + step))
                part = b.shuffle_vector(every, every, ir.VectorType(_INT, step)(lanes))
                _store(b, part, scores, b.mul(b.add(first, _ADDRESS(head * TILE)), _ADDRESS(_FLOAT_BYTES)))

    return _emitted(types.void, (pages, base, row, query, head_dim, scores), emit)


@intrinsic(prefer_literal=True)
def _weigh_block(_typing, pages, base, row, weights, head_dim, output, group, ahead):
    """Add BLOCK rows of V, each times its weight, to the output of `group` query heads of one kv head.

    base and row as for `_score_block`; weights: address of `group` rows TILE apart; output: address of `group` rows.
    """
    heads, dtype, itemsize = group.literal_value, pages.dtype, pages.dtype.bitwidth // 8

    prefetch = ahead.literal_value

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, base, row, weights, head_dim, output, _, _ = values
        for d, chunks in _in_chunks(b, head_dim, LANES // heads):
            sums = [_accumulators(b, len(chunks)) for _ in range(heads)]
            for head in range(heads):
                for c in chunks:
                    b.store(_load(b, output, _element(b, head_dim, head, d, c)), sums[head][c])
            offset = b.add(base, b.mul(d, _ADDRESS(itemsize)))
            with _counting(b, _ADDRESS(0), _ADDRESS(BLOCK), 1) as (token, _):
                row_at = b.add(row, b.mul(token, _ADDRESS(_ADDRESS_BYTES)))
                here = b.add(offset, b.load(_at(b, row_at, 0, _ADDRESS)))
                if prefetch:
                    ahead = b.add(offset, b.load(_at(b, row_at, BLOCK * _ADDRESS_BYTES, _ADDRESS)))
                    _prefetch(b, ahead, len(chunks) * LANES * itemsize)
                row_values = [_load(b, here, c * LANES * itemsize, dtype) for c in chunks]
                for head in range(heads):
                    weight_at = b.mul(b.add(token, _ADDRESS(head * TILE)), _ADDRESS(_FLOAT_BYTES))
                    weight = _splat(b, b.load(_at(b, weights, weight_at, _FLOAT)))
                    for c in chunks:
                        _add_product(b, sums[head][c], row_values[c], weight)
            for head in range(heads):
                for c in chunks:
                    _store(b, b.load(sums[head][c]), output, _element(b, head_dim, head, d, c))

    return _emitted(types.void, (pages, base, row, weights, head_dim, output, group, ahead), emit)


@intrinsic(prefer_literal=True)
def _read_rows(_typing, codes, count, width, scales, output, bits, by_channel):
    """Codes of `count` tokens, `width` bytes each, times their scales: rows of floats, as far as whole vectors go.

    scales: the address of a scale for each token, or (by_channel) of one for each number of a row.
    """
    num_bits, each = bits.literal_value, by_channel.literal_value

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        codes, count, width, scales, output, _, _ = values
        part_bytes = b.mul(width, _ADDRESS(_FLOAT_BYTES))  # of the numbers that lie in the same bits
        with _counting(b, _ADDRESS(0), count, 1) as (row, _):
            row_at = b.add(codes, b.mul(row, width))
            to = b.add(output, b.mul(row, b.mul(part_bytes, _ADDRESS(8 // num_bits))))
            if not each:
                own = _splat(b, b.load(_at(b, scales, b.mul(row, _ADDRESS(_FLOAT_BYTES)), _FLOAT)))
            with _counting(b, _ADDRESS(0), b.and_(width, _ADDRESS(-LANES)), LANES) as (at, _):
                loaded = b.zext(b.load(_at(b, row_at, at, ir.VectorType(ir.IntType(8), LANES)), align=1), _INTS)
                for part in range(8 // num_bits):
                    code = b.lshr(loaded, _INTS([part * num_bits] * LANES))
                    code = b.and_(code, _INTS([(1 << num_bits) - 1] * LANES))
                    whole = b.sitofp(b.sub(code, _INTS([1 << (num_bits - 1)] * LANES)), _FLOATS)
                    offset = b.add(b.mul(part_bytes, _ADDRESS(part)), b.mul(at, _ADDRESS(_FLOAT_BYTES)))
                    scale = _load(b, scales, offset) if each else own
                    _store(b, b.fmul(whole, scale), to, offset)

    return _emitted(types.void, (codes, count, width, scales, output, bits, by_channel), emit)


@intrinsic
def _prefetch_to_read(_typing, address):
    """Request a cache line that will be read soon."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _prefetch(b, values[0], 1)

    return _emitted(types.void, (address,), emit)


@intrinsic
def _largest(_typing, scores, count):
    """The largest of `count` scores; count is a multiple of BLOCK."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        scores, count = values
        largest = cgutils.alloca_once(b, _FLOATS)
        b.store(_fill(float(LOWEST)), largest)
        with _counting(b, _ADDRESS(0), count, LANES) as (token, _):
            score = _load(b, scores, b.mul(token, _ADDRESS(_FLOAT_BYTES)))
            b.store(_math(b, "maxnum", b.load(largest), score), largest)
        return _call(b, f"llvm.vector.reduce.fmax.v{LANES}f32", _FLOAT, b.load(largest), fastmath=("nnan",))

    return _emitted(types.float32, (scores, count), emit)


@intrinsic
def _exponentiate(_typing, scores, count, largest):
    """Replace `count` scores by 2 ** (score - largest); return their sum. count is a multiple of BLOCK."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        scores, count, largest = values
        subtracted = _splat(b, largest)
        total = cgutils.alloca_once(b, _FLOATS)
        b.store(_fill(0), total)
        with _counting(b, _ADDRESS(0), count, LANES) as (token, _):
            offset = b.mul(token, _ADDRESS(_FLOAT_BYTES))
            weight = _exp2(b, b.fsub(_load(b, scores, offset), subtracted))
            _store(b, weight, scores, offset)
            b.store(b.fadd(b.load(total), weight), total)
        zero = _FLOAT(-0.0)
        return _call(b, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, zero, b.load(total), fastmath=("reassoc",))

    return _emitted(types.float32, (scores, count, largest), emit)


@intrinsic(prefer_literal=True)
def _tile(_typing, empty, tokens, width, panels, weights, outputs, output, height):
    """Products of `panels` panels of tokens with `outputs` rows of a weight, to output [panels, height, LANES]."""
    dtype, itemsize = empty.dtype, empty.dtype.bitwidth // 8
    num_panels, num_outputs = panels.literal_value, outputs.literal_value

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, tokens, width, _, weights, _, output, height = values
        vector = LANES * _FLOAT_BYTES
        row_bytes = b.mul(width, _ADDRESS(itemsize))
        panels_at = [b.add(tokens, b.mul(b.mul(width, _ADDRESS(vector)), _ADDRESS(p))) for p in range(num_panels)]
        rows_at = [b.add(weights, b.mul(row_bytes, _ADDRESS(o))) for o in range(num_outputs)]
        sums = [_accumulators(b, num_panels) for _ in range(num_outputs)]

        def add_products(feature: ir.Value) -> None:
            each = [_load(b, at, b.mul(feature, _ADDRESS(vector))) for at in panels_at]
            for at, row in zip(rows_at, sums, strict=True):
                weight = _splat(b, _load_one(b, at, b.mul(feature, _ADDRESS(itemsize)), dtype))
                for numbers, accumulator in zip(each, row, strict=True):
                    _add_product(b, accumulator, numbers, weight)

        whole = b.and_(width, _ADDRESS(-LINE_FEATURES))
        with _counting(b, _ADDRESS(0), whole, LINE_FEATURES) as (line, _):
            if num_panels == 1:  # with few tokens, memory is what one waits for: request the next rows
                for at in rows_at:
                    ahead = b.add(at, b.mul(row_bytes, _ADDRESS(num_outputs)))
                    _prefetch(b, b.add(ahead, b.mul(line, _ADDRESS(itemsize))), 1)
            with _counting(b, line, b.add(line, _ADDRESS(LINE_FEATURES)), 4) as (feature, _):
                for i in range(4):
                    add_products(b.add(feature, _ADDRESS(i)))
        with _counting(b, whole, width, 1) as (feature, _):
            add_products(feature)
        for o, row in enumerate(sums):
            for p, accumulator in enumerate(row):
                offset = b.mul(b.add(b.mul(height, _ADDRESS(p)), _ADDRESS(o)), _ADDRESS(vector))
                _store(b, b.load(accumulator), output, offset)

    return _emitted(types.void, (empty, tokens, width, panels, weights, outputs, output, height), emit)


@intrinsic
def _gate(_typing, gate, up, output, count):
    """SwiGLU: `count` numbers of `up` times the SiLU, x / (1 + exp(-x)), of as many of `gate`."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        gate, up, output, count = values
        with _counting(b, _ADDRESS(0), count, LANES) as (at, _):
            offset = b.mul(at, _ADDRESS(_FLOAT_BYTES))
            x = _load(b, gate, offset)
            power = _exp2(b, b.fmul(_math(b, "fabs", x), _fill(-LOG2_E)))  # exp(-|x|), which cannot overflow
            positive = b.fcmp_ordered(">", x, _fill(0))
            sigmoid = b.fdiv(b.select(positive, _fill(1), power), b.fadd(_fill(1), power))
            _store(b, b.fmul(b.fmul(x, sigmoid), _load(b, up, offset)), output, offset)

    return _emitted(types.void, (gate, up, output, count), emit)


@intrinsic
def _take(_typing, phase):
    """The number of the next item, which nobody else gets."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        return b.atomic_rmw("add", _at(b, values[0], 0, _ADDRESS), _ADDRESS(1), "monotonic")

    return _emitted(types.int64, (phase,), emit)


@intrinsic
def _done(_typing, phase):
    """One more item of a phase is done: what it wrote can be seen by who sees this."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        b.atomic_rmw("add", _at(b, values[0], _ADDRESS_BYTES, _ADDRESS), _ADDRESS(1), "release")

    return _emitted(types.void, (phase,), emit)


@intrinsic
def _num_done(_typing, phase):
    """How many items of a phase are done."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        return b.load_atomic(_at(b, values[0], _ADDRESS_BYTES, _ADDRESS), "acquire", 8)

    return _emitted(types.int64, (phase,), emit)


@intrinsic
def _pointer(_typing, address):
    """An address as a pointer, for `carray`."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        return _at(b, values[0], 0, ir.IntType(8))

    return _emitted(types.voidptr, (address,), emit)


@intrinsic
def _prefetch_to_write(_typing, address):
    """Request a cache line that will be written next."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        pointer = _at(b, values[0], 0, ir.IntType(8))
        _call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, _INT(1), _INT(3), _INT(1))

    return _emitted(types.void, (address,), emit)


@intrinsic
def _copy_bytes(_typing, target, source, count):
    """memcpy."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        target, source, count = values
        byte = ir.IntType(8)
        cgutils.raw_memcpy(b, _at(b, target, 0, byte), _at(b, source, 0, byte), count, 1)

    return _emitted(types.void, (target, source, count), emit)
