"""Wrong answers to the exercises of chapter 4."""

from kvpaged import mini


def one_by_one(pool, pages):
    for page in pages:
        mini.release(pool, page)


def each_on_its_own(pool, pages):
    for page in pages:
        assert pool.ref_counts[page], f"page {page} is free"
    for page in set(pages):
        mini.release(pool, page)


def never_refusing(pool, pages):
    for page in pages:
        if pool.ref_counts[page]:
            mini.release(pool, page)


def counts_alone(pool, pages):
    for page in pages:
        assert pool.ref_counts[page] >= pages.count(page), f"page {page} is released too often"
    for page in pages:
        pool.ref_counts[page] -= 1


WRONG = {
    "4.2": [
        (one_by_one, "reference counts afterwards"),
        (each_on_its_own, "reference counts afterwards"),
        (never_refusing, "it accepted"),
        (counts_alone, "free pages afterwards"),
    ],
}
