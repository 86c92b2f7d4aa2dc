"""Wrong answers to the exercises of chapter 12."""


def in_as_many_parts_as_threads(lengths, num_threads):
    parts = [-(-length // num_threads) for length in lengths]
    return [
        [(start, min(start + part, length)) for start in range(0, length, part)]
        for length, part in zip(lengths, parts, strict=True)
    ]


def through_the_whole_batch(lengths, num_threads):
    begins = [sum(lengths[:index]) for index in range(len(lengths))]
    return [
        [
            (max(0, cut - begin), min(length, cut + 4 - begin))
            for cut in range(0, sum(lengths), 4)
            if begin - 4 < cut < begin + length
        ]
        for begin, length in zip(begins, lengths, strict=True)
    ]


def whole_parts_only(lengths, num_threads):
    return [[(start, start + 4) for start in range(0, length, 4)] for length in lengths]


def from_the_back(lengths, num_threads):
    return [[(max(0, stop - 4), stop) for stop in range(length, 0, -4)][::-1] for length in lengths]


PARTS = "the parts of a sequence of"

WRONG = {
    "12.5": [
        (in_as_many_parts_as_threads, PARTS),
        (through_the_whole_batch, PARTS),
        (whole_parts_only, PARTS),
        (from_the_back, PARTS),
    ],
}
