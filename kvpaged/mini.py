"""The small engine, as chapters 3 to 10 build it: put together from their cells by `python tools/refresh.py`."""

import torch

# Chapter 3: pages


def open_storage(num_pages, page_size, num_layers, num_kv_heads, head_dim):
    """K and V of all layers, in pages: one tensor, [K or V, layer, page, slot, ...]."""
    return torch.zeros(2, num_layers, num_pages, page_size, num_kv_heads, head_dim)


def write(storage, layer, slot_mapping, keys, values):
    """Store K and V of new tokens in their flat slots: page id * page size + slot."""
    storage[:, layer].flatten(1, 2)[:, slot_mapping] = torch.stack((keys, values))


# Chapter 4: the page pool


class OutOfPages(Exception):
    """Fewer pages can be had than are needed."""


class Pool:
    """Who owns which page: the free ones on a stack, and a count of owners for each."""

    def __init__(self, num_pages):
        self.free = list(range(num_pages))[::-1]
        self.ref_counts = [0] * num_pages


def allocate(pool):
    """Hand out a free page, owned once."""
    if not pool.free:
        raise OutOfPages(f"all {len(pool.ref_counts)} pages have owners")
    page = pool.free.pop()
    pool.ref_counts[page] = 1
    return page


def share(pool, page):
    """Add an owner."""
    assert pool.ref_counts[page], f"page {page} is free: nobody can share it"
    pool.ref_counts[page] += 1


def release(pool, page):
    """Take an owner away; after the last of them, the page is free."""
    assert pool.ref_counts[page], f"page {page} is free: nobody can release it"
    pool.ref_counts[page] -= 1
    if not pool.ref_counts[page]:
        pool.free.append(page)


# Chapter 5: the page table


def pages_for(num_tokens, page_size):
    """How many pages so many tokens need: the quotient, rounded up."""
    return -(-num_tokens // page_size)


def slots_of(page_table, page_size, start, stop):
    """Where tokens start to stop - 1 are: their slot mapping."""
    where = [divmod(index, page_size) for index in range(start, stop)]
    return [page_table[page] * page_size + slot for page, slot in where]


# Chapter 6: paged attention


def attention_by_pages(query, storage, layer, page_table, length):
    """Let the last tokens of a sequence read all of it. query [q_len, heads, d]."""
    q_len, heads, head_dim = query.shape
    page_size, group = storage.shape[3], heads // storage.shape[4]
    at = torch.arange(length - q_len, length)[:, None]  # the positions of the queries
    largest = torch.full((heads, q_len, 1), -torch.inf)
    total, output = torch.zeros(heads, q_len, 1), torch.zeros(heads, q_len, head_dim)
    for start, page in zip(range(0, length, page_size), page_table):
        filled = min(page_size, length - start)
        kv = storage[:, layer, page, :filled].repeat_interleave(group, dim=2)
        scores = torch.einsum("qhd,khd->hqk", query, kv[0]) / head_dim**0.5
        scores[:, torch.arange(start, start + filled) > at] = -torch.inf  # the future
        larger = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        weights, shrink = torch.exp(scores - larger), torch.exp(largest - larger)
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        output = output * shrink + torch.einsum("hqk,khd->hqd", weights, kv[1])
        largest = larger
    return (output / total).transpose(0, 1)


# Chapter 7: the prefix cache


class Node:
    """A cached page and the tokens in it. A root has neither."""

    def __init__(self, tokens=(), page=None, parent=None):
        self.tokens, self.page, self.parent = tokens, page, parent
        self.children = []


class Cache:
    """The memory: a pool, a trie of pages worth keeping, and perhaps a storage."""

    def __init__(self, num_pages, page_size, storage=None):
        self.pool, self.page_size, self.storage = Pool(num_pages), page_size, storage
        self.roots, self.by_use = {}, {}  # by salt; nodes, the last used last


def agreeing(a, b):
    """How many tokens agree at the beginning: the index of the first that does not."""
    return [*(x == y for x, y in zip(a, b)), False].index(False)


def match(cache, tokens, cache_salt=None):
    """The longest cached beginning of the tokens: its nodes, and its length."""
    node, path, found = cache.roots.get(cache_salt, Node()), [], 0
    while found == len(path) * cache.page_size:  # as long as whole pages match
        rest = tuple(tokens[found : found + cache.page_size])
        shared = {child: agreeing(child.tokens, rest) for child in node.children}
        node = max(shared, key=shared.get, default=None)
        if node is None or not shared[node]:
            break
        path.append(node)
        found += shared[node]
    return path, found


def insert(cache, tokens, pages, cache_salt=None):
    """Let the cache own computed pages, but none whose tokens it holds already."""
    node, path = cache.roots.setdefault(cache_salt, Node()), []
    for start, page in zip(range(0, len(tokens), cache.page_size), pages):
        mine = tuple(tokens[start : start + cache.page_size])
        twins = [child for child in node.children if child.tokens[: len(mine)] == mine]
        if not twins:
            share(cache.pool, page)
            for less in [c for c in node.children if c.tokens == mine[: len(c.tokens)]]:
                forget(cache, less)  # a page that holds a part of mine
            twins = [Node(mine, page, node)]
            node.children += twins
        node = twins[0]
        path.append(node)
    for node in reversed(path):  # used now: its end first, so that its end goes first
        cache.by_use.pop(node, None)
        cache.by_use[node] = True


def forget(cache, node):
    """Give back the page of a node without children."""
    node.parent.children.remove(node)
    cache.by_use.pop(node)
    release(cache.pool, node.page)


def evict(cache, num_pages):
    """Give back so many pages that only the cache owns; or OutOfPages, and none."""
    victims = {}
    for node in cache.by_use:
        alone = cache.pool.ref_counts[node.page] == 1
        if len(victims) < num_pages and alone and victims.keys() >= {*node.children}:
            victims[node] = True  # it goes, and all its children before it
    if len(victims) < num_pages:
        raise OutOfPages(f"{num_pages} pages missing, {len(victims)} can be evicted")
    for node in victims:
        forget(cache, node)


# Chapter 9: copy-on-write


class Sequence:
    """The tokens of one text, and its page table. It owns each page in it once."""

    def __init__(self, cache, tokens, page_table, num_computed, cache_salt):
        self.cache, self.tokens, self.page_table = cache, [*tokens], [*page_table]
        self.num_computed = self.num_cached_tokens = num_computed
        self.cache_salt = cache_salt


def fork(sequence):
    """A second owner of every page. Nothing is copied."""
    cache, table, salt = sequence.cache, sequence.page_table, sequence.cache_salt
    for page in table:
        share(cache.pool, page)
    return Sequence(cache, sequence.tokens, table, sequence.num_computed, salt)


def append(sequence, *tokens):
    """Give more tokens a slot each, or OutOfPages and none."""
    cache, table, length = sequence.cache, sequence.page_table, len(sequence.tokens)
    slot = length % cache.page_size
    copying = slot > 0 and cache.pool.ref_counts[table[-1]] > 1
    needed = pages_for(length + len(tokens), cache.page_size) - len(table) + copying
    evict(cache, needed - len(cache.pool.free))
    pages = [allocate(cache.pool) for _ in range(needed)]
    if copying:  # a page with two owners is read-only
        if cache.storage is not None:
            cache.storage[:, :, pages[0], :slot] = cache.storage[:, :, table[-1], :slot]
        release(cache.pool, table.pop())
    table += pages
    sequence.tokens += tokens


def mark_computed(sequence, num_tokens):
    """K and V of the first tokens are stored: their full pages are worth keeping."""
    cache, sequence.num_computed = sequence.cache, num_tokens
    full = sequence.tokens[: num_tokens - num_tokens % cache.page_size]
    insert(cache, full, sequence.page_table, sequence.cache_salt)


def end(sequence):
    """Give every page back. The cache keeps what was computed, the last page too."""
    cache, table, count = sequence.cache, sequence.page_table, sequence.num_computed
    page, slot = divmod(count, cache.page_size)
    if slot and cache.pool.ref_counts[table[page]] > 1:
        count -= slot  # a fork goes on filling that page
    insert(cache, sequence.tokens[:count], table, sequence.cache_salt)
    for page in reversed(table):
        release(cache.pool, page)


def begin(cache, tokens, cache_salt=None, whole_pages=False):
    """A sequence that owns what is cached of a prompt, and pages for the rest."""
    path, found = match(cache, tokens[:-1], cache_salt)  # one token must run
    if whole_pages:
        path, found = path[: found // cache.page_size], found - found % cache.page_size
    table = [node.page for node in path]
    for page in table:
        share(cache.pool, page)  # before anything is evicted
    sequence = Sequence(cache, tokens[:found], table, found, cache_salt)
    try:
        append(sequence, *tokens[found:])
    except OutOfPages:
        end(sequence)
        if found % cache.page_size == 0:
            raise
        return begin(cache, tokens, cache_salt, whole_pages=True)
    return sequence


# Chapter 10: serving many requests


class Request:
    """A prompt, how much to say to it, and what was said so far."""

    def __init__(self, prompt, max_tokens):
        self.prompt, self.max_tokens = prompt, max_tokens
        self.output, self.sequence = [], None


class SmallEngine:
    """Many requests on one pool. running, waiting: the oldest first."""

    def __init__(self, model, num_pages, page_size, budget=64, eos=None):
        self.model, self.budget, self.eos, config = model, budget, eos, model.config
        shape = config.num_layers, config.num_kv_heads, config.head_dim
        storage = open_storage(num_pages, page_size, *shape)
        self.cache = Cache(num_pages, page_size, storage)
        self.running, self.waiting = [], []


def missing(request):
    """Tokens whose K and V are not computed."""
    return len(request.sequence.tokens) - request.sequence.num_computed


def schedule(engine):
    """What the next step computes: chunks (request, start, stop), slots reserved."""
    for request in [*engine.running]:
        while request.sequence and not missing(request):
            try:
                append(request.sequence, request.output[-1])
            except OutOfPages:
                preempt(engine)  # perhaps the request itself
    for request in [*engine.waiting]:
        try:
            request.sequence = begin(engine.cache, request.prompt + request.output)
        except OutOfPages:
            break
        engine.waiting.remove(request)
        engine.running.append(request)
    chunks, budget = [], engine.budget
    for request in sorted(engine.running, key=lambda r: not r.output or missing(r) > 1):
        start, count = request.sequence.num_computed, min(budget, missing(request))
        chunks += [(request, start, start + count)] if count else []
        budget -= count
    return chunks


def forward(engine, chunks):
    """One pass over all chunks, side by side. Returns the logits that end each."""
    tokens, positions, slots, reads, storage = [], [], [], [], engine.cache.storage
    for request, start, stop in chunks:
        table = request.sequence.page_table
        tokens += request.sequence.tokens[start:stop]
        positions += range(start, stop)
        slots += slots_of(table, engine.cache.page_size, start, stop)
        reads.append((table, stop))
    counts = [stop - start for _, start, stop in chunks]

    def attend(layer, query, keys, values):
        write(storage, layer, slots, keys, values)
        mine = zip(query.split(counts), reads)
        return torch.cat([attention_by_pages(q, storage, layer, *r) for q, r in mine])

    ends = torch.tensor(counts).cumsum(0) - 1
    return engine.model(torch.tensor(tokens), torch.tensor(positions), attend, ends)


@torch.no_grad()
def step(engine):
    """One forward pass. Each request that has caught up says its next token."""
    chunks = schedule(engine)
    likeliest = forward(engine, chunks).argmax(dim=-1).tolist()
    for token, (request, _, stop) in zip(likeliest, chunks):
        mark_computed(request.sequence, stop)
        if not missing(request):
            request.output.append(token)
            if token == engine.eos or len(request.output) == request.max_tokens:
                end(request.sequence)
                engine.running.remove(request)


def preempt(engine):
    """Who came last gives its pages back and waits. What it has said, it keeps."""
    request = engine.running.pop()
    end(request.sequence)
    request.sequence = None
    engine.waiting.insert(0, request)
