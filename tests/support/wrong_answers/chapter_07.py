"""Wrong answers to the exercises of chapter 7."""

from kvpaged.mini import Node, OutOfPages, agreeing, forget, share
from support.wrong_answers.variations import called, inserting, same_tokens


def its_number(child, mine, page):
    return child.page == page


def shared_too_early(cache, tokens, pages):
    node, path = cache.roots.setdefault(None, Node()), []
    for start, page in zip(range(0, len(tokens), cache.page_size), pages, strict=True):
        mine = tuple(tokens[start : start + cache.page_size])
        share(cache.pool, page)
        twins = [child for child in node.children if child.tokens[: len(mine)] == mine]
        if not twins:
            for less in [child for child in node.children if child.tokens == mine[: len(child.tokens)]]:
                forget(cache, less)
            twins = [Node(mine, page, node)]
            node.children += twins
        node = twins[0]
        path.append(node)
    for node in reversed(path):
        cache.by_use.pop(node, None)
        cache.by_use[node] = True


def whole_pages_only(cache, tokens):
    node, path = cache.roots.get(None, Node()), []
    for start in range(0, len(tokens), cache.page_size):
        rest = tuple(tokens[start : start + cache.page_size])
        node = next((child for child in node.children if child.tokens == rest and len(rest) == cache.page_size), None)
        if node is None:
            break
        path.append(node)
    return path, len(path) * cache.page_size


def past_a_partial_page(cache, tokens):
    node, path, found = cache.roots.get(None, Node()), [], 0
    while node.children:
        rest = tuple(tokens[len(path) * cache.page_size :][: cache.page_size])
        node = max(node.children, key=lambda child: agreeing(child.tokens, rest))
        if not agreeing(node.tokens, rest):
            break
        path.append(node)
        found += agreeing(node.tokens, rest)
    return path, found


def the_first_child(cache, tokens):
    node, path, found = cache.roots.get(None, Node()), [], 0
    while found == len(path) * cache.page_size:
        rest = tuple(tokens[found : found + cache.page_size])
        node = next((child for child in node.children if agreeing(child.tokens, rest)), None)
        if node is None:
            break
        path.append(node)
        found += agreeing(node.tokens, rest)
    return path, found


def with_a_root_always(cache, tokens):
    assert cache.roots[None]  # an empty cache has none
    return the_first_child(cache, tokens)


def one_after_another(cache, num_pages):
    for node in [*cache.by_use]:
        if num_pages > 0 and cache.pool.ref_counts[node.page] == 1 and not node.children:
            forget(cache, node)
            num_pages -= 1
    if num_pages > 0:
        raise OutOfPages(f"{num_pages} pages missing")


def whoever_uses_them(cache, num_pages):
    victims = []
    for node in cache.by_use:
        if len(victims) < num_pages and {*victims} >= {*node.children}:
            victims.append(node)
    if len(victims) < num_pages:
        raise OutOfPages(f"{num_pages} pages missing")
    for node in victims:
        forget(cache, node)


def leaves_of_now(cache, num_pages):
    alone = [node for node in cache.by_use if cache.pool.ref_counts[node.page] == 1 and not node.children]
    if len(alone) < num_pages:
        raise OutOfPages(f"{num_pages} pages missing")
    for node in alone[: max(0, num_pages)]:
        forget(cache, node)


def the_newest_first(cache, num_pages):
    for _ in range(num_pages):
        alone = [node for node in cache.by_use if cache.pool.ref_counts[node.page] == 1 and not node.children]
        if not alone:
            raise OutOfPages(f"{num_pages} pages missing")
        forget(cache, alone[-1])


def parents_too(cache, num_pages):
    alone = [node for node in [*cache.by_use][::-1] if cache.pool.ref_counts[node.page] == 1]
    if len(alone) < num_pages:
        raise OutOfPages(f"{num_pages} pages missing")
    for node in alone[: max(0, num_pages)]:
        forget(cache, node)


WRONG = {
    "7.3": [
        (called("by_its_number", inserting(its_number, replaces=False)), "the trie (path, page)"),
        (called("equal_pages_only", inserting(same_tokens, replaces=False)), "the trie (path, page)"),
        (shared_too_early, "owners of each page"),
    ],
    "7.4": [
        (whole_pages_only, "tokens found"),
        (past_a_partial_page, "tokens found"),
        (the_first_child, "tokens found"),
        (with_a_root_always, "it raised KeyError"),
    ],
    "7.5": [
        (one_after_another, "free pages"),
        (whoever_uses_them, "asked to evict"),
        (leaves_of_now, "asked to evict"),
        (the_newest_first, "the trie (path, page)"),
        (parents_too, "the trie (path, page)"),
    ],
}
