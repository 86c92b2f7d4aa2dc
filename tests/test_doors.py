"""The first things somebody tries, right and wrong: each wrong one gets one clear message."""

from pathlib import Path

import pytest
import yaml

import kvpaged
from kvpaged.engine import Engine, SamplingParams
from kvpaged.model import load_model


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load_model("recall"), num_pages=16, page_size=16)


def test_the_package_has_a_version_and_the_citation_names_the_same() -> None:
    citation = Path(__file__).parents[1] / "CITATION.cff"
    assert yaml.safe_load(citation.read_text(encoding="utf-8"))["version"] == kvpaged.__version__


def test_what_needs_torch_is_found_in_the_package_itself() -> None:
    assert kvpaged.Engine is Engine
    assert kvpaged.load_model is load_model
    with pytest.raises(AttributeError, match="module 'kvpaged' has no attribute 'Motor'"):
        _ = kvpaged.Motor


def test_a_name_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"model is 'recall', a name: load it first, Engine\(load_model\('recall'\)\)"):
        Engine("recall")  # type: ignore[arg-type]


def test_a_dictionary_is_no_parameters(engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"params is \{'max_tokens': 3\}, a dict: give SamplingParams\(\*\*params\)"):
        engine.generate("Ada hid the coin", {"max_tokens": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"params is 3, a int: give SamplingParams\(max_tokens=32\)"):
        engine.generate(["Ada hid the coin"], [3])  # type: ignore[list-item]
    assert engine.num_unfinished == 0


def test_more_pages_than_there_is_memory_says_how_much_they_take() -> None:
    with pytest.raises(MemoryError, match=r"1,000,000,000 pages take [\d,]+ GB of keys .*: ask for fewer pages"):
        Engine(load_model("recall"), 10**9)


def test_an_engine_says_what_it_holds(engine: Engine) -> None:
    engine.generate("Ada hid the coin in the attic.", SamplingParams(max_tokens=2))
    assert repr(engine).startswith("Engine(weights, 0 running, 0 waiting, PagedKVCache(num_pages=16, page_size=16, ")


def test_a_notebook_shows_a_cache_as_its_page_map() -> None:
    cache = kvpaged.PagedKVCache(num_pages=8, page_size=4)
    cache.sequence(range(9))
    assert "8 pages of 4 slots: 3 used, 5 free" in (cache._repr_html_() or "")
    assert kvpaged.PagedKVCache(num_pages=100_000, page_size=4)._repr_html_() is None, "too many to tell apart"
