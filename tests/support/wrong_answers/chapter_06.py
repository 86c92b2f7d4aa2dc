"""Wrong answers to the exercises of chapter 6."""

from math import exp

import torch


def adding_up(a, b):
    return max(a[0], b[0]), a[1] + b[1], a[2] + b[2]


def shrinking_the_first_alone(a, b):
    shrink = exp(min(0, a[0] - b[0]))
    return max(a[0], b[0]), a[1] * shrink + b[1], a[2] * shrink + b[2]


def the_output_as_it_was(a, b):
    largest = max(a[0], b[0])
    return largest, a[1] * exp(a[0] - largest) + b[1] * exp(b[0] - largest), a[2] + b[2]


def back_to_the_exponentials(a, b):
    largest = max(a[0], b[0])
    total, output = (a[i] * exp(a[0]) + b[i] * exp(b[0]) for i in (1, 2))
    return largest, total / exp(largest), output / exp(largest)


def pages(first, length, page_size):
    return range(max(0, first) // page_size, (length - 1) // page_size + 1)


def from_the_last_query(length, q_len, window, page_size):
    return pages(length - window, length, page_size)


def one_token_too_far(length, q_len, window, page_size):
    return pages(length - q_len - window, length, page_size)


def before_the_beginning(length, q_len, window, page_size):
    return range((length - q_len - window + 1) // page_size, (length - 1) // page_size + 1)


def without_the_last_page(length, q_len, window, page_size):
    return range(max(0, length - q_len - window + 1) // page_size, length // page_size)


def never_shrinking(pages):
    largest, total, output = -torch.inf, 0.0, 0.0
    for scores, values in pages:
        larger = max(largest, scores.max().item())
        if larger == -torch.inf:
            continue
        weights = torch.exp(scores - larger)
        largest, total, output = larger, total + weights.sum(), output + weights @ values
    return output / total


def bare_exponentials(pages):
    total, output = 0.0, 0.0
    for scores, values in pages:
        weights = torch.exp(scores)
        total, output = total + weights.sum(), output + weights @ values
    return output / total


def all_of_them_at_once(pages):
    scores, values = (torch.cat(each) for each in zip(*pages, strict=True))
    return scores.softmax(dim=0) @ values


def blind_to_masked_pages(pages):
    largest, total, output = torch.tensor(-torch.inf), 0.0, 0.0
    for scores, values in pages:
        larger = torch.maximum(largest, scores.max())
        weights, shrink = torch.exp(scores - larger), torch.exp(largest - larger)
        largest, total, output = larger, total * shrink + weights.sum(), output * shrink + weights @ values
    return output / total


def attend(query, keys, values, diagonal):
    scores = torch.einsum("qhd,khd->hqk", query, keys) / query.shape[2] ** 0.5
    future = torch.ones_like(scores[0]).tril(diagonal) == 0
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(future, -torch.inf).softmax(dim=-1), values)


def heads_mended(query, keys, values):
    group = query.shape[1] // keys.shape[1]
    return attend(query, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1), 0)


def mask_mended(query, keys, values):
    group = query.shape[1] // keys.shape[1]
    return attend(query, keys.repeat(1, group, 1), values.repeat(1, group, 1), len(keys) - len(query))


def mask_off_by_one(query, keys, values):
    group = query.shape[1] // keys.shape[1]
    repeated = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    return attend(query, *repeated, len(keys) - len(query) + 1)


def keys_mended_alone(query, keys, values):
    group = query.shape[1] // keys.shape[1]
    return attend(query, keys.repeat_interleave(group, 1), values.repeat(1, group, 1), len(keys) - len(query))


WRONG = {
    "6.2": [
        (adding_up, "total"),
        (shrinking_the_first_alone, "total"),
        (the_output_as_it_was, "output, not divided"),
        (back_to_the_exponentials, "OverflowError"),
    ],
    "6.4": [
        (from_the_last_query, "logical pages"),
        (one_token_too_far, "logical pages"),
        (before_the_beginning, "logical pages"),
        (without_the_last_page, "logical pages"),
    ],
    "6.6": [
        (never_shrinking, "numbers that are wrong"),
        (bare_exponentials, "numbers that are wrong"),
        (all_of_them_at_once, "numbers that are wrong"),
        (blind_to_masked_pages, "numbers that are wrong"),
    ],
    "6.7": [
        (heads_mended, "queries that are wrong"),
        (mask_mended, "heads that are wrong"),
        (mask_off_by_one, "queries that are wrong"),
        (keys_mended_alone, "heads that are wrong"),
    ],
}
