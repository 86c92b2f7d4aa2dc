"""No benchmark is run as a test; but each must begin on every Python that the package runs on."""

import runpy
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from kvpaged.model import Decoder, load_model

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=[path.stem for path in BENCHMARKS])
def test_a_benchmark_imports_what_it_needs_and_has_something_to_run(path: Path) -> None:
    assert callable(runpy.run_path(str(path))["main"])


def test_a_peer_that_is_not_there_is_left_out_with_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ready = runpy.run_path(str(BENCHMARKS[0].with_name("workloads.py")))["ready"]
    with ExitStack() as leaving:
        assert ready("openvino", str(tmp_path / "python"), tmp_path, leaving) is None
        assert ready("openvino", sys.executable, tmp_path, leaving) is None  # a Python without it
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("without openvino: [Errno 2] No such file")
    assert second == "without openvino: ModuleNotFoundError: No module named 'openvino'"


def test_the_model_is_written_so_that_others_load_it(tmp_path: Path) -> None:
    workloads = runpy.run_path(str(BENCHMARKS[0].with_name("workloads.py")))
    decoder = Decoder(workloads["MODELS"]["small"])
    with workloads["stored"](decoder) as folder:
        loaded = load_model(folder)
    assert loaded.config == decoder.config
    assert all(torch.equal(one, two) for one, two in zip(decoder.parameters(), loaded.parameters(), strict=True))
