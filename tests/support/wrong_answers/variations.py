"""Functions of the small engine, with one decision taken otherwise."""

from kvpaged.mini import Node, forget, share


def called(name, function):
    """The function, called by that name."""
    function.__name__ = name
    return function


def inserting(is_twin, replaces):
    def insert(cache, tokens, pages, cache_salt=None):
        node, path = cache.roots.setdefault(cache_salt, Node()), []
        for start, page in zip(range(0, len(tokens), cache.page_size), pages, strict=False):
            mine = tuple(tokens[start : start + cache.page_size])
            twins = [child for child in node.children if is_twin(child, mine, page)]
            if not twins:
                share(cache.pool, page)
                for less in [
                    child for child in node.children if replaces and child.tokens == mine[: len(child.tokens)]
                ]:
                    forget(cache, less)
                twins = [Node(mine, page, node)]
                node.children += twins
            node = twins[0]
            path.append(node)
        for node in reversed(path):
            cache.by_use.pop(node, None)
            cache.by_use[node] = True

    return insert


def same_tokens(child, mine, page):
    return child.tokens == mine


def begins_like_mine(child, mine, page):
    return child.tokens[: len(mine)] == mine
