"""What the built book leaves away of its theme: only what cannot apply to any of its pages."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tinycss2
from fontTools.ttLib import TTFont

sys.path.append(str(Path(__file__).parents[1] / "_ext"))

import unused


@pytest.mark.parametrize(
    ("style", "left"),
    [
        (".shown{a:b}", ".shown{a:b}"),
        (".gone{a:b}", ""),
        (".gone,.shown p{a:b}", ".shown p{a:b}"),
        (".shown .gone{a:b}", ""),
        ("p:not(.gone){a:b}", "p:not(.gone){a:b}"),
        (":is(.gone,.shown) p{a:b}", ":is(.gone,.shown) p{a:b}"),
        (".shown:is(.gone,p){a:b}", ".shown:is(.gone,p){a:b}"),
        ("@media print{.gone{a:b}}", ""),
        ("@media print{.gone{a:b}.shown{a:b}}", "@media print{.shown{a:b}}"),
        ("@font-face{font-family:x}", "@font-face{font-family:x}"),
        (":root{--gone:#fff}", ":root{--gone:#fff}"),
    ],
)
def test_rules_stay_that_can_apply_to_a_class_that_is_named_somewhere(style: str, left: str) -> None:
    rules = tinycss2.parse_stylesheet(style, skip_comments=True, skip_whitespace=True)
    assert "".join(unused.used(rules, {"shown"})) == left


def test_a_font_keeps_the_characters_it_is_asked_to_keep(tmp_path: Path) -> None:
    source = next((Path(__file__).parents[1] / "_ext" / "vendor").rglob("MathJax_Main-Regular.woff"))
    whole, cut = tmp_path / "whole.woff", tmp_path / "cut.woff"
    whole.write_bytes(source.read_bytes())
    cut.write_bytes(source.read_bytes())
    unused.cut_font(whole, None)
    unused.cut_font(cut, {ord("x")})
    assert TTFont(whole).getBestCmap().keys() == TTFont(source).getBestCmap().keys()
    assert TTFont(cut).getBestCmap().keys() == {ord("x")}
    assert cut.stat().st_size < whole.stat().st_size < source.stat().st_size


def test_the_themes_scripts_do_not_say_what_went_well(tmp_path: Path) -> None:
    script = tmp_path / "_static" / "scripts" / "some-theme.js"
    script.parent.mkdir(parents=True)
    script.write_text('a||console.log(`changed to ${a}`,b),c&&console.error("no storage")', encoding="utf-8")
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(name="html"))
    unused.silence_scripts(app, None)
    assert script.read_text(encoding="utf-8") == 'a||void(`changed to ${a}`,b),c&&console.error("no storage")'
