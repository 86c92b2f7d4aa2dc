"""Tokens to text, as they come, and the stop strings that end it."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

CONTEXT = 4  # prompt tokens that tell the tokenizer how the text goes on: with a space, or within a character
LONGEST = 16  # tokens that may be one character; what is none by then will not become one
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of bytes that are no character, or not yet


class Detokenizer:
    """The text of one continuation: grows with its tokens, and watches for stop strings.

    Tokens are read beside those before them, twice: without the new ones and with them. The difference is what they
    add (as vLLM and text-generation-inference do). Tokens that end within a character wait for the rest of it.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: Sequence[int], stop: Sequence[str]) -> None:
        self.text = ""
        self.num_tokens = 0
        self._tokenizer = tokenizer
        self._stop = stop
        self._held_back = max((len(text) - 1 for text in stop), default=0)
        self._before = list(prompt_tokens[-CONTEXT:])  # beside which the next are read
        self._waiting: list[int] = []

    def extend(self, tokens: Sequence[int]) -> str | None:
        """Take in the next tokens; return the stop string that now ended the text, which is cut."""
        searched = len(self.text)
        for token in tokens:
            self._waiting.append(token)
            added, is_complete = self._added()
            if (added and is_complete) or len(self._waiting) == LONGEST:
                self.text += added
                self._before, self._waiting = self._waiting, []
        self.num_tokens += len(tokens)
        found = [
            (start, text)
            for text in self._stop
            if (start := self.text.find(text, max(0, searched - len(text) + 1))) >= 0
        ]
        if not found:
            return None
        start, text = min(found)
        self.text, self._waiting = self.text[:start], []
        return text

    def visible(self, finished: bool) -> str:
        """The text that no stop string can take back any more; at the end, with a character that stayed incomplete."""
        if finished:
            return self.text + self._added()[0]
        return self.text[: max(0, len(self.text) - self._held_back)]

    def _added(self) -> tuple[str, bool]:
        """What the tokens that wait add to the text, and whether that ends with a whole character."""
        if not self._waiting:
            return "", True
        known, whole = self._decode(self._before), self._decode(self._before + self._waiting)
        is_complete = not whole.endswith(INCOMPLETE)
        if whole.startswith(known):
            return whole[len(known) :], is_complete
        same = next((at for at, pair in enumerate(zip(known, whole, strict=False)) if pair[0] != pair[1]), len(whole))
        if known[same:].strip(INCOMPLETE):  # a byte was shown as a character, and beside the next it is none
            return self._decode(self._waiting), is_complete
        return whole[same:], is_complete  # the prompt ended within a character

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)
