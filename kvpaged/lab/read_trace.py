"""Traces from files of JSON lines, one request in each, in three kinds.

    {"input_length": 1030, "hash_ids": [0, 1, 2]}                     blocks, as Mooncake's traces have them
    {"messages": [{"role": "user", "content": "Where is ..."}]}       a chat, as the OpenAI API takes it
    [17, 4, 2501]   or   {"prompt_token_ids": [17, 4, 2501]}          tokens

A request may have a `cache_salt`, and an `id`, `request_id` or `custom_id` to be named by. One that was meant for a
batch API has its chat under `body`.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from itertools import chain
from math import ceil
from typing import Any

from kvpaged.lab.trace import Trace, TraceRequest
from kvpaged.lab.vocabulary import Message, Vocabulary
from kvpaged.tokens import as_tokens, pack

TOKEN_FIELDS = ("prompt_token_ids", "token_ids", "tokens", "prompt")
NAME_FIELDS = ("custom_id", "request_id", "id")


class MalformedLine(ValueError):
    """A line that is no request, named with its file."""


class TraceReader:
    """Reads the lines of one file. Those that are malformed raise MalformedLine, or are left out and kept a note of."""

    def __init__(self, name: str, vocabulary: Vocabulary | None = None, skip_malformed: bool = False) -> None:
        """`vocabulary` is needed for chats and texts."""
        self.name = name
        self.vocabulary = vocabulary
        self.skip_malformed = skip_malformed
        self.malformed: list[str] = []  # what was wrong with each line that was left out
        self._number_of: dict[int | str, int] = {}  # of a block, by its id in the file
        self._kind = ""
        self._shares = False

    def read(self, lines: Iterable[str | bytes], block_size: int | None = None) -> Trace:
        """Read all lines. The tokens in a block follow from the lengths, if no `block_size` is given.

        Raises MalformedLine; ValueError if the blocks of the trace fit no size, or several.
        """
        requests = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                requests.append(self._request(number, json.loads(line)))
            except (ValueError, TypeError, RecursionError) as error:
                message = f"{self.name}, line {number}: {_in_short(error)}"
                if not self.skip_malformed:
                    raise MalformedLine(f"{message}; mend it, or read the rest with --skip-malformed") from None
                self.malformed.append(message)
        if self._kind != "blocks":
            return Trace(self.name, requests, 1, self.vocabulary.decode if self.vocabulary else None)
        return Trace(self.name, requests, None if self._shares else find_block_size(requests, block_size))

    def _request(self, number: int, record: Any) -> TraceRequest:
        fields = record if isinstance(record, dict) else {"tokens": record}
        name = next((f"line {number} ({fields[key]})" for key in NAME_FIELDS if key in fields), f"line {number}")
        body = fields.get("body", fields)
        if not isinstance(body, dict):
            raise ValueError("its body is no object")
        salt = body.get("cache_salt")
        if not isinstance(salt, Hashable):
            raise ValueError(f"cache_salt is {salt!r}; it must be a string")
        if "hash_ids" in body and self.vocabulary is None:
            self._expect("blocks")
            return self._of_blocks(name, body, salt)
        self._expect("tokens")
        tokens, packed = as_tokens(self._tokens(body))
        if not tokens:
            raise ValueError("it has no token")
        return TraceRequest(name, packed, len(tokens), salt)

    def _expect(self, kind: str) -> None:
        self._kind = self._kind or kind
        if kind != self._kind:
            raise ValueError(f"it has {kind}, and those before have {self._kind}")

    def _of_blocks(self, name: str, body: dict[str, Any], salt: Hashable) -> TraceRequest:
        ids, length = body["hash_ids"], body.get("input_length")
        if isinstance(ids, dict) and all(isinstance(part, list) for part in ids.values()):
            ids, self._shares = list(chain(*ids.values())), True  # by part of the prompt, as in RAGPulse
        if not isinstance(ids, list) or not all(isinstance(each, int | str) for each in ids):
            raise ValueError("hash_ids is no list of numbers or strings")
        if type(length) is not int or length < max(1, len(ids)) or not ids:
            raise ValueError(f"input_length is {length!r} with {len(ids)} hash_ids; each stands for a token at least")
        numbers = [self._number_of.setdefault(each, len(self._number_of)) for each in ids]
        return TraceRequest(name, pack(numbers), length, salt)

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        messages = body.get("messages")
        given = next((body[key] for key in TOKEN_FIELDS if key in body), None)
        if isinstance(given, list):
            return given
        if messages is None and not isinstance(given, str):
            raise ValueError(f"it has no hash_ids, no messages, and no tokens under {', '.join(TOKEN_FIELDS)}")
        if self.vocabulary is None:
            raise ValueError("it is text, which only a tokenizer turns into tokens: give one with --tokenizer")
        return self.vocabulary.encode(str(given)) if messages is None else self.vocabulary.encode_chat(_plain(messages))


def find_block_size(requests: Iterable[TraceRequest], given: int | None = None) -> int:
    """Return the tokens in a block: what is given, or else the one size, or the one power of two, that all lengths fit.

    A prompt of L tokens in n blocks has blocks of at least L / n tokens, and of fewer than L / (n - 1).
    Raises ValueError if what is given does not fit, if nothing does, or several do and none is given.
    """
    least, below = 1, 1 << 32
    for request in requests:
        length, blocks = request.num_tokens, request.num_units
        least = max(least, ceil(length / blocks))
        if blocks > 1:
            below = min(below, ceil(length / (blocks - 1)))
    if least >= below:
        raise ValueError("no size of blocks fits all input_length and hash_ids of the trace; is it a trace of blocks?")
    sizes = f"blocks of {least} to {below - 1} tokens"
    if given is not None:
        if not least <= given < below:
            raise ValueError(f"blocks of {given} tokens do not fit the trace, {sizes} do")
        return given
    powers = [1 << power for power in range(32) if least <= 1 << power < below]
    if least + 1 < below and len(powers) != 1:
        raise ValueError(f"{sizes} fit the trace: say which with --block-size")
    return powers[0] if powers else least


def _plain(messages: Any) -> list[Message]:
    """Messages with plain text for content: parts of text are put together, others are refused."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise ValueError("messages is no list of objects")
    plain = []
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            texts = [part.get("text") if isinstance(part, dict) else None for part in content]
            if None in texts:
                raise ValueError("a message has a part that is no text")
            content = "".join(map(str, texts))
        if not isinstance(content, str):
            raise ValueError("a message's content is no text")
        plain.append({**message, "content": content})
    return plain


def _in_short(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error.msg} at character {error.pos + 1})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)
