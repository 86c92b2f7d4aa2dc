"""Check the built book as a reader without a network meets it: `python tools/check_site.py [_build/html]`.

Nothing that a page needs (scripts, styles, pictures, frames) may come from elsewhere; every link inside the book must
lead to a file that is there, and to a place that is there within it; every picture must say in words what it shows;
the figures of chapter 4 are numbered 4.1, 4.2 and so on; the reference says nothing that only a library says of itself;
only a page with a formula loads MathJax, none holds the state of widgets, and no title says a thing twice. What cells
print is what their notebooks store, and so what the tests compare, except for races and what a machine decides.
"""

import json
import re
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {**dict.fromkeys(["audio", "iframe", "img", "script", "source", "video"], "src"), "object": "data"}
LOADED_BY_LINK = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
STYLE_URL = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)")
CHAPTER = re.compile(r"(\d\d)-[\w-]+\.html")
NAMELESS = "Project name not set"  # what Sphinx says where a template asks for a name that nobody gave
FOREIGN = ("Alias for field number", "Define the computation performed at every call")  # docstrings of others
FILE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp)\b", re.IGNORECASE)


def says_what_it_shows(alt: str) -> bool:
    """Whether an alternative text is a phrase about a picture: four words at least, and no name of a file."""
    return len(alt.split()) >= 4 and not FILE_NAME.search(alt)


class Page(HTMLParser):
    """What one page loads, links to, and offers as places to link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.silent_pictures: list[str] = []
        self.figures: list[str] = []
        self.nameless = self.dead_widgets = False
        self.title = ""
        self.foreign: list[str] = []
        self.formulas = 0
        self._in_style = self._in_title = False
        self._in_number = False
        self._in_article = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self._in_style = tag == "style"
        self._in_title |= tag == "title" and not self.title
        self.dead_widgets |= "widget-state" in given.get("type", "")
        self._in_number = given.get("class") == "caption-number"
        self.formulas += "math" in given.get("class", "").split()
        self.places |= {given[key] for key in ("id", "name") if key in given}
        if given.get(LOADED.get(tag, "")):
            self.loads.append(given[LOADED[tag]])
        if tag == "link" and LOADED_BY_LINK & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        self.loads += STYLE_URL.findall(given.get("style", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self._in_article |= tag == "article"
        # Outside the article a picture may be an ornament, and say so with an empty text.
        if tag == "img" and ("alt" not in given or (self._in_article and not says_what_it_shows(given["alt"]))):
            self.silent_pictures.append(given.get("src", "")[:80])
        if tag == "svg" and given.get("aria-hidden") != "true" and not says_what_it_shows(given.get("aria-label", "")):
            self.silent_pictures.append("a drawing")

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"
        self._in_title &= tag != "title"

    def handle_data(self, data: str) -> None:
        self.nameless |= data.strip() == NAMELESS
        self.foreign += [words for words in FOREIGN if data.lstrip().startswith(words)]
        if self._in_title:
            self.title += data
        if self._in_style:
            self.loads += STYLE_URL.findall(data)
        if self._in_number:
            self.figures.append(data.strip())
            self._in_number = False


def check(site: Path) -> list[str]:
    """Everything wrong with the book built in `site`, one line each."""
    # 404.html may be shown at any address, so its links begin at the root of a site, which only its server knows.
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts and path.name != "404.html"]
    pages = {path.resolve(): Page(path) for path in found}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        problems += [f"{name}: no text says what it shows: {picture}" for picture in page.silent_pictures]
        if page.nameless:
            problems.append(f"{name}: says {NAMELESS!r} where the title of the book belongs")
        if page.dead_widgets:
            problems.append(f"{name}: holds the state of widgets, which nothing reads without a kernel")
        said = [part.strip() for part in page.title.split("—")]
        if len(said) > len(set(said)):
            problems.append(f"{name}: its title says twice {said[0]!r}")
        if not page.formulas and any("mathjax" in address for address in page.loads):
            problems.append(f"{name}: loads MathJax, and has no formula")
        problems += [f"{name}: says {words!r}, which its writer did not" for words in dict.fromkeys(page.foreign)]
        if chapter := CHAPTER.fullmatch(path.name):
            for count, number in enumerate(page.figures, start=1):
                if number != (due := f"Figure {int(chapter[1])}.{count}"):
                    problems.append(f"{name}: a figure is numbered {number}; its place is that of {due}")
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme in ("data", "mailto", "blob"):
                continue
            if parts.netloc:
                if address in page.loads:
                    problems.append(f"{name}: loads {address} from another site")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.suffix == ".py":
                problems.append(f"{name}: {address} is a file of source code, and no page of the book")
            elif not target.exists():
                problems.append(f"{name}: {address} is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                problems.append(f"{name}: {address}: no such place on that page")
    for style in sorted(site.rglob("*.css")):
        loads = STYLE_URL.findall(style.read_text(encoding="utf-8"))
        problems += [f"{style.relative_to(site)}: loads {address} from another site" for address in loads]
    return problems if pages else [f"no pages in {site}: build the book first"]


def printed_otherwise(site: Path, chapters: Path) -> list[str]:
    """Each text that a notebook stores as printed, and that its page in `site` does not have, one line each."""
    problems = []
    for notebook in sorted(chapters.glob("*.ipynb")):
        page = unescape((site / chapters.name / notebook.name).with_suffix(".html").read_text(encoding="utf-8"))
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if not {"nbval-ignore-output", "remove-output"} & {*cell["metadata"].get("tags", [])}:
                outputs = [each for each in cell.get("outputs", []) if each.get("name") == "stdout"]
                text = "".join("".join(each["text"]) for each in outputs).lstrip("\n").rstrip()
                if text not in page:
                    problems.append(f"{notebook.stem}.html: does not print what is stored: {text[:60]!r}")
    return problems


if __name__ == "__main__":
    built = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html")
    faults = check(built) or printed_otherwise(built, Path(__file__).parents[1] / "chapters")
    print("\n".join(faults) or "the built book is whole, and needs nothing from elsewhere")
    sys.exit(1 if faults else 0)
