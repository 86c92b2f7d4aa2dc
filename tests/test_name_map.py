"""The name map: our names and transformers' are importable, and what cannot be imported here can be checked."""

from importlib import import_module
from pathlib import Path

import pytest

from check_name_map import defined_names, faults
from kvpaged.figures import name_table, reading_path
from kvpaged.lab.name_map import BEYOND, PARTS, READING, SYSTEMS, TRANSFORMERS, Part

EVERY = (*PARTS, *BEYOND)
PLACES = [part.elsewhere["transformers"] for part in EVERY if "transformers" in part.elsewhere]
THEIRS = sorted({(place.file, name) for place in (*PLACES, *READING["transformers"]) for name in place.names})


def find(module: str, name: str) -> object:
    found: object = import_module(module)
    for each in name.split("."):
        found = getattr(found, each)
    return found


@pytest.mark.parametrize("dotted", [name for part in PARTS for name in part.ours])
def test_our_names_are_there(dotted: str) -> None:
    module, name = dotted.rsplit(".", 1)
    if module.endswith(".Sequence"):
        module, name = "kvpaged.sequence", f"Sequence.{name}"
    assert callable(find(module, name))


@pytest.mark.parametrize(("file", "name"), THEIRS)
def test_transformers_has_what_the_map_says_where_the_map_says(file: str, name: str) -> None:
    module = file.removesuffix(".py").replace("/", ".")
    found = find(module, name)
    assert getattr(found, "__module__", module) == module, "imported there, but defined elsewhere"


def test_the_map_was_made_for_the_transformers_that_is_installed() -> None:
    assert import_module("transformers").__version__ == TRANSFORMERS.version


def test_every_part_is_somewhere_else_and_every_system_is_known() -> None:
    known = {system.name for system in SYSTEMS}
    assert len({part.name for part in EVERY}) == len(EVERY)
    for part in EVERY:
        assert set(part.elsewhere) <= known
        assert part.elsewhere
        assert list(part.elsewhere) == [system.name for system in SYSTEMS if system.name in part.elsewhere]
        assert all(place.names and place.difference.endswith((".", ".)")) for place in part.elsewhere.values())


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.name)
def test_a_table_has_a_row_for_each_system_with_a_link_to_its_file(part: Part) -> None:
    table = name_table(part.name)
    html = table._repr_html_()
    assert html.count('<th scope="row"') == len(part.elsewhere) + bool(part.ours)
    for system in SYSTEMS:
        if (place := part.elsewhere.get(system.name)) is not None:
            assert f'href="{system.source}{place.file}"' in html
            assert all(name in html and name in repr(table) for name in place.names)
        else:
            assert system.name in html.split("None was found in")[1]
    assert "`" not in html


def test_a_part_that_is_not_there_is_refused_with_the_names_of_those_that_are() -> None:
    with pytest.raises(ValueError, match="no part is called 'heap'; there are naive caches, page storage, page pool"):
        name_table("heap")


@pytest.mark.parametrize("system", [system.name for system in SYSTEMS])
def test_there_is_a_way_through_each_source(system: str) -> None:
    path = reading_path(system)
    html = path._repr_html_()
    assert html.count("<li>") == len(READING[system]) >= 5
    assert all(f"{path.system.source}{place.file}" in html and place.file in repr(path) for place in READING[system])


def test_no_way_is_shown_through_what_nobody_read() -> None:
    with pytest.raises(ValueError, match="no way through 'TGI' is known; there are vLLM, nano-vllm, SGLang and transf"):
        reading_path("TGI")


def test_the_check_of_other_sources_names_what_is_missing(tmp_path: Path) -> None:
    mentioned = sum("vLLM" in part.elsewhere for part in EVERY) + len(READING["vLLM"])
    assert len(faults("vLLM", tmp_path)) == mentioned
    file = tmp_path / "vllm/v1/core/block_pool.py"
    file.parent.mkdir(parents=True)
    file.write_text("class BlockPool:\n    def touch(self): ...\n    def free_blocks(self): ...\n", encoding="utf-8")
    missing = [fault for fault in faults("vLLM", tmp_path) if fault.startswith("page pool")]
    assert missing == ["page pool: vllm/v1/core/block_pool.py does not define BlockPool.get_new_blocks"]


def test_the_check_finds_classes_methods_functions_and_variables() -> None:
    source = "class A:\n    async def m(self): ...\ndef f(): ...\nV = 1\nif V:\n    def g(): ...\n"
    assert defined_names(source) == {"A", "A.m", "f", "V"}
