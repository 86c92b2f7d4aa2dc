"""Wrong answers to the exercises of chapter 16."""

import torch


def dividing_by_nothing(numbers, bits, dim):
    low, high = numbers.amin(dim, keepdim=True), numbers.amax(dim, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return ((numbers - low) / scale).round() * scale + low


def a_code_too_many(numbers, bits, dim):
    low, high = numbers.amin(dim, keepdim=True), numbers.amax(dim, keepdim=True)
    scale = ((high - low) / 2**bits).clamp(min=1e-12)
    return ((numbers - low) / scale).round() * scale + low


def from_zero(numbers, bits, dim):
    scale = numbers.abs().amax(dim, keepdim=True) / (2 ** (bits - 1) - 1)
    return (numbers / scale).round() * scale


def one_scale_for_all(numbers, bits, dim):
    low, high = numbers.min(), numbers.max()
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
    return ((numbers - low) / scale).round() * scale + low


def neighbours(codes):
    return [low + 8 | high + 8 << 4 for low, high in zip(codes[::2], codes[1::2], strict=True)]


def the_first_half_on_top(codes):
    half = len(codes) // 2
    return [low + 8 | high + 8 << 4 for high, low in zip(codes[:half], codes[half:], strict=True)]


def twos_complement(codes):
    half = len(codes) // 2
    return bytes(low & 15 | (high & 15) << 4 for low, high in zip(codes[:half], codes[half:], strict=True))


def without_a_distance(codes):
    half = len(codes) // 2
    return bytes(low | high << 4 for low, high in zip(codes[:half], codes[half:], strict=True))


def shared(numbers, bits, dim, most=None):
    most = most or 2 ** (bits - 1) - 1
    scales = numbers.abs().amax(dim, keepdim=True) / most
    codes = (numbers / torch.where(scales == 0, 1, scales)).round().to(torch.int8)
    return codes, scales.expand(*numbers.shape[:2], 1).squeeze(-1)


def by_token_alone(numbers, bits):
    return shared(numbers, bits, (1, 2))


def by_head_alone(numbers, bits):
    return shared(numbers, bits, (0, 2))


def a_code_that_is_not_there(numbers, bits):
    return shared(numbers, bits, -1, most=2 ** (bits - 1))


def cut_off(numbers, bits):
    _, scales = shared(numbers, bits, -1)
    return (numbers / torch.where(scales == 0, 1, scales)[..., None]).to(torch.int8), scales


def nan_of_a_silent_head(numbers, bits):
    scales = numbers.abs().amax(-1) / (2 ** (bits - 1) - 1)
    return (numbers / scales[..., None]).round(), scales


def packed(numbers):
    scale = max(map(abs, numbers)) / 7
    return [round(each / (scale or 1)) for each in numbers], scale


def never_packed(page, number, page_size):
    page["tail"].append(number)


def packed_too_early(page, number, page_size):
    page["tail"].append(number)
    if len(page["tail"]) >= page_size - 1:
        page["codes"], page["scale"] = packed(page["tail"])
        page["tail"] = []


def both(page, number, page_size):
    page["tail"].append(number)
    if len(page["tail"]) == page_size:
        page["codes"], page["scale"] = packed(page["tail"])


def rewritten_though_zeros_are_minded(page, number, page_size):
    known = [code * page["scale"] for code in page["codes"]] + [number]
    page["codes"], page["scale"] = packed(known)


def the_first_scale_for_all(page, number, page_size):
    page["scale"] = page["scale"] or abs(number) / 7
    page["codes"].append(round(number / (page["scale"] or 1)))


def no_page_of_zeros(page, number, page_size):
    page["tail"].append(number)
    if len(page["tail"]) == page_size:
        page["scale"] = max(map(abs, page["tail"])) / 7
        page["codes"] = [round(each / page["scale"]) for each in page["tail"]]
        page["tail"] = []


WRONG = {
    "16.5": [
        (dividing_by_nothing, "further off than half a scale"),
        (a_code_too_many, "more values in a group than codes"),
        (from_zero, "further off than half a scale"),
        (one_scale_for_all, "further off than half a scale"),
    ],
    "16.6": [
        (neighbours, "it returned"),
        (the_first_half_on_top, "it returned"),
        (twos_complement, "it returned"),
        (without_a_distance, "it returned"),
    ],
    "16.7": [
        (by_token_alone, "scales: tokens that are wrong"),
        (by_head_alone, "scales: tokens that are wrong"),
        (a_code_that_is_not_there, "scales: tokens that are wrong"),
        (cut_off, "tokens further off than half a scale"),
        (nan_of_a_silent_head, "tokens further off than half a scale"),
    ],
    "16.8": [
        (never_packed, "the slots after token"),
        (packed_too_early, "the slots after token"),
        (both, "the slots after token"),
        (rewritten_though_zeros_are_minded, "the slots after token"),
        (the_first_scale_for_all, "the slots after token"),
        (no_page_of_zeros, "ZeroDivisionError"),
    ],
}
