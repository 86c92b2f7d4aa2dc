"""Build the package's wheel, and use it as somebody does who has no checkout: `python tools/check_wheel.py`.

First in an empty environment, where the bookkeeping works and what needs more says what; then in one that sees the
libraries of the environment that runs this, but not the checkout.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "kvpaged")
BOOKS = "from kvpaged import PagedKVCache; print(PagedKVCache(num_pages=8, page_size=4)._repr_html_())"


class Environment:
    """A new environment in a folder, with the wheel installed."""

    def __init__(self, folder: Path, wheel: Path, borrowed: str | None = None) -> None:
        venv.create(folder, with_pip=True)
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.folder, self.scripts = folder, folder / scripts
        self.run("-m", "pip", "install", "--quiet", "--no-deps", str(wheel))
        if borrowed:
            target = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
            Path(target, "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")

    def run(self, *arguments: str, fails: bool = False, script: str = "python") -> subprocess.CompletedProcess[str]:
        """Run Python, or a script of the package, outside the checkout.

        SystemExit with what it printed if it fails, or does not where it should.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.scripts / script), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=clean, capture_output=True, text=True)
        if (done.returncode != 0) is not fails:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


def expect(said: str, wanted: str, lines: int | None = None) -> None:
    """SystemExit unless `wanted` is in what was said, in so many lines."""
    if wanted not in said or (lines and len(said.strip().splitlines()) != lines):
        sys.exit(f"expected {wanted!r}{f' in {lines} line' if lines else ''}, but it said:\n{said}")


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "sources").mkdir()
        for source in SOURCES:  # a build leaves things behind
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, folder / "sources" / source)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
        subprocess.run([*build, str(folder / "sources")], check=True)
        [wheel] = folder.glob("kvpaged-*.whl")
        bare = Environment(folder / "bare", wheel)
        expect(bare.run("-c", BOOKS).stdout, "<img")
        expect(bare.run("-m", "kvpaged", fails=True).stderr, "pip install 'kvpaged[cli]'", lines=1)
        last = bare.run("-c", "from kvpaged import Engine", fails=True).stderr.strip().splitlines()[-1]
        expect(last, "pip install 'kvpaged[torch]'", lines=1)
        full = Environment(folder / "full", wheel, borrowed=sysconfig.get_path("purelib"))
        expect(full.run("-c", "import kvpaged; print(kvpaged.__file__)").stdout, str(folder / "full"))
        expect(full.run("--version", script="kvpaged").stdout, "kvpaged 0.", lines=1)
        question = "Ada hid the coin in the attic. Where is the coin?"
        expect(full.run("-m", "kvpaged", "generate", question, "--max-tokens", "8").stdout, "In the attic.")
    print(f"{wheel.name} works outside the checkout: alone, and with its extras")


if __name__ == "__main__":
    main()
