"""The package's own source, shown in the book from the package: never pasted."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import kvpaged


class Source:
    """Source code that a notebook shows, as Markdown with a line that says where it is from."""

    def __init__(self, parts: list[tuple[str, str]]) -> None:
        self.parts = parts  # (file, code)

    def _repr_markdown_(self) -> str:
        return "\n\n".join(f"```python\n{code}\n```\n\n*from* `{file}`" for file, code in self.parts)

    def __repr__(self) -> str:
        return "\n\n".join(f"# {file}\n{code}" for file, code in self.parts)


def show_source(*objects: Callable[..., Any] | type | property, without_docstring: bool = False) -> Source:
    """Show functions, methods or classes of this package; what stands in one file stands in one block.

    Raises ValueError for what is not from kvpaged, TypeError for what has no source.
    """
    found = [_source(each, without_docstring) for each in objects]
    return Source(
        [(file, "\n\n".join(code for _, code in group)) for file, group in groupby(found, key=lambda part: part[0])]
    )


def _source(thing: Any, without_docstring: bool) -> tuple[str, str]:
    thing = thing.fget if isinstance(thing, property) else thing
    module = getattr(thing, "__module__", None)
    if not (inspect.isfunction(thing) or inspect.ismethod(thing) or inspect.isclass(thing)):
        raise TypeError(f"{thing!r} has no source to show; hand in a function, a method or a class")
    if module is None or module.split(".")[0] != "kvpaged":
        raise ValueError(f"{thing.__qualname__} is from {module}, and the book shows the source of kvpaged only")
    code = textwrap.dedent(inspect.getsource(thing)).rstrip()
    file = Path(inspect.getsourcefile(thing) or "").relative_to(Path(kvpaged.__file__).parents[1])
    return file.as_posix(), _without_docstrings(code) if without_docstring else code


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
