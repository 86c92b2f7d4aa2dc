"""Words as tokens: what the playgrounds need of a tokenizer."""

import re

WORD = re.compile(r" ?[A-Za-z]+|[^A-Za-z]")


class Words:
    """Cuts a text as the recall model's tokenizer does, at words and signs; numbers them as they come."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def encode(self, text: str) -> list[int]:
        """The numbers of the words of a text."""
        words = WORD.findall(text)
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return [self.known.index(word) for word in words]

    def decode(self, token: int) -> str:
        """The word with a number."""
        return self.known[token]
