"""Wrong answers to the exercises of chapter 9."""

from kvpaged.mini import OutOfPages, allocate, append, evict, fork, pages_for, release


def never_released(sequence):
    child = fork(sequence)
    if len(child.tokens) % child.cache.page_size:
        append(child, 0)
        child.tokens.pop()
    return child


def full_pages_too(sequence):
    child = fork(sequence)
    cache, old = child.cache, child.page_table[-1]
    try:
        evict(cache, 1 - len(cache.pool.free))
    except OutOfPages:
        for page in child.page_table:
            release(cache.pool, page)
        raise
    child.page_table[-1] = allocate(cache.pool)
    cache.storage[:, :, child.page_table[-1]] = cache.storage[:, :, old]
    release(cache.pool, old)
    return child


def with_the_token(sequence):
    child = fork(sequence)
    try:
        if len(child.tokens) % child.cache.page_size:
            append(child, 0)
    except OutOfPages:
        for page in child.page_table:
            release(child.cache.pool, page)
        raise
    return child


def lazy(sequence):
    return fork(sequence)


def forward_only(sequence, fork, append, truncate):
    fork(sequence)
    append(sequence, 50)


def the_child_goes_back(sequence, fork, append, truncate):
    child = fork(sequence)
    truncate(child, len(child.tokens) - 1)
    append(child, 50)


def by_changing_a_token(sequence, fork, append, truncate):
    fork(sequence).tokens[-1] = 999


def with_the_same_token(sequence, fork, append, truncate):
    fork(sequence)
    last = sequence.tokens[-1]
    truncate(sequence, len(sequence.tokens) - 1)
    append(sequence, last)


def without_a_copy(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    if len(sequence.tokens) % cache.page_size == 0:
        evict(cache, 1 - len(cache.pool.free))
        table.append(allocate(cache.pool))
    sequence.tokens.append(token)


def the_token_first(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    slot = len(sequence.tokens) % cache.page_size
    sequence.tokens.append(token)
    if slot == 0 or cache.pool.ref_counts[table[-1]] > 1:
        evict(cache, 1 - len(cache.pool.free))
        new = allocate(cache.pool)
        if slot:
            cache.storage[:, :, new, :slot] = cache.storage[:, :, table[-1], :slot]
            release(cache.pool, table.pop())
        table.append(new)


def an_empty_copy(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    slot = len(sequence.tokens) % cache.page_size
    if slot == 0 or cache.pool.ref_counts[table[-1]] > 1:
        evict(cache, 1 - len(cache.pool.free))
        new = allocate(cache.pool)
        if slot:
            release(cache.pool, table.pop())
        table.append(new)
    sequence.tokens.append(token)


def without_eviction(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    slot = len(sequence.tokens) % cache.page_size
    if slot == 0 or cache.pool.ref_counts[table[-1]] > 1:
        new = allocate(cache.pool)
        if slot:
            cache.storage[:, :, new, :slot] = cache.storage[:, :, table[-1], :slot]
            release(cache.pool, table.pop())
        table.append(new)
    sequence.tokens.append(token)


def copying_full_pages(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    slot = len(sequence.tokens) % cache.page_size
    copying = table and cache.pool.ref_counts[table[-1]] > 1
    if slot == 0 or copying:
        evict(cache, 1 - len(cache.pool.free))
        new = allocate(cache.pool)
        if copying:
            cache.storage[:, :, new] = cache.storage[:, :, table[-1]]
            release(cache.pool, table.pop())
        table.append(new)
    sequence.tokens.append(token)


def never_given_back(sequence, token):
    cache, table = sequence.cache, sequence.page_table
    slot = len(sequence.tokens) % cache.page_size
    if slot == 0 or cache.pool.ref_counts[table[-1]] > 1:
        evict(cache, 1 - len(cache.pool.free))
        new = allocate(cache.pool)
        if slot:
            cache.storage[:, :, new, :slot] = cache.storage[:, :, table.pop(), :slot]
        table.append(new)
    sequence.tokens.append(token)


def wiping(sequence, length):
    cache, table = sequence.cache, sequence.page_table
    while len(table) > pages_for(length, cache.page_size):
        release(cache.pool, table.pop())
    if length % cache.page_size:
        cache.storage[:, :, table[-1], length % cache.page_size :] = 0
    del sequence.tokens[length:]
    sequence.num_computed = min(sequence.num_computed, length)


def one_page_too_many(sequence, length):
    cache, table = sequence.cache, sequence.page_table
    while len(table) > length // cache.page_size + 1:
        release(cache.pool, table.pop())
    del sequence.tokens[length:]
    sequence.num_computed = min(sequence.num_computed, length)


def still_computed(sequence, length):
    cache, table = sequence.cache, sequence.page_table
    while len(table) > pages_for(length, cache.page_size):
        release(cache.pool, table.pop())
    del sequence.tokens[length:]


def never_giving_back(sequence, length):
    del sequence.tokens[length:]
    sequence.num_computed = min(sequence.num_computed, length)
    del sequence.page_table[pages_for(length, sequence.cache.page_size) :]


WRONG = {
    "9.2": [
        (never_released, "reference counts"),
        (full_pages_too, "page table of C"),
        (with_the_token, "tokens of C"),
        (lazy, "page table of C"),
    ],
    "9.3": [
        (forward_only, "somebody reads a token that is not its own"),
        (the_child_goes_back, "somebody reads a token that is not its own"),
        (with_the_same_token, "somebody reads a token that is not its own"),
        (by_changing_a_token, "by these calls somebody reads"),
    ],
    "9.5": [
        (without_a_copy, "what came of the calls"),
        (the_token_first, "tokens of A"),
        (an_empty_copy, "what A reads"),
        (without_eviction, "what came of the calls"),
        (copying_full_pages, "page table of"),
        (never_given_back, "reference counts"),
    ],
    "9.6": [
        (wiping, "hold"),
        (one_page_too_many, "page table of A"),
        (still_computed, "computed tokens of A"),
        (never_giving_back, "free pages"),
    ],
}
