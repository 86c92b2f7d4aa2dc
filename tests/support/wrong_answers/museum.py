"""Wrong mendings of the museum's bugs."""

from kvpaged import mini
from kvpaged.mini import Node, OutOfPages, Sequence, append, end, insert, match, release, share
from support.wrong_answers.variations import begins_like_mine, called, inserting, same_tokens

# M.1


def never_released(cache, node):
    node.parent.children.remove(node)
    cache.by_use.pop(node)


def still_to_be_evicted(cache, node):
    node.parent.children.remove(node)
    release(cache.pool, node.page)


def siblings_too(cache, node):
    node.parent.children.clear()
    cache.by_use.pop(node)
    release(cache.pool, node.page)


# M.2, M.9, M.11: `begin`, with one of its lines another


def beginning(search, take, afterwards=lambda cache, sequence: None, before=True):
    def begin(cache, tokens, cache_salt=None, whole_pages=False):
        path, found = search(cache, tokens, cache_salt)
        if whole_pages:
            path, found = path[: found // cache.page_size], found - found % cache.page_size
        if before:
            take(cache.pool, path)
        sequence = Sequence(cache, tokens[:found], [node.page for node in path], found, cache_salt)
        try:
            append(sequence, *tokens[found:])
        except OutOfPages:
            end(sequence)
            if found % cache.page_size == 0:
                raise
            return begin(cache, tokens, cache_salt, whole_pages=True)
        if not before:
            take(cache.pool, path)
        afterwards(cache, sequence)
        return sequence

    return begin


def all_but_the_last(cache, tokens, cache_salt):
    return match(cache, tokens[:-1], cache_salt)


def each_page(pool, path):
    for node in path:
        share(pool, node.page)


def the_last_page(pool, path):
    for node in path[-1:]:
        share(pool, node.page)


def each_page_and_its_parent(pool, path):
    for node in path:
        share(pool, node.page)
        if node.parent.page is not None:
            share(pool, node.parent.page)


def one_found_less(cache, tokens, cache_salt):
    path, found = match(cache, tokens, cache_salt)
    return path, min(found, len(tokens) - 1)


def one_page_less(cache, tokens, cache_salt):
    path, found = match(cache, tokens, cache_salt)
    if found == len(tokens):
        path, found = path[:-1], (len(path) - 1) * cache.page_size
    return path, found


def nothing_if_all_is_found(cache, tokens, cache_salt):
    path, found = match(cache, tokens, cache_salt)
    return ([], 0) if found == len(tokens) else (path, found)


def offer_all(cache, sequence):
    insert(cache, sequence.tokens, sequence.page_table, sequence.cache_salt)


def call_all_computed(cache, sequence):
    mini.mark_computed(sequence, len(sequence.tokens))


def offer_the_first_page(cache, sequence):
    first = sequence.tokens[: cache.page_size]
    insert(cache, first, sequence.page_table[:1], sequence.cache_salt)


# M.3


def computing(merge):
    def mark_computed(sequence, num_tokens):
        cache, sequence.num_computed = sequence.cache, num_tokens
        full = sequence.tokens[: num_tokens - num_tokens % cache.page_size]
        insert(cache, full, sequence.page_table, sequence.cache_salt)
        path, _ = match(cache, full, sequence.cache_salt)
        for index, node in enumerate(path):
            if sequence.page_table[index] != node.page:
                merge(cache.pool, sequence.page_table, index, node.page)

    return mark_computed


def both_kept(pool, table, index, page):
    pass


def not_counted(pool, table, index, page):
    release(pool, table[index])
    table[index] = page


def not_read(pool, table, index, page):
    share(pool, page)
    release(pool, table[index])


# M.4


def with_its_sequence(engine):
    request = engine.running.pop()
    end(request.sequence)
    engine.waiting.insert(0, request)


def still_running(engine):
    request = engine.running[-1]
    end(request.sequence)
    request.sequence = None
    engine.waiting.insert(0, request)


def the_oldest(engine):
    request = engine.running.pop(0)
    end(request.sequence)
    request.sequence = None
    engine.waiting.insert(0, request)


# M.5


def ending(offered, released):
    def end(sequence):
        cache, table, count = sequence.cache, sequence.page_table, sequence.num_computed
        page, slot = divmod(count, cache.page_size)
        if slot and cache.pool.ref_counts[table[page]] > 1:
            count -= slot
        insert(cache, sequence.tokens[: offered(sequence, count)], table, sequence.cache_salt)
        for page in reversed(table[: released(sequence, count)]):
            release(cache.pool, page)

    return end


def all_pages(sequence, count):
    return len(sequence.page_table)


def full_pages(sequence, count):
    return count // sequence.cache.page_size


# M.6


def always_later(sequence, in_flight, later):
    later.append(sequence)


def now_and_later(sequence, in_flight, later):
    end(sequence)
    if sequence in in_flight:
        later.append(sequence)


def the_wrong_way_round(sequence, in_flight, later):
    if sequence in in_flight:
        end(sequence)
    else:
        later.append(sequence)


# M.7


def by_sum(a, b):
    return next((n for n in range(min(len(a), len(b)), 0, -1) if sum(a[:n]) == sum(b[:n])), 0)


def by_last(a, b):
    return next((n for n in range(min(len(a), len(b)), 0, -1) if a[n - 1] == b[n - 1]), 0)


def wherever_they_agree(a, b):
    return sum(x == y for x, y in zip(a, b, strict=False))


# M.8


def matching(root_of):
    def match_from(cache, tokens, cache_salt=None):
        known = Node()
        known.children = root_of(cache, cache_salt)
        path, found = [], 0
        while found == len(path) * cache.page_size:
            rest = tuple(tokens[found : found + cache.page_size])
            shared = {child: mini.agreeing(child.tokens, rest) for child in known.children}
            known = max(shared, key=shared.get, default=None)
            if known is None or not shared[known]:
                break
            path.append(known)
            found += shared[known]
        return path, found

    return match_from


def everybodys(cache, cache_salt):
    return [child for root in cache.roots.values() for child in root.children]


def nobodys(cache, cache_salt):
    return cache.roots.get(None, Node()).children


def of_the_same_name(cache, cache_salt):
    return [child for salt, root in cache.roots.items() if salt[0] == cache_salt[0] for child in root.children]


# M.10


def a_page_too_far(page_table, page_size, start, stop):
    return [page_table[n // page_size] * page_size + (n - 1) % page_size for n in range(start + 1, stop + 1)]


def a_slot_too_far(page_table, page_size, start, stop):
    return [page_table[n // page_size] * page_size + (n + 1) % page_size for n in range(start, stop)]


def all_from_one_page(page_table, page_size, start, stop):
    return [
        page_table[start // page_size] * page_size + n
        for n in range(start % page_size, stop - start + start % page_size)
    ]


# M.13


def anything(child, mine, page):
    return True


# M.14


def the_last_beginning(beginnings):
    last = {name: (asked, found) for name, asked, found in beginnings}
    return sum(found for _, found in last.values()) / sum(asked for asked, _ in last.values())


def mean_of_rates(beginnings):
    first = {name: found / asked for name, asked, found in reversed(beginnings)}
    return sum(first.values()) / len(first)


def all_the_tokens(beginnings):
    first = {name: found for name, _, found in reversed(beginnings)}
    return sum(first.values()) / sum(asked for _, asked, _ in beginnings)


THE_JUDGE, KEPT = "the judge says", "pages that the prefix cache keeps"

WRONG = {
    "M.1": [
        (never_released, "law 1"),
        (still_to_be_evicted, KEPT),
        (siblings_too, "law 1"),
    ],
    "M.2": [
        (called("only_the_last", beginning(all_but_the_last, the_last_page)), THE_JUDGE),
        (called("parents_twice", beginning(all_but_the_last, each_page_and_its_parent)), "law 1"),
        (called("after_eviction", beginning(all_but_the_last, each_page, before=False)), "law 1"),
    ],
    "M.3": [
        (called("both_kept", computing(both_kept)), "free pages at the end"),
        (called("not_counted", computing(not_counted)), "law 1"),
        (called("not_read", computing(not_read)), "law 1"),
    ],
    "M.4": [
        (with_its_sequence, THE_JUDGE),
        (still_running, "raised AttributeError"),
        (the_oldest, "preempted"),
    ],
    "M.5": [
        (called("full_pages", ending(lambda each, count: count, full_pages)), "law 1"),
        (called("all_offered", ending(lambda each, count: len(each.tokens), all_pages)), "law 3"),
        (called("none_offered", ending(lambda each, count: 0, all_pages)), KEPT),
    ],
    "M.6": [
        (always_later, "free after each finish"),
        (now_and_later, THE_JUDGE),
        (the_wrong_way_round, "free after each finish"),
    ],
    "M.7": [(by_sum, "law 2"), (by_last, "law 2"), (wherever_they_agree, THE_JUDGE)],
    "M.8": [
        (called("everybodys", matching(everybodys)), "for ('"),
        (called("nobodys", matching(nobodys)), "tokens found"),
        (called("of_the_same_name", matching(of_the_same_name)), "for ('poet'"),
    ],
    "M.9": [
        (called("offer_all", beginning(all_but_the_last, each_page, offer_all)), "law 3"),
        (called("call_all_computed", beginning(all_but_the_last, each_page, call_all_computed)), THE_JUDGE),
        (called("offer_the_first", beginning(all_but_the_last, each_page, offer_the_first_page)), "law 3"),
    ],
    "M.10": [
        (a_page_too_far, "raised IndexError"),
        (a_slot_too_far, THE_JUDGE),
        (all_from_one_page, THE_JUDGE),
    ],
    "M.11": [
        (called("one_found_less", beginning(one_found_less, each_page)), THE_JUDGE),
        (called("one_page_less", beginning(one_page_less, each_page)), "tokens found"),
        (called("nothing_if_all", beginning(nothing_if_all_is_found, each_page)), "tokens found"),
    ],
    "M.12": [
        (called("full_pages_alone", ending(lambda each, count: count - count % each.cache.page_size, all_pages)), KEPT),
        (called("one_token_more", ending(lambda each, count: min(count + 1, len(each.tokens)), all_pages)), "law 3"),
        (called("nothing_kept", ending(lambda each, count: 0, all_pages)), KEPT),
    ],
    "M.13": [
        (called("same_tokens", inserting(same_tokens, replaces=True)), KEPT),
        (called("never_replaced", inserting(begins_like_mine, replaces=False)), KEPT),
        (called("anything", inserting(anything, replaces=True)), KEPT),
    ],
    "M.14": [(the_last_beginning, "the hit rate"), (mean_of_rates, "the hit rate"), (all_the_tokens, "the hit rate")],
}
