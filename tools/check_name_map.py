"""Check the name map against sources on this machine: each file is there, and defines the names it is said to define.

    python tools/check_name_map.py SYSTEM=FOLDER [...]

FOLDER holds a release as pip unpacks it. For vLLM, whose wheel is large, `pip download --no-deps vllm==0.33.0` and
`unzip` make one. Run it after changing a version in kvpaged/lab/name_map.toml.
"""

import ast
import sys
from pathlib import Path

from kvpaged.lab.name_map import BEYOND, PARTS, READING


def defined_names(source: str) -> set[str]:
    """Classes, functions and variables of a module, and `Class.method`."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            members = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {node.name, *(f"{node.name}.{member.name}" for member in members)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def faults(system: str, folder: Path) -> list[str]:
    """What the map says of a system and its source does not bear out."""
    said = [(part.name, part.elsewhere[system]) for part in (*PARTS, *BEYOND) if system in part.elsewhere]
    said += [("reading path", place) for place in READING[system]]
    found = []
    for name, place in said:
        if not (folder / place.file).is_file():
            found.append(f"{name}: {place.file} is not there")
            continue
        defined = defined_names((folder / place.file).read_text(encoding="utf-8"))
        found += [f"{name}: {place.file} does not define {each}" for each in place.names if each not in defined]
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    found = []
    for argument in arguments:
        system, _, folder = argument.partition("=")
        found += [f"{system}: {fault}" for fault in faults(system, Path(folder))]
    print("\n".join(found) or "the map is true")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
