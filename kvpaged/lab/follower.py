"""A prefix cache known from its events alone: what a router knows of a server in another process.

`python -m kvpaged.lab.follower` reads batches of events, a line each, and prints the texts that the cache holds, a
line of JSON each; or what is wrong with the events, and then it ends with status 1.
"""

import json
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple


class StreamError(ValueError):
    """These events cannot be followed. The follower knows nothing any more, until it reads a snapshot."""


class _Node(NamedTuple):
    parent: int | None
    tokens: tuple[int, ...]
    salt: str


class Follower:
    """The tree behind a stream of batches: which texts are cached, on no page in particular."""

    last: int | None  # the batch read last; None when it knows nothing

    def __init__(self) -> None:
        self._begin()

    def read(self, line: str) -> None:
        """Follow one batch. Raises StreamError for what is none, is not the next, or says what cannot be."""
        try:
            self._follow(json.loads(line))
        except StreamError:
            self._begin()
            raise
        except (KeyError, TypeError, ValueError):
            self._begin()
            raise StreamError(f"this is no batch: {line.strip()[:60]}") from None

    def _follow(self, batch: dict[str, Any]) -> None:
        number, events, last = batch["batch"], batch["events"], self.last
        if events[:1] != [["cleared"]] and number != (0 if last is None else last + 1):
            before = "no batch that says all there is" if last is None else f"batch {last}"
            lost = f": {number - last - 1} lost" if last is not None and number > last else ""
            raise StreamError(f"batch {number} comes after {before}{lost}; ask for a snapshot")
        self.page_size = batch["page_size"]
        for event in events:
            self._apply(number, *event)
        self.last = number

    def match(self, tokens: Iterable[int], cache_salt: Hashable = None) -> int:
        """How many tokens the cache has of a text, in full pages."""
        tokens, node, found = tuple(tokens), None, 0
        while found + self.page_size <= len(tokens):
            node = self._places.get(_Node(node, tokens[found : found + self.page_size], repr(cache_salt)))
            if node is None:
                break
            found += self.page_size
        return found

    def texts(self) -> Iterator[tuple[str, list[int]]]:
        """Iterate over what is cached: for each page its salt, and all tokens up to its end."""
        whole: dict[int | None, list[int]] = {None: []}
        for number, (parent, tokens, salt) in self._nodes.items():
            whole[number] = whole[parent] + list(tokens)
            yield salt, whole[number]

    def __len__(self) -> int:
        """Pages cached."""
        return len(self._nodes)

    def _begin(self) -> None:
        self.last = None
        self.page_size = 0
        self._nodes: dict[int, _Node] = {}  # a parent always before those that continue it
        self._places: dict[_Node, int] = {}
        self._continued: Counter[int | None] = Counter()

    def _apply(self, batch: int, kind: str, number: int = -1, *about: Any) -> None:
        if kind == "cleared":
            size = self.page_size
            self._begin()
            self.page_size = size
        elif kind == "stored":
            parent, tokens, salt = about
            node = _Node(parent, tuple(tokens), salt)
            if parent is not None and parent not in self._nodes:
                raise StreamError(f"batch {batch}: page {number} continues page {parent}, which is not there")
            if number in self._nodes or node in self._places:
                raise StreamError(f"batch {batch}: page {number} is stored a second time")
            self._nodes[number], self._places[node] = node, number
            self._continued[parent] += 1
        else:
            if number not in self._nodes:
                raise StreamError(f"batch {batch}: page {number} is removed, and it is not there")
            if self._continued[number]:
                raise StreamError(f"batch {batch}: page {number} is removed, and another continues it")
            node = self._nodes.pop(number)
            del self._places[node]
            self._continued[node.parent] -= 1


def main() -> int:
    """Follow what stands on standard input."""
    follower = Follower()
    for line in sys.stdin:
        try:
            follower.read(line)
        except StreamError as error:
            print(error)
            return 1
    for text in follower.texts():
        print(json.dumps(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
