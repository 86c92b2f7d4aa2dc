"""Text to tokens, for traces of chats: with a tokenizer from a checkpoint's folder."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

Message = dict[str, Any]  # with a role, and text for content


class Vocabulary(Protocol):
    """How the text of a trace becomes tokens, and tokens become text again."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a prompt."""

    def encode_chat(self, messages: list[Message]) -> list[int]:
        """Tokens of a chat, with those that a model's template puts around its messages."""

    def decode(self, tokens: list[int]) -> str:
        """What tokens say."""


def load_vocabulary(path: Path) -> Vocabulary:
    """Open a `tokenizer.json`, or the folder of a checkpoint that has one.

    A folder with a chat template needs the transformers library, which knows how to use it.
    Raises FileNotFoundError or ValueError.
    """
    folder = path if path.is_dir() else path.parent
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file; give a tokenizer.json, or a folder that has one")
    if path.is_dir() and _has_template(folder) and find_spec("transformers"):
        return _Templated(folder)
    return _Plain(file)


class _Plain:
    """Without a template: each message is a line with its role in front."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{file} is no tokenizer ({error})") from None

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def encode_chat(self, messages: list[Message]) -> list[int]:
        return self.encode("".join(f"{message.get('role', '')}: {message['content']}\n" for message in messages))

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))


class _Templated:
    """As the transformers library does it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def encode_chat(self, messages: list[Message]) -> list[int]:
        chat = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return list(chat)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens))


def _has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    if (folder / "chat_template.jinja").is_file():
        return True
    return config.is_file() and "chat_template" in json.loads(config.read_text(encoding="utf-8"))
