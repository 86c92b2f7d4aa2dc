"""Other engines beside ours (see tools/check_engines.py): how they are compared, and what was found last."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import check_engines
from check_engines import MAX_TOKENS, compare, hits, prompts, random_llama, vllm
from kvpaged.engine import Engine, SamplingParams
from kvpaged.lab.stored import found_last
from kvpaged.model import load_model

STORED = found_last("engines")


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_each_request_found_there_what_our_rule_says(name: str) -> None:
    found = STORED[name]
    assert found["cached_alike"] == found["alone"] == 500
    assert found["cached"] == found["cached_by_rule"] > found["prompt_tokens"] / 2
    assert found["same_tokens"] + len(found["margins"]) == found["continued"]
    assert found["distinct_tokens"] > 100  # a model that says one thing for ever would prove nothing


def test_the_workload_ran_to_its_end_on_a_real_server() -> None:
    served = STORED["vllm"]["served"]
    assert served["completed"] == served["completed_timed"] == served["requests"]
    assert served["prompt_tokens"] == served["prompt_tokens_timed"]
    assert served["generated_tokens"] == served["asked_tokens"]
    assert served["hits"] <= served["hits_by_rule"]


def test_a_token_that_differs_is_counted_with_its_margin_and_hits_are_compared_one_by_one() -> None:
    with random_llama() as model:
        together, alone = (part[:6] for part in prompts(model))
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True)
        tokens = [each.outputs[0].tokens for each in Engine(load_model(model), 512, 16).generate(together, params)]
        tokens[2] = [*tokens[2][:5], tokens[2][5] + 1, *tokens[2][6:]]
        cached = [found // 8 * 8 for found in hits(alone)]
        cached[3] += 8
        found = compare(model, together, alone, {"tokens": tokens, "cached": cached}, block=8)
    assert (found["same_tokens"], found["cached_alike"]) == (5, 5)
    assert len(found["margins"]) == 1
    assert 0 < found["margins"][0] < 10


def test_where_vllm_cannot_be_installed_the_tool_says_so_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = SimpleNamespace(returncode=1, stderr="no such package")
    monkeypatch.setattr(check_engines.venv, "create", lambda folder, **_: folder.mkdir())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: refused)
    vllm(environment=tmp_path / "vllm")
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"skipped: {check_engines.VLLM} cannot be installed: no such package"
    assert not (tmp_path / "vllm").exists()
