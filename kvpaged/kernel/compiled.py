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
5. Where many rows read a block of short heads, as in a prompt, its K is turned first: tokens stand in the lanes then,
   and no sum has to be gathered from lanes.

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
STEP = 1 + BLOCK_SIZE  # of a program: a function's address, and its block
OUTPUTS, TOKENS = 64, 32  # of a linear layer: one work item
PAIR = LANES // 2  # rows that two tokens are multiplied with
BLOCK = 16  # tokens scored between two looks at the page table
ROWS = 6
MOST = 4
WORTH_TURNING = 8  # rows
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
    columns = np.empty((head_dim, BLOCK), np.float32)  # its address is asked for where it is used: that keeps it alive
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
                    turned = end - row >= 2 * ROWS and (head_dim == 2 * LANES or head_dim == 4 * LANES)
                    if turned:
                        _turn_block(keys, base, tokens_at, head_dim, columns.ctypes.data)
                    while row < end:
                        q = scaled_at + row * head_dim * _FLOAT_BYTES
                        s = scores_at + (row * TILE + token) * _FLOAT_BYTES
                        if turned and end - row >= ROWS:
                            if head_dim == 2 * LANES:
                                _score_columns(columns.ctypes.data, q, s, 2)
                            else:
                                _score_columns(columns.ctypes.data, q, s, 4)
                            row += ROWS
                        elif end - row > 4:
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
# An output is the product of a token's row and a row of the weight: LANES sums along the features, of every LANES-th
# product each, and then these sums together, always in the same order. Rows are read where they lie, in tiles of a few
# tokens by a few outputs, whose sums fill LANES vectors. No tile mixes tokens, so no token can tell who its neighbours
# are.


@njit(cache=True, nogil=True, error_model="numpy")
def normalize(phase, hidden_at, num_tokens, width, weight_at, epsilon_at, output_at):
    """RMSNorm of each token. An item is a token."""
    hidden = carray(_pointer(hidden_at), (num_tokens, width), np.float32)
    output = carray(_pointer(output_at), (num_tokens, width), np.float32)
    weight = carray(_pointer(weight_at), (width,), np.float32)
    epsilon = carray(_pointer(epsilon_at), (1,), np.float32)[0]
    token = _take(phase)
    while token < num_tokens:
        squares = _sum_squares(hidden_at + token * width * _FLOAT_BYTES, width)
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        for feature in range(width):
            output[token, feature] = weight[feature] * (hidden[token, feature] * scale)
        _done(phase)
        token = _take(phase)


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
    """Query, keys and values [num_tokens, heads, head_dim]; query and keys turned. An item is a head of some tokens."""
    angles = carray(_pointer(angles_at), (num_tokens, head_dim), np.float32)
    half, groups = head_dim // 2, (num_tokens + TOKENS - 1) // TOKENS
    item = _take(phase)
    while item < num_head_items(num_tokens, num_heads, num_kv_heads):
        head, token = item // groups, item % groups * TOKENS
        count = min(TOKENS, num_tokens - token)
        if head < num_heads:
            weight_at, heads, rows_at = query_weight_at, num_heads, query_at
        elif head < num_heads + num_kv_heads:
            weight_at, heads, rows_at = key_weight_at, num_kv_heads, keys_at
            head -= num_heads
        else:
            weight_at, heads, rows_at = value_weight_at, num_kv_heads, values_at
            head -= num_heads + num_kv_heads
        tokens, stride = tokens_at + token * width * _FLOAT_BYTES, heads * head_dim
        output_at = rows_at + (token * heads + head) * head_dim * _FLOAT_BYTES
        _multiply(tokens, count, width, width, weight_at, kind, head * head_dim, head_dim, output_at, stride)
        if rows_at != values_at:
            rows = carray(_pointer(rows_at), (num_tokens, heads, head_dim), np.float32)
            for each in range(token, token + count):
                for i in range(half):
                    left, right = rows[each, head, i], rows[each, head, i + half]
                    cos, sin = angles[each, i], angles[each, i + half]
                    rows[each, head, i] = left * cos - right * sin
                    rows[each, head, i + half] = right * cos + left * sin
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def project_gated(phase, tokens_at, num_tokens, width, gate_at, up_at, kind, outputs, inner_at, stride):
    """SwiGLU's inner half, a row of `stride` numbers for each token: one product times the SiLU of another."""
    up = np.empty((TOKENS, OUTPUTS), np.float32)
    groups = (num_tokens + TOKENS - 1) // TOKENS
    item = _take(phase)
    while item < num_items_of(num_tokens, outputs):
        first, token = item // groups * OUTPUTS, item % groups * TOKENS
        count, wanted = min(TOKENS, num_tokens - token), min(OUTPUTS, outputs - first)
        tokens, output_at = tokens_at + token * width * _FLOAT_BYTES, inner_at + (token * stride + first) * _FLOAT_BYTES
        _multiply(tokens, count, width, width, gate_at, kind, first, wanted, output_at, stride)
        _multiply(tokens, count, width, width, up_at, kind, first, wanted, up.ctypes.data, OUTPUTS)
        for each in range(count):
            _gate(output_at + each * stride * _FLOAT_BYTES, up.ctypes.data + each * OUTPUTS * _FLOAT_BYTES, wanted)
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def project(phase, tokens_at, num_tokens, width, stride, weight_at, kind, outputs, rows_at, onto):
    """Products of rows `stride` numbers apart, as rows [num_tokens, outputs]: added to what stands there, or (not
    `onto`) in its place.
    """
    rows = carray(_pointer(rows_at), (num_tokens, outputs), np.float32)
    product = np.empty((TOKENS, OUTPUTS), np.float32)
    groups = (num_tokens + TOKENS - 1) // TOKENS
    item = _take(phase)
    while item < num_items_of(num_tokens, outputs):
        first, token = item // groups * OUTPUTS, item % groups * TOKENS
        count, wanted = min(TOKENS, num_tokens - token), min(OUTPUTS, outputs - first)
        tokens = tokens_at + token * stride * _FLOAT_BYTES
        _multiply(tokens, count, stride, width, weight_at, kind, first, wanted, product.ctypes.data, OUTPUTS)
        for each in range(count):
            for i in range(wanted):
                before = rows[token + each, first + i] if onto else np.float32(0)
                rows[token + each, first + i] = before + product[each, i]
        _done(phase)
        item = _take(phase)


@njit(cache=True, nogil=True)
def _multiply(tokens_at, num_tokens, tokens_stride, width, weight_at, kind, first, count, output_at, stride):
    """Rows of tokens, `tokens_stride` numbers apart, times `count` rows of the weight from `first` on.

    output_at: for each token a row, `stride` numbers apart, with room for whole vectors of outputs.
    """
    if kind == 0:
        _multiply_as(FLOAT32, tokens_at, num_tokens, tokens_stride, width, weight_at, first, count, output_at, stride)
    elif kind == 1:
        _multiply_as(FLOAT16, tokens_at, num_tokens, tokens_stride, width, weight_at, first, count, output_at, stride)
    else:
        _multiply_as(BFLOAT16, tokens_at, num_tokens, tokens_stride, width, weight_at, first, count, output_at, stride)


@njit(cache=True, nogil=True)
def _multiply_as(empty, tokens_at, num_tokens, tokens_stride, width, weight_at, first, count, output_at, stride):
    """Tiles of 4 tokens, as long as they go; then of 2, and of 1."""
    row_bytes, token_bytes, output_bytes = width * empty.itemsize, tokens_stride * _FLOAT_BYTES, stride * _FLOAT_BYTES
    weight_at += first * row_bytes
    fours = num_tokens // 4 * 4
    for done in range(0, count if fours else 0, LANES // 4):
        rows, to, left = weight_at + done * row_bytes, output_at + done * _FLOAT_BYTES, count - done
        ahead = rows + LANES // 4 * row_bytes  # the rows of the next tiles, which may still be in memory
        for token in range(0, fours, 4):
            tokens, output = tokens_at + token * token_bytes, to + token * output_bytes
            if token < LANES:  # each of these tiles requests one of them
                asked = ahead + token // 4 * row_bytes
                _tile(empty, tokens, token_bytes, width, rows, left, output, stride, 4, 1, asked)
            else:
                _tile(empty, tokens, token_bytes, width, rows, left, output, stride, 4, 0, ahead)
    tokens_at, output_at = tokens_at + fours * token_bytes, output_at + fours * output_bytes
    if num_tokens & 2:
        for done in range(0, count, PAIR):
            rows, to, left = weight_at + done * row_bytes, output_at + done * _FLOAT_BYTES, count - done
            ahead = rows + PAIR * row_bytes
            _tile(empty, tokens_at, token_bytes, width, rows, left, to, stride, 2, PAIR, ahead)
        tokens_at, output_at = tokens_at + 2 * token_bytes, output_at + 2 * output_bytes
    if num_tokens & 1:
        for done in range(0, count, LANES):
            rows, to, left = weight_at + done * row_bytes, output_at + done * _FLOAT_BYTES, count - done
            _tile(empty, tokens_at, token_bytes, width, rows, left, to, stride, 1, 0, rows)


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
    if not are_slots(slots, num_pages * page_size):
        return False
    copy_rows(
        slots_at, keys_at, values_at, key_pages_at, value_pages_at, num_tokens, num_kv_heads, page_size, row_bytes
    )
    return True


@njit(cache=True, nogil=True)
def copy_rows(
    slots_at, keys_at, values_at, key_pages_at, value_pages_at, num_tokens, num_kv_heads, page_size, row_bytes
):
    """Copy rows to their slots, which all exist."""
    slots = carray(_pointer(slots_at), (num_tokens,), np.int64)
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


@njit(cache=True, nogil=True)
def _row_in_layer(slot, head, num_kv_heads, page_size):
    """How many rows of head_dim numbers stand before this one: pages are [page, kv_head, slot, head_dim]."""
    page_id, offset = divmod(slot, page_size)
    return (page_id * num_kv_heads + head) * page_size + offset


@njit(cache=True, nogil=True)
def are_slots(slots, num_slots):
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
# are. `kvpaged.kernel.team` compiles these functions and runs them; `kvpaged.kernel.one_pass`, many in one call.


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
    keys, values, query, output, partial, tables, items, members, first_partial = (
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
    _await(phases, num_items)
    if num_partials:
        phases += PHASE
        merge(phases, first_partial, partial, output, n, heads, head_dim)
        _await(phases, n)


def write_rows(block):
    """Copy rows to their slots, which all exist. One item is all of it."""
    phases, a = _open(block)
    key_pages, value_pages, slots, keys, values, n, num_kv_heads, page_size, row_bytes = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
    )  # fmt: skip
    if _take(phases) == 0:
        copy_rows(slots, keys, values, key_pages, value_pages, n, num_kv_heads, page_size, row_bytes)
        _done(phases)
    _await(phases, 1)


def begin_layer(block):
    """From the stream to query, keys and values: RMSNorm, linear layers, rotary positions."""
    phases, a = _open(block)
    norm, query_weight, key_weight, value_weight, hidden, normed, n, width, epsilon = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8],
    )  # fmt: skip
    kind, num_heads, num_kv_heads, head_dim, angles, query, keys, values = (
        a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
    )  # fmt: skip
    normalize(phases, hidden, n, width, norm, epsilon, normed)
    _await(phases, n)
    phases += PHASE
    project_heads(
        phases, normed, n, width, query_weight, key_weight, value_weight, kind, num_heads, num_kv_heads, head_dim,
        angles, query, keys, values,
    )  # fmt: skip
    _await(phases, num_head_items(n, num_heads, num_kv_heads))


def finish_layer(block):
    """What attention found goes into the stream, and the feed-forward half after it."""
    phases, a = _open(block)
    output_weight, norm, gate, up, down, attended, n, attended_width = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
    hidden, normed, width, kind, epsilon, inner, inner_width, inner_stride = (
        a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15],
    )  # fmt: skip
    project(phases, attended, n, attended_width, attended_width, output_weight, kind, width, hidden, True)
    _await(phases, num_items_of(n, width))
    phases += PHASE
    normalize(phases, hidden, n, width, norm, epsilon, normed)
    _await(phases, n)
    phases += PHASE
    project_gated(phases, normed, n, width, gate, up, kind, inner_width, inner, inner_stride)
    _await(phases, num_items_of(n, inner_width))
    phases += PHASE
    project(phases, inner, n, inner_width, inner_stride, down, kind, width, hidden, True)
    _await(phases, num_items_of(n, width))


def find_logits(block):
    """RMSNorm of the stream, and its products with the head as rows."""
    phases, a = _open(block)
    hidden, normed, n, width, norm, epsilon, weight, kind, outputs, rows = (
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
    )  # fmt: skip
    normalize(phases, hidden, n, width, norm, epsilon, normed)
    _await(phases, n)
    project(phases + PHASE, normed, n, width, width, weight, kind, outputs, rows, False)


def multiply_rows(block):
    """One linear layer, from rows to rows."""
    phases, a = _open(block)
    rows, n, width, weight, kind, outputs, output = a[0], a[1], a[2], a[3], a[4], a[5], a[6]
    project(phases, rows, n, width, width, weight, kind, outputs, output, False)


def run_steps(block):
    """Some of the functions above, each on a block of its own, one after another: the steps of a program."""
    _, a = _open(block)
    for step in range(a[1]):
        _call_step(a[0] + step * STEP * _ADDRESS_BYTES)


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
def num_head_items(num_tokens, num_heads, num_kv_heads):
    """Work items of a layer's query, keys and values: a head of so many tokens."""
    return (num_heads + 2 * num_kv_heads) * ((num_tokens + TOKENS - 1) // TOKENS)


@njit(cache=True, nogil=True)
def num_items_of(num_tokens, outputs):
    """Work items of a linear layer: so many outputs of so many tokens."""
    return (outputs + OUTPUTS - 1) // OUTPUTS * ((num_tokens + TOKENS - 1) // TOKENS)


# The innermost loops, in LLVM's vector instructions


def _at(b: ir.IRBuilder, address: ir.Value, offset: int | ir.Value, kind: ir.Type) -> ir.Value:
    """A pointer to what stands `offset` bytes behind an address."""
    return b.inttoptr(b.add(address, _ADDRESS(offset) if isinstance(offset, int) else offset), kind.as_pointer())


def _load(
    b: ir.IRBuilder,
    address: ir.Value,
    offset: int | ir.Value,
    dtype: types.Type = types.float32,
    some: ir.Value | None = None,
) -> ir.Value:
    """LANES numbers as float32, from float32, float16 (int16) or bfloat16 (uint16), the upper half of a float32.

    some: how many to read, if not all; the other lanes hold zeros.
    """
    if dtype == types.float32:
        return _read(b, address, offset, _FLOAT, "f32", some)
    if dtype == types.int16:
        return b.fpext(_read(b, address, offset, ir.HalfType(), "f16", some), _FLOATS)
    bits = _read(b, address, offset, ir.IntType(16), "i16", some)
    return b.bitcast(b.shl(b.zext(bits, _INTS), _INTS([16] * LANES)), _FLOATS)


def _read(
    b: ir.IRBuilder, address: ir.Value, offset: int | ir.Value, kind: ir.Type, name: str, some: ir.Value | None
) -> ir.Value:
    vector = ir.VectorType(kind, LANES)
    at, size = _at(b, address, offset, vector), 4 if name == "f32" else 2
    if some is None:
        return b.load(at, align=size)
    lanes = _INTS(list(range(LANES)))
    mask = b.icmp_unsigned("<", lanes, _splat(b, b.trunc(some, _INT), _INTS))
    zeros = ir.Constant(vector, None)
    return _call(b, f"llvm.masked.load.v{LANES}{name}.p0", vector, at, _INT(size), mask, zeros)


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


def _turn(b: ir.IRBuilder, vectors: list[ir.Value]) -> list[ir.Value]:
    """LANES vectors -> as many, lane j of vector i the lane i of vectors[j]: bit by bit, i and j are exchanged."""
    bit = 1
    while bit < LANES:
        low = _INTS([LANES + (lane ^ bit) if lane & bit else lane for lane in range(LANES)])
        high = _INTS([LANES + lane if lane & bit else lane ^ bit for lane in range(LANES)])
        turned = list(vectors)
        for i in range(LANES):
            if not i & bit:
                turned[i] = b.shuffle_vector(vectors[i], vectors[i | bit], low)
                turned[i | bit] = b.shuffle_vector(vectors[i], vectors[i | bit], high)
        vectors, bit = turned, 2 * bit
    return vectors


def _add_up(b: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of a vector's lanes."""
    name, zero = f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT(-0.0)
    return _call(b, name, _FLOAT, zero, vector, fastmath=("reassoc",))


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
def _turn_block(_typing, pages, base, row, head_dim, columns):
    """Write BLOCK rows of K, base and row as for `_score_block`, as float32 columns: [head_dim, BLOCK]."""
    dtype, itemsize = pages.dtype, pages.dtype.bitwidth // 8

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, base, row, head_dim, columns = values
        for first in range(0, BLOCK, LANES):
            here = [
                b.add(base, b.load(_at(b, row, (first + token) * _ADDRESS_BYTES, _ADDRESS))) for token in range(LANES)
            ]
            with _counting(b, _ADDRESS(0), head_dim, LANES) as (d, _):
                turned = _turn(b, [_load(b, each, b.mul(d, _ADDRESS(itemsize)), dtype) for each in here])
                for i, column in enumerate(turned):
                    at = b.mul(b.add(d, _ADDRESS(i)), _ADDRESS(BLOCK * _FLOAT_BYTES))
                    _store(b, column, columns, b.add(at, _ADDRESS(first * _FLOAT_BYTES)))

    return _emitted(types.void, (pages, base, row, head_dim, columns), emit)


@intrinsic(prefer_literal=True)
def _score_columns(_typing, columns, query, scores, chunks):
    """Scores of a block that is turned, for ROWS rows of `chunks` times LANES numbers; to the bit as in `_score_block`.

    A lane is a token. What stands there in one lane of an accumulator is one vector here, and they are added in the
    order in which `_sum_each` adds lanes: so nothing moves from lane to lane. The loops are unrolled, or they would
    take longer than all that is saved.
    """
    num_chunks = chunks.literal_value

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        columns, query, scores, _ = values
        with _counting(b, _ADDRESS(0), _ADDRESS(BLOCK * _FLOAT_BYTES), LANES * _FLOAT_BYTES) as (first, _):
            here = b.add(columns, first)

            def add_up(lane: int, apart: int) -> list[ir.Value]:
                """Of each row, the sum of every `apart`-th lane from this one on."""
                if apart < LANES:
                    both = add_up(lane, 2 * apart), add_up(lane + apart, 2 * apart)
                    return [b.fadd(x, y) for x, y in zip(*both, strict=True)]
                sums: list[ir.Value] = [_fill(0)] * ROWS
                for d in range(lane, num_chunks * LANES, LANES):
                    key = _load(b, here, d * BLOCK * _FLOAT_BYTES)
                    for row in range(ROWS):
                        at = _at(b, query, (row * num_chunks * LANES + d) * _FLOAT_BYTES, _FLOAT)
                        sums[row] = _math(b, "fma", key, _splat(b, b.load(at)), sums[row])
                return sums

            for row, score in enumerate(add_up(0, 1)):
                _store(b, score, scores, b.add(first, _ADDRESS(row * TILE * _FLOAT_BYTES)))

    return _emitted(types.void, (columns, query, scores, chunks), emit)


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
        return _add_up(b, b.load(total))

    return _emitted(types.float32, (scores, count, largest), emit)


@intrinsic(prefer_literal=True)
def _tile(_typing, empty, tokens, token_bytes, width, weights, left, output, stride, num_tokens, ahead, next_rows):
    """Products of `num_tokens` tokens with LANES // num_tokens rows of a weight, of which `left` are left.

    Where fewer are left, the last one is multiplied again. ahead: how many rows to request from `next_rows` on.
    """
    dtype, itemsize = empty.dtype, empty.dtype.bitwidth // 8
    height, num_ahead = num_tokens.literal_value, ahead.literal_value
    outputs = LANES // height

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, tokens, token_bytes, width, weights, left, output, stride, _, _, next_rows = values
        row_bytes, last = b.mul(width, _ADDRESS(itemsize)), b.sub(left, _ADDRESS(1))
        tokens_at = [b.add(tokens, b.mul(token_bytes, _ADDRESS(t))) for t in range(height)]
        rows = [b.select(b.icmp_signed("<", last, _ADDRESS(o)), last, _ADDRESS(o)) for o in range(outputs)]
        rows_at = [b.add(weights, b.mul(row_bytes, row)) for row in rows]
        sums = _accumulators(b, LANES)
        whole = b.and_(width, _ADDRESS(-LANES))

        def add_products(feature: ir.Value, which: range, some: ir.Value | None = None) -> None:
            each = [_load(b, at, b.mul(feature, _ADDRESS(_FLOAT_BYTES)), some=some) for at in tokens_at]
            for o in which:
                weight = _load(b, rows_at[o], b.mul(feature, _ADDRESS(itemsize)), dtype, some)
                for t in range(height):
                    _add_product(b, sums[t * outputs + o], each[t], weight)

        # A token alone waits for memory: one row after another is one stream, which the processor itself reads ahead.
        at_once = 1 if height == 1 else outputs
        for first in range(0, outputs, at_once):
            with _counting(b, _ADDRESS(0), whole, LANES) as (feature, _):
                for row in range(num_ahead):
                    at = b.add(next_rows, b.mul(row_bytes, _ADDRESS(first + row)))
                    _prefetch(b, b.add(at, b.mul(feature, _ADDRESS(itemsize))), LANES * itemsize)
                add_products(feature, range(first, first + at_once))
        with b.if_then(b.icmp_signed("<", whole, width), likely=False):
            add_products(whole, range(outputs), b.sub(width, whole))
        every = _sum_each(b, [b.load(accumulator) for accumulator in sums])
        for t in range(height):
            lanes = list(range(t * outputs, (t + 1) * outputs))
            part = b.shuffle_vector(every, every, ir.VectorType(_INT, outputs)(lanes))
            _store(b, part, output, b.mul(stride, _ADDRESS(t * _FLOAT_BYTES)))

    return _emitted(
        types.void,
        (empty, tokens, token_bytes, width, weights, left, output, stride, num_tokens, ahead, next_rows),
        emit,
    )


@intrinsic
def _sum_squares(_typing, row, width):
    """Of a row of floats, in the order of a linear layer's sums."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
        row, width = values
        total = cgutils.alloca_once_value(b, _fill(0))
        whole = b.and_(width, _ADDRESS(-LANES))
        with _counting(b, _ADDRESS(0), whole, LANES) as (feature, _):
            numbers = _load(b, row, b.mul(feature, _ADDRESS(_FLOAT_BYTES)))
            _add_product(b, total, numbers, numbers)
        numbers = _load(b, row, b.mul(whole, _ADDRESS(_FLOAT_BYTES)), some=b.sub(width, whole))
        _add_product(b, total, numbers, numbers)
        return _add_up(b, b.load(total))

    return _emitted(types.float32, (row, width), emit)


@intrinsic
def _gate(_typing, gate, up, count):
    """SwiGLU: `count` numbers and more, to whole vectors: the SiLU, x / (1 + exp(-x)), of `gate` times `up`."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        gate, up, count = values
        with _counting(b, _ADDRESS(0), count, LANES) as (at, _):
            offset = b.mul(at, _ADDRESS(_FLOAT_BYTES))
            x = _load(b, gate, offset)
            power = _exp2(b, b.fmul(_math(b, "fabs", x), _fill(-LOG2_E)))  # exp(-|x|), which cannot overflow
            positive = b.fcmp_ordered(">", x, _fill(0))
            sigmoid = b.fdiv(b.select(positive, _fill(1), power), b.fadd(_fill(1), power))
            _store(b, b.fmul(b.fmul(x, sigmoid), _load(b, up, offset)), gate, offset)

    return _emitted(types.void, (gate, up, count), emit)


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
def _call_step(_typing, step):
    """Call the function whose address stands there, on the block behind it."""

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        function = ir.FunctionType(ir.VoidType(), [_ADDRESS.as_pointer()]).as_pointer()
        address = b.load(_at(b, values[0], 0, _ADDRESS))
        b.call(b.inttoptr(address, function), [_at(b, values[0], _ADDRESS_BYTES, _ADDRESS)])

    return _emitted(types.void, (step,), emit)


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
