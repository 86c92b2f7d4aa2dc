"""The package's own source, shown in the book from the package: never pasted."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import kvpaged

_ROOT = Path(kvpaged.__file__).parents[1]
_CLAUSES = ("else:", "elif ", "except", "finally:")


class Part(NamedTuple):
    """Code from one file, and the names that it defines."""

    file: str
    names: tuple[str, ...]
    code: str


class Source:
    """Source code that a notebook shows, as Markdown with a line that says where it is from.

    That line links to the file. The built book has a page for each file, and in it a place for each name that the
    link's title lists.
    """

    def __init__(self, parts: list[Part], shortened: bool = False) -> None:
        self.parts = parts
        self._note = ", *shortened*" if shortened else ""

    def _repr_markdown_(self) -> str:
        return "\n\n".join(
            f'```python\n{code}\n```\n\n*from* [`{file}`](../{file} "{", ".join(names)}"){self._note}'
            for file, names, code in self.parts
        )

    def __repr__(self) -> str:
        return "\n\n".join(f"# {file}\n{code}" for file, _, code in self.parts)


def show_source(
    *objects: Callable[..., Any] | type | property,
    without_docstring: bool = False,
    leave_out: Mapping[str, str] | None = None,
) -> Source:
    """Show functions, methods or classes of this package; what stands in one file stands in one block.

    leave_out: what to cut, and what to call it. `{"if self._events.listeners:": "recording"}` puts the line
    `# … recording` in place of every statement that begins so, with its block and the comment above it. A branch
    (`else:`), a comment that stands alone, or arguments on lines of their own are cut by their beginning too.
    Raises ValueError for what is not from kvpaged and for a cut that finds nothing, TypeError for what has no source.
    """
    cuts = dict(leave_out or {})
    found = [_source(each, without_docstring) for each in objects]
    missing = [cut for cut in cuts if not any(_begins(part.code, cut) for part in found)]
    if missing:
        raise ValueError(f"nothing in {', '.join(name for part in found for name in part.names)} begins {missing[0]!r}")
    groups = groupby((part._replace(code=_cut(part.code, cuts)) for part in found), key=lambda part: part.file)
    return Source([_joined(list(group)) for _, group in groups], shortened=bool(cuts))


def _source(thing: Any, without_docstring: bool) -> Part:
    thing = thing.fget if isinstance(thing, property) else thing
    module = getattr(thing, "__module__", None)
    if not (inspect.isfunction(thing) or inspect.ismethod(thing) or inspect.isclass(thing)):
        raise TypeError(f"{thing!r} has no source to show; hand in a function, a method or a class")
    if module is None or module.split(".")[0] != "kvpaged":
        raise ValueError(f"{thing.__qualname__} is from {module}, and the book shows the source of kvpaged only")
    code = textwrap.dedent(inspect.getsource(thing)).rstrip()
    file = Path(inspect.getfile(inspect.unwrap(thing))).relative_to(_ROOT).as_posix()
    return Part(file, (thing.__qualname__,), _without_docstrings(code) if without_docstring else code)


def _joined(parts: list[Part]) -> Part:
    names = tuple(name for part in parts for name in part.names)
    return Part(parts[0].file, names, "\n\n".join(part.code for part in parts))


def _cut(code: str, cuts: Mapping[str, str]) -> str:
    lines, kept, blocks = code.split("\n"), list[str](), _blocks(code)
    number, last = 0, ""
    while number < len(lines):
        line = lines[number]
        name = next((name for cut, name in cuts.items() if number in blocks and line.lstrip().startswith(cut)), None)
        if name is None:
            kept.append(line)
            number, last = number + 1, ""
            continue
        while not last and kept and kept[-1].lstrip().startswith("#"):  # what it says, it says of the statement
            kept.pop()
        indent = line[: len(line) - len(line.lstrip())]
        if last and kept[-1].startswith(f"{indent}# …"):  # two cuts, one after the other, are one
            kept[-1] += "" if name == last else f"; {name}"
        else:
            kept.append(f"{indent}# … {name}")
        number, last = blocks[number], name
    return "\n".join(kept)


def _begins(code: str, cut: str) -> bool:
    lines = code.split("\n")
    return any(lines[number].lstrip().startswith(cut) for number in _blocks(code))


def _blocks(code: str) -> dict[int, int]:
    """Where each statement, branch, comment and list of arguments begins, and the line after its last; from 0."""
    lines = code.split("\n")
    blocks = {number: number + 1 for number, line in enumerate(lines) if line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
            blocks[first - 1] = max(node.end_lineno or 0, blocks.get(first - 1, 0))
        if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].lineno > node.lineno:
            blocks[node.args.args[0].lineno - 1] = node.args.args[-1].end_lineno or 0
    for number, line in enumerate(lines):
        if line.lstrip().startswith(_CLAUSES):
            indent = len(line) - len(line.lstrip())
            deeper = (n for n in range(number + 1, len(lines)) if lines[n][: indent + 1].strip())
            blocks[number] = next(deeper, len(lines))
    return blocks


def _without_docstrings(code: str) -> str:
    lines = code.split("\n")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
            docstring, following = node.body[0], node.body[1]
            decorators = getattr(following, "decorator_list", [])
            stop = min([following.lineno, *(each.lineno for each in decorators)])
            for number in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[number] = "\0"
            for number in range(docstring.end_lineno or 0, stop - 1):  # and the blank lines after it
                if not lines[number].strip() and lines[number - 1] == "\0":
                    lines[number] = "\0"
    return "\n".join(line for line in lines if line != "\0")
