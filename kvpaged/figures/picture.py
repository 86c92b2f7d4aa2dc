"""A picture: an SVG with the words that say what it shows. Computed from real objects, never drawn by hand."""

import re
import shutil
import subprocess
import tempfile
from functools import cache
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

from kvpaged.figures.svg import mark

# What is wider scrolls in its box on a phone. No picture shrinks: its smallest words are ten pixels high as it is.
_NARROW = 300
# What would end an address, or the attribute in which it stands.
_IN_ADDRESS = str.maketrans({"%": "%25", "#": "%23", "<": "%3C", ">": "%3E", "&": "%26", '"': "'"})
_SHOWN = re.compile(r'<img class="kvf" alt="([^"]*)" style="max-width:100%" src="data:image/svg\+xml,([^"]*)"/>')
_STANDALONE = re.compile(r"<svg .*? viewBox='0 0 (\d+) (\d+)' .*?</style><rect [^>]*/>(.*)</svg>", re.DOTALL)


class Picture:
    """An SVG drawing and its alternative text. Shows itself in a notebook; as plain text it reads as its alt text.

    A notebook gets it as an image, which Jupyter shows even before the notebook is trusted. The book puts the drawing
    itself in its place (`inline_pictures`): in the colours of the page, and in words that can be selected.
    """

    def __init__(self, drawing: str, width: float, height: float, alt: str) -> None:
        self.drawing = drawing
        self.width = round(width)
        self.height = round(height)
        self.alt = alt

    def _repr_html_(self) -> str:
        address = "data:image/svg+xml," + self.standalone().strip().translate(_IN_ADDRESS)
        return f'<img class="kvf" alt="{escape(self.alt)}" style="max-width:100%" src="{address}"/>'

    def inline(self) -> str:
        """Return the drawing in a box of its own, in which it scrolls if it is too wide. It needs `picture.css`.

        What holds links is a `group`: a reader of screens does not look into an `img`.
        """
        svg = mark(
            "svg",
            self.drawing.replace("</text>", "</text> "),  # words stay apart where a screen reader joins them
            viewBox=f"0 0 {self.width} {self.height}",
            role="group" if "<a " in self.drawing else "img",
            aria_label=self.alt,
            style=f"width:{self.width}px",
        )
        wide = self.width > _NARROW
        reachable = ' tabindex="0" role="group" aria-label="Picture, may scroll sideways"' if wide else ""
        return f'<figure class="kvf"><div class="kvs"{reachable}>{svg}</div></figure>'

    def __repr__(self) -> str:
        return self.alt

    def standalone(self) -> str:
        """Return an SVG file: the light colours, on white."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="kvf" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.alt)}" '
            f'font-family="system-ui,sans-serif" font-size="12"><style>{stylesheet("picture.css")}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>{self.drawing}</svg>\n'
        )

    def write(self, *paths: str | Path) -> None:
        """Write the picture to .svg and .png files. A .png needs Chromium; RuntimeError when there is none."""
        for target in map(Path, paths):
            if target.suffix == ".svg":
                target.write_text(self.standalone(), encoding="utf-8")
            elif target.suffix == ".png":
                self._photograph(target)
            else:
                raise ValueError(f"cannot write {target.name}: a picture is written as .svg or .png")

    def _photograph(self, target: Path) -> None:
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            raise RuntimeError(f"no Chromium found to write {target.name}; install it, or write an .svg file")
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "picture.html")
            source.write_text(f'<meta charset="utf-8"><body style="margin:0">{self.standalone()}', encoding="utf-8")
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
            options += [f"--user-data-dir={folder}/profile", "--force-device-scale-factor=2"]
            options += [f"--window-size={self.width},{self.height}", f"--screenshot={target.resolve()}"]
            subprocess.run([browser, *options, source.as_uri()], check=True, capture_output=True)


def inline_pictures(html: str) -> str:
    """Put drawings in place of the images of this package in a page that has the style sheet `picture.css`."""
    return _SHOWN.sub(_inline, html)


def _inline(shown: re.Match[str]) -> str:
    found = _STANDALONE.fullmatch(unquote(shown[2]))
    assert found is not None, "an image that no Picture wrote"
    width, height, drawing = found.groups()
    return Picture(drawing, int(width), int(height), unescape(shown[1])).inline()


@cache
def stylesheet(name: str) -> str:
    """Return a style sheet or script of this package, without the line breaks at its end."""
    return files("kvpaged.figures").joinpath(name).read_text(encoding="utf-8").strip()
