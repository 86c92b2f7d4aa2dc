"""Wrong answers to the exercises of chapter 1."""

import torch


def joined(kept, layer, keys, values):
    if layer in kept:
        return torch.cat((kept[layer][0], keys)), torch.cat((kept[layer][1], values))
    return keys, values


def keeping_views(kept, layer, keys, values, window):
    keys, values = joined(kept, layer, keys, values)
    start = max(0, len(keys) - (window - 1))
    kept[layer] = keys[start:], values[start:]
    return keys, values


def forgetting_layers(kept, layer, keys, values, window):
    keys, values = joined(kept, 1, keys, values)
    start = max(0, len(keys) - (window - 1))
    kept[1] = keys[start:].clone(), values[start:].clone()
    return keys, values


def counting_from_the_end(kept, layer, keys, values, window):
    keys, values = joined(kept, layer, keys, values)
    kept[layer] = keys[-(window - 1) :].clone(), values[-(window - 1) :].clone()
    return keys, values


def keeping_a_whole_window(kept, layer, keys, values, window):
    keys, values = joined(kept, layer, keys, values)
    kept[layer] = keys[-window:].clone(), values[-window:].clone()
    return keys, values


def dropping_before_reading(kept, layer, keys, values, window):
    keys, values = joined(kept, layer, keys, values)
    start = max(0, len(keys) - (window - 1))
    kept[layer] = keys[start:].clone(), values[start:].clone()
    return kept[layer]


def cutting_keys_alone(kept, layer, keys, values, window):
    keys, values = joined(kept, layer, keys, values)
    start = max(0, len(keys) - (window - 1))
    kept[layer] = keys[start:].clone(), values
    return keys, values


def attention(kept, query, keys, values, future=None, scale=True):
    kept["keys"], kept["values"] = torch.cat((kept["keys"], keys)), torch.cat((kept["values"], values))
    scores = query @ kept["keys"].T / (query.shape[1] ** 0.5 if scale else 1)
    if future is not None:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(future(scores)), -torch.inf)
    return scores.softmax(dim=1) @ kept["values"]


def without_a_mask(kept, query, keys, values):
    return attention(kept, query, keys, values)


def as_if_every_text_began_here(kept, query, keys, values):
    return attention(kept, query, keys, values, future=lambda scores: 1)


def blind_to_itself(kept, query, keys, values):
    return attention(kept, query, keys, values, future=lambda scores: scores.shape[1] - len(scores))


def without_the_root(kept, query, keys, values):
    return attention(kept, query, keys, values, future=lambda scores: 1 + scores.shape[1] - len(scores), scale=False)


def forgetting(kept, query, keys, values):
    return attention({**kept}, query, keys, values, future=lambda scores: 1 + scores.shape[1] - len(scores))


WRONG = {
    "1.4": [
        (keeping_views, "bytes that stay in memory"),
        (counting_from_the_end, "tokens kept at the end"),
        (keeping_a_whole_window, "tokens kept at the end"),
        (dropping_before_reading, "tokens that can be read, step by step"),
        (cutting_keys_alone, "keys and values of different tokens"),
        (forgetting_layers, "tokens that can be read, step by step"),
    ],
    "1.6": [
        (without_a_mask, "tokens that are wrong"),
        (as_if_every_text_began_here, "tokens that are wrong"),
        (blind_to_itself, "tokens that are wrong"),
        (without_the_root, "tokens that are wrong"),
        (forgetting, "rows of keys kept"),
    ],
}
