"""Link each of the glossary's terms where a chapter first uses it: `python tools/terms.py`.

Name some notebooks to link only those. `--check` changes nothing, and says which first uses are not linked. A use is a
word of the prose: headings, code, mathematics, links and the text of roles are not.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from nbformat import NotebookNode

from notebook_form import read, text

CHAPTERS = Path(__file__).parents[1] / "chapters"
# Words of every day as well: no script can tell whether the term is meant, so their first use need not be linked.
EVERYDAY = {
    "batch", "block", "branch", "compute", "computed", "context", "draft", "hit", "known", "num_computed", "reference",
    "request", "split", "step", "swap", "tile", "token", "waste",
}  # fmt: skip
ROLE = re.compile(r"\{term\}`(?:[^`<]*<([^`>]+)>|([^`]+))`")
NO_PROSE = re.compile(
    r"^```.*?^```|^~~~.*?^~~~"  # blocks of code
    r"|\{[\w:]+\}`[^`]*`"  # roles
    r"|``.+?``|`[^`]*`"  # code
    r"|\$\$.*?\$\$|\$[^$\n]*\$"  # mathematics
    r"|^#+ .*?$"  # headings
    r"|!?\[[^\]]*\](?:\([^)]*\))?"  # links and pictures
    r"|<summary[^>]*>.*?</summary>|<[^>\n]*>|https?://\S+"
    r"|\*\*\d+\. \w+\.\*\*",  # the heads of exercises
    re.DOTALL | re.MULTILINE,
)


class Use(NamedTuple):
    """A term in a text, in a link to the glossary or not."""

    term: str
    start: int
    stop: int
    linked: bool


def glossary(page: str) -> dict[str, str]:
    """The terms of a glossary page, each with the first name of its entry."""
    entries = re.findall(r"^```\{glossary\}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    terms = {}
    for entry in "\n\n".join(entries).split("\n\n"):
        names = [line.strip() for line in entry.strip().split("\n") if line and not line.startswith(" ")]
        terms.update(dict.fromkeys(names, names[0]))
    return terms


TERMS = glossary((CHAPTERS / "glossary.md").read_text(encoding="utf-8"))


def uses(prose: str) -> Iterator[Use]:
    """Every use of a term, in order; of two terms that begin in one place, the longer."""
    known = {name.lower(): name for name in TERMS}
    for role in ROLE.finditer(prose):
        name = (role[1] or role[2]).strip()
        yield Use(known.get(name.lower(), name), role.start(), role.end(), True)
    hidden = NO_PROSE.sub(lambda found: re.sub(r"\S", "\0", found[0]), prose)
    words = "|".join(re.escape(name).replace(r"\ ", r"\s") for name in sorted(TERMS, key=len, reverse=True))
    for found in re.finditer(rf"(?<![\w-])({words})(?:e?s)?(?![\w-])", hidden, re.IGNORECASE):
        name = re.sub(r"\s", " ", found[1]).lower()
        if name in known:
            yield Use(known[name], found.start(), found.end(), False)


def unlinked(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, Use]]:
    """The cell and the place of each first use that is not linked, in order."""
    seen: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for use in sorted(uses(cell.source), key=lambda use: use.start):
                if (entry := TERMS.get(use.term, use.term)) not in seen and (use.linked or use.term not in EVERYDAY):
                    seen.add(entry)
                    if not use.linked:
                        yield cell, use


def link(notebook: NotebookNode) -> bool:
    """Link each first use; say whether anything changed."""
    found = list(unlinked(notebook))
    for cell, use in reversed(found):  # from the end, so that the places before stay where they are
        words = cell.source[use.start : use.stop]
        target = "" if words.lower() == use.term.lower() else f" <{use.term}>"
        cell.source = f"{cell.source[: use.start]}{{term}}`{words}{target}`{cell.source[use.stop :]}"
    return bool(found)


def terms(
    notebooks: Annotated[list[Path] | None, typer.Argument(help="Chapters to link; all if none.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only report.")] = False,
) -> None:
    """Link the first use of each of the glossary's terms."""
    problems = []
    for path in notebooks or sorted(CHAPTERS.glob("[0-9][0-9]-*.ipynb")):
        notebook = read(path)
        if check:
            problems += [
                f"{path.name}: {use.term} is not linked in: {cell.source[max(0, use.start - 40) : use.stop + 40]!r}"
                for cell, use in unlinked(notebook)
            ]
        elif link(notebook):
            path.write_text(text(notebook), encoding="utf-8")
            print(f"linked terms in {path}")
    print(*problems, sep="\n", file=sys.stderr)
    raise typer.Exit(code=1 if problems else 0)


if __name__ == "__main__":
    typer.run(terms)
