"""Tokens to text, as they come, as far as a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTEXT = 4  # prompt tokens that tell the tokenizer how the text goes on: with a space, or within a character


class Detokenizer:
    """The text of one continuation: grows with its tokens, and watches for stop strings."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: Sequence[int], stop: Sequence[str]) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=list(prompt_tokens[-_CONTEXT:]), skip_special_tokens=True)
        self._stop = stop
        self._held_back = max((len(text) - 1 for text in stop), default=0)
        self.num_tokens = 0

    def extend(self, tokens: Sequence[int]) -> str | None:
        """Take in the next tokens; return the stop string that now ended the text, which is cut."""
        searched = len(self.text)
        for token in tokens:
            self.text += self._stream.step(self._tokenizer, token) or ""
        self.num_tokens += len(tokens)
        found = [
            (start, text)
            for text in self._stop
            if (start := self.text.find(text, max(0, searched - len(text) + 1))) >= 0
        ]
        if not found:
            return None
        start, text = min(found)
        self.text = self.text[:start]
        return text

    def visible(self, finished: bool) -> str:
        """The text that no stop string can take back any more."""
        return self.text if finished else self.text[: max(0, len(self.text) - self._held_back)]
