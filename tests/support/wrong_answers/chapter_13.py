"""Wrong answers to the exercises of chapter 13."""


def read_only(beams, length, page_size, bytes_per_token):
    return beams * length * bytes_per_token, (beams - 1) * (length % page_size) * bytes_per_token


def whole_pages(beams, length, page_size, bytes_per_token):
    return 2 * beams * length * bytes_per_token, 2 * (beams - 1) * page_size * bytes_per_token


def each_beam(beams, length, page_size, bytes_per_token):
    return 2 * beams * length * bytes_per_token, 2 * beams * (length % page_size) * bytes_per_token


def a_full_page_too(beams, length, page_size, bytes_per_token):
    filled = length % page_size or page_size
    return 2 * beams * length * bytes_per_token, 2 * (beams - 1) * filled * bytes_per_token


DEFAULT, PAGES = "bytes of the default cache", "bytes in pages, at the most"

WRONG = {
    "13.2": [(read_only, DEFAULT), (whole_pages, PAGES), (each_beam, PAGES), (a_full_page_too, PAGES)],
}
