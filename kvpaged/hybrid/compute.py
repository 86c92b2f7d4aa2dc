"""A model whose layers are of several kinds, on pages.

One token at a time: so the bits of a token depend on those before it and on nothing else, whatever was cached, evicted
or given back. One `PageStorage` has the pages of all groups: layer i of a page is the i-th of the group that owns it.
"""

import torch
from torch import Tensor

from kvpaged.attention import contiguous_attention
from kvpaged.hybrid.cache import GroupedKVCache
from kvpaged.hybrid.groups import Recurrent
from kvpaged.hybrid.sequence import GroupedSequence
from kvpaged.model.language_model import LanguageModel
from kvpaged.page import PageStorage
from kvpaged.page_table import PageTable
from kvpaged.reader import PagedKVReader


@torch.no_grad()
def compute(model: LanguageModel, cache: GroupedKVCache, storage: PageStorage, sequence: GroupedSequence) -> Tensor:
    """Logits [vocab_size] of a sequence's last token, after a pass over each of its tokens that is not computed yet.

    storage: has the cache's pages, and as many layers as its largest group. Raises ValueError if the sequence is no
    live one of this cache, or all its tokens are computed; OutOfPages in front of the token for which the pages do not
    suffice.
    """
    if sequence not in cache.sequences:
        raise ValueError("this is no live sequence of this cache: give the cache that began it")
    if sequence.num_computed == len(sequence.tokens):
        raise ValueError(f"all {len(sequence.tokens)} tokens are computed: append the next token first")
    places = {layer: (g, place) for g, (_, layers) in enumerate(cache.groups) for place, layer in enumerate(layers)}
    size, tables = cache.page_size, sequence.tables

    def attend(layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        group, place = places[layer]
        kind, table, position = cache.groups[group].kind, tables[group], sequence.num_computed
        page_id, slot = table[position // size], position % size
        if isinstance(kind, Recurrent):  # the first rows of a state lie in the slots of K, the others in those of V
            pages, num_rows = (storage.keys(place), storage.values(place)), keys.shape[2]
            state = keys.new_zeros(keys.shape[1], 2 * size, keys.shape[2])
            if position:
                state = torch.cat([rows[table[(position - 1) // size]] for rows in pages], dim=1)
            state[:, :num_rows], output = gated_linear_attention(state[:, :num_rows], query, keys, values)
            pages[0][page_id], pages[1][page_id] = state[:, :size], state[:, size:]
            return output
        storage.write(place, [page_id * size + slot], keys, values)
        given_back = kind.needed(position, size).start
        reader = PagedKVReader(storage, PageTable(size, table[given_back:], position + 1 - given_back * size))
        seen = slice(kind.first_read(position) - given_back * size, None)
        return contiguous_attention(query, reader.keys(place)[seen], reader.values(place)[seen])

    for position in range(sequence.num_computed, len(sequence.tokens)):
        sequence.reserve(position + 1)
        token = torch.tensor(sequence.tokens[position : position + 1])
        logits = model(token, torch.tensor([position]), attend)[0]
        sequence.mark_computed(position + 1)
    return logits


def gated_linear_attention(state: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """One token: the state is faded by a gate, gets k v^T, and is read by the query (Yang et al. 2024, section 4).

    state [kv_heads, head_dim, head_dim]; query [1, heads, head_dim]; keys, values [1, kv_heads, head_dim]. Returns the
    new state and what was read, [1, heads, head_dim]. Our decoder has no weights for a gate: the values' mean makes it.
    """
    gate = torch.sigmoid(4 + values[0].mean(-1))[:, None, None]
    state = gate * state + keys[0][:, :, None] * values[0][:, None, :]
    return state, (query.view(len(state), -1, query.shape[-1]) @ state).view(query.shape)
