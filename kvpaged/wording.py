"""How many things there are, in words that fit the number."""


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Count things: 1 page, 2 pages. plural: of the noun, where it takes more than an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
