"""Wrong answers to the exercises of chapter 8."""

from kvpaged.mini import Node


def as_a_dictionary_does(cache, cache_salt):
    return cache.roots.setdefault(cache_salt, Node())


def by_its_words(cache, cache_salt):
    return cache.roots.setdefault(str(cache_salt), Node())


def by_the_outer_type(cache, cache_salt):
    return cache.roots.setdefault((type(cache_salt), cache_salt), Node())


def without_empty_ones(cache, cache_salt):
    return cache.roots.setdefault(repr(cache_salt or None), Node())


def a_new_one_each_time(cache, cache_salt):
    cache.roots[repr(cache_salt)] = Node()
    return cache.roots[repr(cache_salt)]


def believing(blocks, tokens, page_size, hash_of):
    number, pages = 0, []
    for start in range(0, len(tokens) - page_size + 1, page_size):
        number = hash_of(number, tokens[start : start + page_size])
        if number not in blocks:
            break
        pages.append(blocks[number][0])
    return pages


def its_own_tokens_only(blocks, tokens, page_size, hash_of):
    number, pages = 0, []
    for start in range(0, len(tokens) - page_size + 1, page_size):
        mine = tokens[start : start + page_size]
        number = hash_of(number, mine)
        if number not in blocks or blocks[number][1] != mine:
            break
        pages.append(blocks[number][0])
    return pages


def passing_over(blocks, tokens, page_size, hash_of):
    number, pages = 0, []
    for start in range(0, len(tokens) - page_size + 1, page_size):
        mine = tokens[start : start + page_size]
        number = hash_of(number, mine)
        if number in blocks and blocks[number][1] == mine:
            pages.append(blocks[number][0])
    return pages


WRONG = {
    "8.4": [
        (as_a_dictionary_does, "each call's root is that of call number"),
        (by_its_words, "each call's root is that of call number"),
        (by_the_outer_type, "roots in the cache"),
        (without_empty_ones, "roots in the cache"),
        (a_new_one_each_time, "each call's root is that of call number"),
    ],
    "8.5": [
        (believing, "pages found"),
        (its_own_tokens_only, "pages found"),
        (passing_over, "pages found"),
    ],
}
