"""What no page of the book uses is not sent to its readers: rules of the theme's style, icons, the fonts' hints.

Nor is what the theme's scripts tell their developers in the console of each reader.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import tinycss2
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

WORD = re.compile(r"[\w-]+")
ESCAPED = re.compile(r'content:\s*"\\([0-9a-f]+)"')
PRIVATE_USE = re.compile("[\ue000-\uf8ff]")  # where the characters of icons stand
# Style sheets and scripts of extensions, and what is on the pages that need them.
NEEDED_BY = {"sphinx-design": "sd-", "design-tabs": "sd-tab", "togglebutton": "toggle"}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", drop_unused_files, priority=910)
    app.connect("build-finished", drop_unused_rules)
    app.connect("build-finished", silence_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def drop_unused_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave away the files of extensions that have nothing on this page."""
    body = context.get("body", "")
    absent = [name for name, mark in NEEDED_BY.items() if not re.search(rf'class="[^"]*\b{mark}', body)]
    for files in ("css_files", "script_files"):
        context[files] = [each for each in context[files] if not any(name in str(each) for name in absent)]


def drop_unused_rules(app: Sphinx, exception: Exception | None) -> None:
    """Leave in the theme's style sheet the rules for classes that a page or script names, and cut the fonts to that."""
    static = Path(app.outdir) / "_static"
    theme = static / "styles" / "pydata-sphinx-theme.css"
    if exception or app.builder.name != "html" or not theme.exists():
        return
    pages = [*Path(app.outdir).rglob("*.html"), *static.rglob("*.js")]
    words = {word for path in pages for word in WORD.findall(path.read_text(encoding="utf-8"))}
    rules = tinycss2.parse_stylesheet(theme.read_text(encoding="utf-8"), skip_comments=True, skip_whitespace=True)
    theme.write_text("".join(used(rules, words)), encoding="utf-8")
    styles = "".join(path.read_text(encoding="utf-8") for path in static.rglob("*.css"))
    icons = {int(code, 16) for code in ESCAPED.findall(styles)} | {ord(each) for each in PRIVATE_USE.findall(styles)}
    for path in static.rglob("fa-*.woff2"):
        cut_font(path, icons)
    for path in static.rglob("MathJax_*.woff"):
        cut_font(path, None)


def silence_scripts(app: Sphinx, exception: Exception | None) -> None:
    """Take their reports of what went well out of the theme's scripts; what goes wrong they still say."""
    if not exception and app.builder.name == "html":
        for path in (Path(app.outdir) / "_static" / "scripts").glob("*-theme.js"):
            path.write_text(path.read_text(encoding="utf-8").replace("console.log(", "void("), encoding="utf-8")


def used(rules: list[Any], words: set[str]) -> Iterator[str]:
    """The text of the rules that can apply: all classes of one of their selectors are among the words."""
    for rule in rules:
        if rule.type == "qualified-rule":
            kept = [each for each in selectors(rule.prelude) if words >= classes(each)]
            if kept:
                yield f"{','.join(map(tinycss2.serialize, kept))}{{{tinycss2.serialize(rule.content)}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports") and rule.content:
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            if text := "".join(used(inner, words)):
                yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{text}}}"
        else:
            yield rule.serialize()


def selectors(prelude: list[Any]) -> list[list[Any]]:
    """What stands between the commas of a rule, as tokens."""
    found: list[list[Any]] = [[]]
    for token in prelude:
        if token == ",":
            found.append([])
        else:
            found[-1].append(token)
    return found


def classes(selector: list[Any]) -> set[str]:
    """The classes without which it cannot apply: not those within `:not(...)` or `:is(...)`."""
    return {name.value for dot, name in pairwise(selector) if dot == "." and name.type == "ident"}


def cut_font(path: Path, characters: set[int] | None) -> None:
    """Leave these characters in a font, or all; and no hints for screens of few pixels."""
    font, cut = TTFont(path), subset.Subsetter(subset.Options(hinting=False, drop_tables=["FFTM"]))
    flavor = font.flavor
    cut.populate(unicodes=font.getBestCmap() if characters is None else characters)
    cut.subset(font)
    font.flavor = flavor
    font.save(path)
