"""What is compiled: decode attention and writes on the pages in place, in numba and LLVM's vector instructions.

What makes it fast, in the order of what it brings:

1. K and V are read once, where they lie, in the order they lie: a block of 16 tokens, all its kv heads, then the next
   block. Each cache line of the next block is requested while this one is worked on, because page tables point
   anywhere and the processor's own prefetcher cannot know where.
2. All query heads of a kv head are served by one read of it (GQA).
3. A tile of 128 tokens takes two passes: scores of all its K, then softmax, then all its V; the running maximum and sum
   of the online softmax change once per tile.
4. Sixteen numbers at a time, and sixteen dot products summed together: the innermost loops are written in LLVM's vector
   instructions, which it compiles for any processor.

A sequence is cut into splits of 1024 tokens by its length alone, and each split is computed in one fixed order. So
neither the batch nor the number of threads changes a bit of the result. Splits are merged as in Dao et al.,
"Flash-Decoding for long-context inference" (2023).

All that is compiled is in this one file, because numba's cache on disk notices a change in the file of the kernel only.
"""

# What numba compiles has no annotations, and its own have no stubs.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False
# mypy: disable-error-code="call-arg,import-untyped,attr-defined"

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
TILE = 128  # tokens whose scores exist at one time
HASH_FACTOR = 0x9E3779B1  # spreads slots that are a page apart over a hash table (Knuth's multiplicative hashing)
THREADED_BYTES = 1 << 20  # of K: below this, waking a second thread costs more than it brings
LOWEST = np.float32(np.finfo(np.float32).min)
LOG2_E = 1 / math.log(2)
DONE, THREADED = -1, -2  # outcomes of `decode`, beside the number of a sequence that does not fit

# Vector instructions. AVX-512 has 32 registers of 16 floats; elsewhere 8 floats keep the accumulators in registers.
LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
BLOCK = 16  # tokens scored between two looks at the page table
_FLOAT, _INT, _ADDRESS = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FLOAT_BYTES, _ADDRESS_BYTES, LINE_BYTES = 4, 8, 64


@njit(cache=True, nogil=True)
def decode(
    query_at,
    keys_at,
    values_at,
    tables_at,
    lengths_at,
    output_at,
    num_sequences,
    heads,
    head_dim,
    num_pages,
    num_kv_heads,
    page_size,
    max_pages,
    empty,
    threads,
):
    """Plan, attend and merge in one call; DONE, or THREADED if it is worth more threads than this one."""
    pages = (num_pages, num_kv_heads, page_size, head_dim)
    keys, values = carray(_pointer(keys_at), pages, empty.dtype), carray(_pointer(values_at), pages, empty.dtype)
    page_tables = carray(_pointer(tables_at), (num_sequences, max_pages), np.int32)
    seq_lens = carray(_pointer(lengths_at), (num_sequences,), np.int32)
    first_item = np.empty(num_sequences + 1, np.int64)
    misfit = plan(page_tables, seq_lens, num_pages, page_size, first_item)
    if misfit >= 0:
        return misfit
    num_items = first_item[-1]
    if threads > 1 and num_items > 1:
        num_bytes = seq_lens.sum() * num_kv_heads * head_dim * empty.itemsize
        if num_bytes >= THREADED_BYTES:
            return THREADED
    query = carray(_pointer(query_at), (num_sequences, heads, head_dim), np.float32)
    output = carray(_pointer(output_at), (num_sequences, heads, head_dim), np.float32)
    partial = np.empty((num_items if num_items > num_sequences else 0, heads, head_dim + 2), np.float32)
    attend(query, keys, values, page_tables, seq_lens, first_item, partial, output, 0, 1)
    if num_items > num_sequences:
        merge(first_item, partial, output)
    return DONE


@njit(cache=True, nogil=True)
def plan(page_tables, seq_lens, num_pages, page_size, first_item):
    """Number the work items of each sequence; return the first sequence that does not fit, or -1."""
    items = 0
    for sequence in range(len(seq_lens)):
        length = seq_lens[sequence]
        if length < 1 or length > page_tables.shape[1] * page_size:
            return sequence
        for index in range((length - 1) // page_size + 1):
            if not 0 <= page_tables[sequence, index] < num_pages:
                return sequence
        first_item[sequence] = items
        items += (length - 1) // SPLIT + 1
    first_item[len(seq_lens)] = items
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def attend(query, keys, values, page_tables, seq_lens, first_item, partial, output, share, shares):
    """Work items share, share + shares, ...: one split of one sequence each.

    A sequence of one split goes to `output`; splits of others go to `partial`, unscaled, each with its maximum and sum.
    """
    _, heads, head_dim = query.shape
    _, num_kv_heads, page_size, _ = keys.shape
    group = heads // num_kv_heads
    page_bytes, head_bytes, row_bytes, _ = keys.strides
    # What the vector code reads and writes is handed over as addresses.
    scaled = np.empty((heads, head_dim), np.float32)
    scores = np.empty((heads, TILE), np.float32)
    weighted = np.empty((heads, head_dim), np.float32)
    rows = np.empty(SPLIT + 2 * BLOCK, np.int64)
    scaled_at, scores_at = scaled.ctypes.data, scores.ctypes.data
    weighted_at, rows_at = weighted.ctypes.data, rows.ctypes.data
    largest = np.empty(heads, np.float32)
    total = np.empty(heads, np.float32)
    scale = np.float32(LOG2_E / math.sqrt(head_dim))  # exp(x) = exp2(x log2 e)

    sequence = 0
    for item in range(share, first_item[-1], shares):
        while first_item[sequence + 1] <= item:
            sequence += 1
        start = (item - first_item[sequence]) * SPLIT
        count = min(SPLIT, seq_lens[sequence] - start)
        # Where in its layer each token's row of kv head 0 begins. Behind the last token stands the last token again,
        # so that a block may be scored, and prefetched, whole.
        for i in range(count):
            page_id = np.int64(page_tables[sequence, (start + i) // page_size])
            rows[i] = page_id * page_bytes + (start + i) % page_size * row_bytes
        for i in range(count, (count + BLOCK - 1) // BLOCK * BLOCK + BLOCK):
            rows[i] = rows[count - 1]
        for head in range(heads):
            largest[head] = LOWEST
            total[head] = 0
            for d in range(head_dim):
                scaled[head, d] = query[sequence, head, d] * scale
                weighted[head, d] = 0

        for tile in range(0, count, TILE):
            filled = min(TILE, count - tile)
            padded = (filled + BLOCK - 1) // BLOCK * BLOCK
            for token in range(0, filled, BLOCK):
                row = rows_at + (tile + token) * _ADDRESS_BYTES
                for kv_head in range(num_kv_heads):
                    base = keys.ctypes.data + kv_head * head_bytes
                    head = kv_head * group
                    end = head + group
                    while head < end:
                        q = scaled_at + head * head_dim * _FLOAT_BYTES
                        s = scores_at + (head * TILE + token) * _FLOAT_BYTES
                        if end - head >= 4:
                            _score_block(keys, base, row, q, head_dim, s, 4)
                            head += 4
                        elif end - head >= 2:
                            _score_block(keys, base, row, q, head_dim, s, 2)
                            head += 2
                        else:
                            _score_block(keys, base, row, q, head_dim, s, 1)
                            head += 1

            for head in range(heads):
                s = scores_at + head * TILE * _FLOAT_BYTES
                for token in range(filled, padded):
                    scores[head, token] = LOWEST
                larger = max(largest[head], _largest(s, padded))
                if larger > largest[head]:
                    shrink = np.float32(2) ** (largest[head] - larger)
                    total[head] *= shrink
                    for d in range(head_dim):
                        weighted[head, d] *= shrink
                    largest[head] = larger
                total[head] += _exponentiate(s, padded, larger)

            for token in range(0, filled, BLOCK):
                row = rows_at + (tile + token) * _ADDRESS_BYTES
                for kv_head in range(num_kv_heads):
                    base = values.ctypes.data + kv_head * head_bytes
                    head = kv_head * group
                    end = head + group
                    while head < end:
                        o = weighted_at + head * head_dim * _FLOAT_BYTES
                        w = scores_at + (head * TILE + token) * _FLOAT_BYTES
                        if end - head >= 4:
                            _weigh_block(values, base, row, w, head_dim, o, 4)
                            head += 4
                        elif end - head >= 2:
                            _weigh_block(values, base, row, w, head_dim, o, 2)
                            head += 2
                        else:
                            _weigh_block(values, base, row, w, head_dim, o, 1)
                            head += 1

        if first_item[sequence + 1] - first_item[sequence] == 1:
            for head in range(heads):
                for d in range(head_dim):
                    output[sequence, head, d] = weighted[head, d] / total[head]
        else:
            for head in range(heads):
                for d in range(head_dim):
                    partial[item, head, d] = weighted[head, d]
                partial[item, head, head_dim] = largest[head]
                partial[item, head, head_dim + 1] = total[head]


@njit(cache=True, nogil=True, error_model="numpy")
def merge(first_item, partial, output):
    """Merge the splits of each sequence that has several."""
    _, heads, head_dim = output.shape
    for sequence in range(len(first_item) - 1):
        first, end = first_item[sequence], first_item[sequence + 1]
        if end - first == 1:
            continue
        for head in range(heads):
            largest = partial[first:end, head, head_dim].max()
            total = np.float32(0)
            for d in range(head_dim):
                output[sequence, head, d] = 0
            for item in range(first, end):
                weight = np.float32(2) ** (partial[item, head, head_dim] - largest)
                total += weight * partial[item, head, head_dim + 1]
                for d in range(head_dim):
                    output[sequence, head, d] += weight * partial[item, head, d]
            for d in range(head_dim):
                output[sequence, head, d] /= total


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


def _store(b: ir.IRBuilder, value: ir.Value, address: ir.Value, offset: int | ir.Value) -> None:
    b.store(value, _at(b, address, offset, value.type), align=4)


def _call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value, **flags: Any) -> ir.Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments, **flags)


def _math(b: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    return _call(b, f"llvm.{name}.v{LANES}f32", _FLOATS, *arguments)


def _fill(number: float) -> ir.Constant:
    return _FLOATS([float(np.float32(number))] * LANES)


def _splat(b: ir.IRBuilder, number: ir.Value) -> ir.Value:
    undefined = _FLOATS(ir.Undefined)
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
def _weigh_block(_typing, pages, base, row, weights, head_dim, output, group):
    """Add BLOCK rows of V, each times its weight, to the output of `group` query heads of one kv head.

    base and row as for `_score_block`; weights: address of `group` rows TILE apart; output: address of `group` rows.
    """
    heads, dtype, itemsize = group.literal_value, pages.dtype, pages.dtype.bitwidth // 8

    def emit(b: ir.IRBuilder, values: list[ir.Value]) -> None:
        _, base, row, weights, head_dim, output, _ = values
        for d, chunks in _in_chunks(b, head_dim, LANES // heads):
            sums = [_accumulators(b, len(chunks)) for _ in range(heads)]
            for head in range(heads):
                for c in chunks:
                    b.store(_load(b, output, _element(b, head_dim, head, d, c)), sums[head][c])
            offset = b.add(base, b.mul(d, _ADDRESS(itemsize)))
            with _counting(b, _ADDRESS(0), _ADDRESS(BLOCK), 1) as (token, _):
                row_at = b.add(row, b.mul(token, _ADDRESS(_ADDRESS_BYTES)))
                here = b.add(offset, b.load(_at(b, row_at, 0, _ADDRESS)))
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

    return _emitted(types.void, (pages, base, row, weights, head_dim, output, group), emit)


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
