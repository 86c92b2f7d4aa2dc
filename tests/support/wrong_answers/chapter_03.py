"""Wrong answers to the exercises of chapter 3."""

import torch


def without_values(num_bytes, page_size, num_layers, num_kv_heads, head_dim, bytes_per_number):
    return num_bytes // (page_size * num_layers * num_kv_heads * head_dim * bytes_per_number)


def without_layers(num_bytes, page_size, num_layers, num_kv_heads, head_dim, bytes_per_number):
    return num_bytes // (2 * page_size * num_kv_heads * head_dim * bytes_per_number)


def counting_a_part_of_a_page(num_bytes, page_size, num_layers, num_kv_heads, head_dim, bytes_per_number):
    return -(-num_bytes // (2 * page_size * num_layers * num_kv_heads * head_dim * bytes_per_number))


def first_page_each_time(page_ids, page_size, token):
    return page_ids[0] * page_size + token % page_size


def without_a_table(page_ids, page_size, token):
    return token


def last_page_each_time(page_ids, page_size, token):
    return page_ids[-1] * page_size + token % page_size


def a_page_too_late(page_ids, page_size, token):
    return page_ids[max(0, token - 1) // page_size] * page_size + token % page_size


def a_copy(storage, pages):
    storage[:, :, pages].fill_(torch.nan)


def everything(storage, pages):
    storage.fill_(torch.nan)


def keys_alone(storage, pages):
    storage[0, :, pages] = torch.nan


def first_layer_alone(storage, pages):
    storage[:, 0, pages] = torch.nan


def zeros(storage, pages):
    storage[:, :, pages] = 0


WRONG = {
    "3.2": [(without_values, "pages"), (without_layers, "pages"), (counting_a_part_of_a_page, "pages")],
    "3.3": [
        (first_page_each_time, "flat slot"),
        (without_a_table, "flat slot"),
        (last_page_each_time, "flat slot"),
        (a_page_too_late, "flat slot"),
    ],
    "3.4": [
        (a_copy, "spoiled pages"),
        (everything, "the other pages"),
        (keys_alone, "V, layer 0"),
        (first_layer_alone, "K, layer 1"),
        (zeros, "spoiled pages"),
    ],
}
