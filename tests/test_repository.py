"""Where the book lives: what follows from the address of its repository, and how it is opened elsewhere."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "_ext"))

import repository

ROOT = Path(__file__).parents[1]


def configured(**options: str) -> tuple[SimpleNamespace, list[str]]:
    """The book's settings after the extension has seen them, and the extensions that it has added."""
    added: list[str] = []
    app: Any = SimpleNamespace(setup_extension=added.append)
    config: Any = SimpleNamespace(html_theme_options=dict(options), html_baseurl="")
    repository.set_addresses(app, config)
    return config, added


def test_without_an_address_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    config, added = configured(repository_url="")
    assert (config.html_theme_options, config.html_baseurl, added) == ({"repository_url": ""}, "", [])


def test_a_fork_sets_nothing_and_everything_follows_from_its_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "You/fork")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    monkeypatch.delenv("BOOK_URL", raising=False)
    config, added = configured()
    assert config.html_theme_options["repository_url"] == "https://github.com/You/fork"
    assert config.html_theme_options["repository_branch"] == "notebooks", "where each notebook installs what it misses"
    assert config.html_theme_options["launch_buttons"].keys() >= {"colab_url", "binderhub_url"}
    assert config.html_baseurl == config.ogp_site_url == "https://you.github.io/fork/"
    assert config.notfound_urls_prefix == "/fork/"
    assert added == ["notfound.extension", "sphinx_sitemap"]


def test_an_address_in_the_settings_wins_and_so_does_a_domain_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "You/fork")
    monkeypatch.setenv("BOOK_URL", "https://pages.example")
    config, _ = configured(repository_url="https://github.com/we/book")
    assert config.html_theme_options["repository_url"] == "https://github.com/we/book"
    assert config.html_baseurl == "https://pages.example/"


@pytest.mark.parametrize("address", ["", "https://pages.example/"])
def test_crawlers_are_told_of_the_list_of_pages_where_there_is_one(tmp_path: Path, address: str) -> None:
    builder, config = SimpleNamespace(name="html"), SimpleNamespace(html_baseurl=address)
    app: Any = SimpleNamespace(outdir=tmp_path, builder=builder, config=config)
    repository.write_robots(app, None)
    said = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    assert said == (["User-agent: *\nAllow: /\nSitemap: https://pages.example/sitemap.xml\n"] if address else [])


def test_every_door_installs_the_same_pytorch_for_the_cpu() -> None:
    [pin] = re.findall(r"^torch==\S+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    line = f"{pin} --index-url https://download.pytorch.org/whl/cpu"
    doors = ["README.md", ".binder/postBuild", ".devcontainer/devcontainer.json", "tools/check_environment.py"]
    for door in doors:
        assert line in (ROOT / door).read_text(encoding="utf-8"), door


def test_binder_and_codespaces_run_what_is_there() -> None:
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
    [comment, settings] = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8").split("\n", 1)
    assert comment.startswith("//")
    commands = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8") + str(json.loads(settings))
    named = set(re.findall(r"requirements\.txt|tools/\w+\.py", commands)) | {"tools/package-lock.json"}  # for npm ci
    assert {name for name in named if not (ROOT / name).is_file()} == set()
