"""Wrong answers to the exercises of chapter 5."""

from kvpaged.mini import OutOfPages, allocate, pages_for, release


def in_32_bits(page_tables, sequence_of, positions, page_size):
    return page_tables[sequence_of, positions // page_size] * page_size + positions % page_size


def first_page_each_time(page_tables, sequence_of, positions, page_size):
    return page_tables[sequence_of, 0].long() * page_size + positions % page_size


def first_sequence_each_time(page_tables, sequence_of, positions, page_size):
    return page_tables[0, positions // page_size].long() * page_size + positions % page_size


def pages_without_slots(page_tables, sequence_of, positions, page_size):
    return page_tables[sequence_of, positions // page_size].long() * page_size


def before_it_was_counted(num_tokens, page_size):
    return num_tokens % page_size == 0


def one_or_none(num_tokens, page_size):
    return num_tokens % page_size <= 1


def the_first_token_too(num_tokens, page_size):
    return num_tokens == 1 or num_tokens % page_size == 1


def one_page_at_most(pool, page_table, page_size, num_tokens):
    if len(page_table) < pages_for(num_tokens, page_size):
        page_table.append(allocate(pool))


def as_far_as_it_goes(pool, page_table, page_size, num_tokens):
    while len(page_table) < pages_for(num_tokens, page_size):
        page_table.append(allocate(pool))


def a_page_too_early(pool, page_table, page_size, num_tokens):
    missing = num_tokens // page_size + 1 - len(page_table)
    if missing > len(pool.free):
        raise OutOfPages
    page_table += [allocate(pool) for _ in range(missing)]


def undone_the_wrong_way_round(pool, page_table, page_size, num_tokens):
    length = len(page_table)
    try:
        while len(page_table) < pages_for(num_tokens, page_size):
            page_table.append(allocate(pool))
    except OutOfPages:
        for page in page_table[length:]:
            release(pool, page)
        del page_table[length:]
        raise


def without_an_owner(pool, page_table, page_size, num_tokens):
    missing = pages_for(num_tokens, page_size) - len(page_table)
    if missing > len(pool.free):
        raise OutOfPages
    page_table += [pool.free.pop() for _ in range(missing)]


def unchecked(page_table, page_size, num_tokens, index):
    page, slot = divmod(index, page_size)
    return page_table[page], slot


def one_too_many(page_table, page_size, num_tokens, index):
    if not 0 <= index <= num_tokens:
        raise IndexError(index)
    return page_table[index // page_size], index % page_size


def from_the_end_as_well(page_table, page_size, num_tokens, index):
    if index >= num_tokens:
        raise IndexError(index)
    return page_table[index // page_size], index % page_size


def a_flat_slot(page_table, page_size, num_tokens, index):
    if not 0 <= index < num_tokens:
        raise IndexError(index)
    return page_table[index // page_size] * page_size + index % page_size


WRONG = {
    "5.2": [
        (in_32_bits, "slots"),
        (first_page_each_time, "slots"),
        (first_sequence_each_time, "slots"),
        (pages_without_slots, "slots"),
    ],
    "5.3": [
        (before_it_was_counted, "it takes a page"),
        (one_or_none, "it takes a page"),
        (the_first_token_too, "it takes a page"),
    ],
    "5.5": [
        (one_page_at_most, "page table afterwards"),
        (as_far_as_it_goes, "free pages afterwards"),
        (a_page_too_early, "asked for pages"),
        (without_an_owner, "reference counts afterwards"),
        (undone_the_wrong_way_round, "free pages afterwards"),
    ],
    "5.6": [
        (unchecked, "it raised"),
        (one_too_many, "it raised"),
        (from_the_end_as_well, "it raised"),
        (a_flat_slot, "it returned"),
    ],
}
