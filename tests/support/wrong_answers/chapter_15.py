"""Wrong answers to the exercises of chapter 15."""

from kvpaged import mini
from kvpaged.hybrid import FullAttention, Recurrent


def rare(kind, page_ids, kinds):
    return [0 if isinstance(each, kind) else page_id for each, page_id in zip(kinds, page_ids, strict=True)]


def the_first_of_four(kinds, index, page_ids):
    return rare(Recurrent, page_ids, kinds) if index % 4 else page_ids


def no_states_at_all(kinds, index, page_ids):
    return rare(Recurrent, page_ids, kinds)


def all_kinds_rare(kinds, index, page_ids):
    return [0] * len(page_ids) if (index + 1) % 4 else page_ids


def all_but_full_attention_rare(kinds, index, page_ids):
    if not (index + 1) % 4:
        return page_ids
    return [page_id * isinstance(kind, FullAttention) for kind, page_id in zip(kinds, page_ids, strict=True)]


def pages(first, stop, page_size):
    return range(max(0, first) // page_size, mini.pages_for(stop, page_size))


def as_in_a_window(num_computed, chunk, page_size):
    return pages(num_computed - chunk + 1, num_computed, page_size)


def the_chunk_of_the_token_before(num_computed, chunk, page_size):
    return pages((num_computed - 1) // chunk * chunk, num_computed, page_size)


def nothing_at_the_beginning_of_a_chunk(num_computed, chunk, page_size):
    first = num_computed // chunk * chunk
    return [] if first == num_computed else pages(first, num_computed, page_size)


def with_the_page_that_comes(num_computed, chunk, page_size):
    return pages(num_computed // chunk * chunk, num_computed + 1, page_size)


def can_go_on(held, reach, page_size, end):
    return all(page in held for page in pages(end * page_size - reach, end * page_size, page_size))


def ends(cached):
    return range(1 + max((1 + page for held in cached for page in held), default=0))


def the_shortest_of_their_own(cached, reaches, page_size):
    own = [
        max(end for end in ends(cached) if can_go_on(held, reach, page_size, end))
        for held, reach in zip(cached, reaches, strict=True)
    ]
    return min(own) * page_size


def up_to_the_first_gap(cached, reaches, page_size):
    end = 0
    while all(end in held for held in cached):
        end += 1
    return end * page_size


def up_to_where_one_cannot_go_on(cached, reaches, page_size):
    end = 0
    while all(can_go_on(held, reach, page_size, end + 1) for held, reach in zip(cached, reaches, strict=True)):
        end += 1
    return end * page_size


def a_reach_rounded_down(cached, reaches, page_size):
    for end in reversed(ends(cached)):
        needed = [range(max(0, end - reach // page_size), end) for reach in reaches]
        if all(held.issuperset(need) for held, need in zip(cached, needed, strict=True)):
            return end * page_size
    return 0


def give_back_before(pool, table, stop):
    for index in range(max(0, stop)):
        if table[index] != 0:
            mini.release(pool, table[index])
            table[index] = 0


def from_the_computed_pages(pool, table, num_computed, window, page_size):
    kept = mini.pages_for(window, page_size)
    give_back_before(pool, table, mini.pages_for(num_computed, page_size) - kept)


def rounded_up(pool, table, num_computed, window, page_size):
    give_back_before(pool, table, mini.pages_for(max(0, num_computed - window + 1), page_size))


def always_one_more(pool, table, num_computed, window, page_size):
    give_back_before(pool, table, len(table) - mini.pages_for(window, page_size) - 1)


def blind_to_the_null_page(pool, table, num_computed, window, page_size):
    for index in range(max(0, num_computed - window + 1) // page_size):
        mini.release(pool, table[index])
        table[index] = 0


WRONG = {
    "15.2": [
        (the_first_of_four, "pages cached, of each group"),
        (no_states_at_all, "tokens found"),
        (all_kinds_rare, "pages cached, of each group"),
        (all_but_full_attention_rare, "pages cached, of each group"),
    ],
    "15.6": [
        (as_in_a_window, "logical pages"),
        (the_chunk_of_the_token_before, "logical pages"),
        (nothing_at_the_beginning_of_a_chunk, "logical pages"),
        (with_the_page_that_comes, "logical pages"),
    ],
    "15.7": [
        (the_shortest_of_their_own, "tokens found"),
        (up_to_the_first_gap, "tokens found"),
        (up_to_where_one_cannot_go_on, "tokens found"),
        (a_reach_rounded_down, "tokens found"),
    ],
    "15.8": [
        (from_the_computed_pages, "table afterwards"),
        (rounded_up, "table afterwards"),
        (always_one_more, "table afterwards"),
        (blind_to_the_null_page, "owners of each page afterwards"),
    ],
}
