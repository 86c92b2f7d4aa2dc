"""What the checker answers: words for a terminal, and the same with pictures for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from kvpaged.figures.picture import Picture

Row = tuple[str, Any, Any]  # what, yours, expected


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was tried, where it parts from what is expected, and one hint."""

    number: str
    passed: bool
    words: Sequence[str]
    rows: Sequence[Row] = ()
    pictures: Iterable[tuple[str, Picture]] = ()
    printed: str = ""
    hint: str = ""

    def __repr__(self) -> str:
        lines = [f"{self._mark()} {self.number}: {self.words[0]}", *self.words[1:]]
        lines += [f"    {what}: yours {_brief(yours)}, expected {_brief(right)}" for what, yours, right in self.rows]
        lines += [f"    {name}: {picture}" for name, picture in self.pictures]
        lines += [f"It printed: {self.printed.rstrip()}"] if self.printed else []
        lines += [f"Hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *others = self.words
        parts = [f"<p><strong>{self._mark()} {self.number}</strong>: {_code(first)}</p>"]
        parts += [paragraphs(each) for each in others]
        if self.rows:
            cells = "".join(
                f"<tr><th scope='row'>{escape(what)}</th><td>{_value(yours)}</td><td>{_value(right)}</td></tr>"
                for what, yours, right in self.rows
            )
            parts.append(
                "<table><thead><tr><th scope='col'>what</th><th scope='col'>yours</th>"
                f"<th scope='col'>expected</th></tr></thead><tbody>{cells}</tbody></table>"
            )
        parts += [f"<p>{escape(name)}:</p>{picture._repr_html_()}" for name, picture in self.pictures]
        parts += [f"<p>It printed:</p><pre>{escape(self.printed.rstrip())}</pre>"] if self.printed else []
        parts += [f"<p><em>Hint.</em> {_code(self.hint)}</p>"] if self.hint else []
        return f"<div class='kvx {'right' if self.passed else 'wrong'}'>{''.join(parts)}</div>"

    def _mark(self) -> str:
        return "✓" if self.passed else "✗"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 300 else text[:297] + "..."


def _value(value: Any) -> str:
    return f"<code>{escape(_brief(value))}</code>" if value is not None else "nothing"


def paragraphs(text: str) -> str:
    """HTML of words, a paragraph after each empty line; code stands between backticks."""
    return "".join(f"<p>{_code(each)}</p>" if "\n" not in each else _code(each) for each in text.split("\n\n"))


def _code(text: str) -> str:
    parts = escape(text).split("`")
    return "".join(_marked(part) if index % 2 else part for index, part in enumerate(parts))


def _marked(code: str) -> str:
    return f"<pre>{code}</pre>" if "\n" in code else f"<code>{code}</code>"
