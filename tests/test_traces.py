"""Published curves, run again where the traces are (see tools/check_traces.py), and what is kept of them."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from check_traces import STORED, check, main, measure, read, show, traces_folder
from kvpaged.lab.measured import MeasuredLengths
from kvpaged.lab.mooncake import ARRIVALS, OUTPUTS, PROMPTS
from kvpaged.lab.stored import found_last

FOLDER = traces_folder()
with_traces = pytest.mark.skipif(
    FOLDER is None, reason="no traces: set KVPAGED_TRACES to a folder that has conversation_trace.jsonl"
)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """All figures, run again: half a minute."""
    assert FOLDER is not None
    return dict(json.loads(json.dumps(measure(FOLDER))))


@with_traces
def test_the_published_curves_come_out_again(measured: dict[str, Any]) -> None:
    check(measured)


@with_traces
def test_what_is_stored_and_agreed_with_the_other_simulator_is_what_comes_out(measured: dict[str, Any]) -> None:
    stored = found_last("mooncake")
    assert stored.pop("date")
    assert stored.pop("compared_with").startswith("kvcache-simulator==")
    assert stored == measured


@with_traces
def test_the_summary_is_that_of_the_trace() -> None:
    assert FOLDER is not None
    prompts = sorted(request.num_tokens for request in read(FOLDER, "conversation").requests)
    rows = [json.loads(line) for line in (FOLDER / "conversation_trace.jsonl").read_text().splitlines()]
    outputs = sorted(row["output_length"] for row in rows)
    for lengths, summary in ((prompts, PROMPTS), (outputs, OUTPUTS)):
        middles = [lengths[int((part + 0.5) / 32 * len(lengths))] for part in range(32)]
        assert middles == list(summary.quantiles)
    minutes = Counter(row["timestamp"] // 60_000 for row in rows)
    assert [minutes[minute] for minute in range(max(minutes))] == list(ARRIVALS)


def test_what_was_found_last_passes_the_check() -> None:
    check(found_last("mooncake"))


def test_a_curve_that_is_missed_is_named() -> None:
    wrong = found_last("mooncake")
    wrong["figure_9"]["conversation"]["end_first"][3] = 0.05
    with pytest.raises(AssertionError, match="conversation at 2,000,000 tokens: 0.0500 and .*, the paper 0.1204"):
        check(wrong)
    wrong = found_last("mooncake")
    wrong["figure_10"]["synthetic"]["one_pool"] = 0.5
    with pytest.raises(AssertionError, match="synthetic: one pool finds 0.500, the paper 0.623"):
        check(wrong)


def test_the_tool_says_so_where_there_are_no_traces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KVPAGED_TRACES", str(tmp_path))
    main()
    assert capsys.readouterr().out.startswith("skipped: no traces. Name a folder")
    show(found_last("mooncake"))
    assert "Figure 10, synthetic: ten caches" in capsys.readouterr().out
    assert STORED.is_file()


def test_measured_lengths_are_drawn_and_scaled() -> None:
    lengths = MeasuredLengths([10, 20, 90])
    assert set(lengths.draw(100, random.Random(0))) == {10, 20, 90}
    scaled = lengths.scaled(mean=80, most=160)
    assert scaled.mean == pytest.approx(80, abs=0.5)
    assert max(scaled.quantiles) == 160
    assert PROMPTS.scaled(161.31, 1024).mean == pytest.approx(161.31, rel=0.01)
    with pytest.raises(ValueError, match="mean 5 and at most 5"):
        lengths.scaled(5, 5)
