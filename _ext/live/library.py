"""Makes the library of the page: Python's own, trimmed and compiled, with the book's package in it.

Runs in Pyodide (see `pack.mjs`), whose Python alone compiles for itself; the same sources give the same bytes.
"""

import marshal
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path, PurePosixPath

STANDARD = Path("/lib/python314.zip")
OURS = Path("/sources.zip")
LIBRARY = Path("/library.zip")

# Needs a network, other processes, a terminal or a debugger, which a page has not; or is of no use to its cells.
LEFT_OUT = set(
    """_aix_support _android_support _apple_support _ios_support _osx_support _pydatetime _pydecimal _pyio _pylong
    _pyrepl antigravity bdb cProfile cmd code compileall configparser curses dbm doctest email ensurepip filecmp
    fileinput ftplib getpass http idlelib imaplib lib2to3 mailbox mimetypes modulefinder multiprocessing netrc
    nturl2path optparse pdb pickletools plistlib poplib profile pstats pty pyclbr pydoc pydoc_data rlcompleter sched
    shelve smtplib socketserver sqlite3 stringprep symtable tabnanny tarfile this tkinter trace tracemalloc turtle tty
    unittest uuid venv wave webbrowser wsgiref xmlrpc zipapp zoneinfo xml/dom xml/sax importlib/metadata""".split()
)
ENCODINGS = {"__init__", "aliases", "ascii", "cp437", "latin_1", "utf_8"}


def wanted(name: str) -> bool:
    """Whether a file of the standard library goes into the page."""
    path = PurePosixPath(name)
    if path.parts[0] == "encodings":
        return path.stem in ENCODINGS
    places = {path.with_suffix("").as_posix(), *(folder.as_posix() for folder in path.parents)}
    return path.suffix == ".py" and not places & LEFT_OUT


def compiled(name: str, source: bytes, optimize: int) -> bytes:
    """A module as Python loads it, without a look at its source. The library will stand where the standard one does."""
    code = compile(source, f"{STANDARD}/{name}", "exec", dont_inherit=True, optimize=optimize)
    unchecked = (1).to_bytes(4, "little") + bytes(8)  # by hash, which is not looked at: PEP 552
    return MAGIC_NUMBER + unchecked + marshal.dumps(code)


def make() -> None:
    """Write the library: of Python's own modules the code, of ours the sources too, for a reader who asks."""
    with zipfile.ZipFile(LIBRARY, "w") as library, zipfile.ZipFile(STANDARD) as standard, zipfile.ZipFile(OURS) as ours:

        def add(name: str, content: bytes) -> None:
            library.writestr(zipfile.ZipInfo(name), content)  # of 1980, and not compressed: the whole is, later

        for name in sorted(filter(wanted, standard.namelist())):
            add(f"{name}c", compiled(name, standard.read(name), optimize=2))
        for name in sorted(ours.namelist()):
            add(name, ours.read(name))
            if name.endswith(".py"):
                add(f"{name}c", compiled(name, ours.read(name), optimize=0))


make()
