"""The README's code does what it says."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_shows_the_bookkeeping_and_the_engine() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readmes_code_runs_and_prints_what_it_says(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block, {})
    said = re.findall(r"print\(.*\) +# (.*)", block)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == said


def test_the_readme_gives_the_two_commands() -> None:
    assert "pip install -r requirements.txt && jupyter-book build ." in README
    assert "pip install -r requirements.txt && pytest" in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_the_readmes_links_lead_somewhere(path: str) -> None:
    assert (Path(__file__).parent.parent / path).is_file()
