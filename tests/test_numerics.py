"""Attention over random configurations: the first hundred here, ten thousand by `tools/long_checks.py numbers`."""

import re

import pytest
import torch
from typer.testing import CliRunner

from kvpaged.page import has_numba
from long_checks import app
from support import numerics


@pytest.fixture(scope="module")
def findings() -> numerics.Findings:
    *_, last = numerics.check(range(100))
    return last


def test_pages_change_no_bit_and_every_form_is_near_float64(findings: numerics.Findings) -> None:
    assert all(0 < difference <= 1e-6 for difference in findings.worst.values())
    kernel = {"in place", "decode, kernel"} if has_numba() else set()
    assert findings.worst.keys() == {"gathered", "naive", "streaming", "decode, gather"} | kernel


def test_the_configurations_cover_what_they_are_meant_to(findings: numerics.Findings) -> None:
    counts = findings.counts
    assert counts["configurations"] == 100
    assert min(counts.values()) >= 20, "shared and repeated pages, full last pages and last pages of one token"


def test_a_number_makes_the_same_configuration_each_time() -> None:
    one, other = numerics.Configuration(7), numerics.Configuration(7)
    assert str(one) == str(other) != str(numerics.Configuration(8))
    assert torch.equal(one.query(3), other.query(3))
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(one.sequences, other.sequences, strict=True))


def test_a_difference_is_reported_with_the_command_that_shows_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_a_little(*arguments: object, **options: object) -> torch.Tensor:
        output = honest(*arguments, **options)  # type: ignore[arg-type]
        output[-1, -1, -1] += 2e-7
        return output

    honest = numerics.paged_attention
    monkeypatch.setattr(numerics, "paged_attention", off_by_a_little)
    told = r"differ in configuration 5 \(.*\); again: .*long_checks\.py numbers --first 5 --configurations 1$"
    with pytest.raises(AssertionError, match=told):
        list(numerics.check(range(5, 6)))


def test_a_read_beyond_a_sequence_is_noticed() -> None:
    for number in range(10):
        configuration = numerics.Configuration(number)
        storage = configuration.storage
        seen = {slot for each in configuration.sequences for slot in each.table.slot_mapping(0, len(each.table))}
        keys = storage.keys(numerics.LAYER).transpose(1, 2).flatten(0, 1)  # [slot, head, dim]
        assert {slot for slot in range(len(keys)) if not keys[slot].isnan().any()} == seen
        assert storage.keys(1 - numerics.LAYER).isnan().all(), "nor may another layer be read"


def test_the_command_prints_what_it_found() -> None:
    out = CliRunner().invoke(app, ["numbers", "--configurations", "2", "--first", "30"]).stdout
    assert re.search(r"^ +2 configurations$", out, re.MULTILINE)
    assert re.search(r"^ *\d\.\de-0\d largest difference from float64, .*: streaming$", out, re.MULTILINE)
