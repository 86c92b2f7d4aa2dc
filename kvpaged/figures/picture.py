"""A picture: an SVG with the words that say what it shows. Computed from real objects, never drawn by hand."""

import shutil
import subprocess
import tempfile
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from kvpaged.figures.svg import mark

# Below this share of its size a picture scrolls in its own box rather than shrink further.
_SMALLEST = 0.75


class Picture:
    """An SVG drawing and its alternative text. Shows itself in a notebook; as plain text it reads as its alt text."""

    def __init__(self, drawing: str, width: float, height: float, alt: str) -> None:
        self.drawing = drawing
        self.width = round(width)
        self.height = round(height)
        self.alt = alt

    def _repr_html_(self) -> str:
        return f'<figure class="kvf"><style>{stylesheet("picture.css")}</style>{self.svg()}</figure>'

    def svg(self) -> str:
        """Return the drawing in a box of its own, in which it scrolls if it is too wide to shrink."""
        smallest = round(self.width * _SMALLEST)
        wide = smallest > 300
        svg = mark(
            "svg",
            self.drawing,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=self.alt,
            style=f"max-width:{self.width}px" + (f";min-width:{smallest}px" if wide else ""),
        )
        reachable = ' tabindex="0" role="group" aria-label="Picture, may scroll sideways"' if wide else ""
        return f'<div class="kvs"{reachable}>{svg}</div>'

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


@cache
def stylesheet(name: str) -> str:
    """Return a style sheet or script of this package, without the line breaks at its end."""
    return files("kvpaged.figures").joinpath(name).read_text(encoding="utf-8").strip()
