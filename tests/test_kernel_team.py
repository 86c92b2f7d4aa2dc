"""Compiled functions on several threads: the same items, each once, whoever takes them."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kvpaged.kernel import layers, team

FEATURES, OUTPUTS = 256, 512


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def product() -> Callable[[int], Tensor]:
    torch.manual_seed(0)
    rows, weight = torch.randn(70, FEATURES), torch.randn(OUTPUTS, FEATURES)
    return lambda n: layers.linear(rows[:n], weight)


@pytest.mark.parametrize("with_openmp", [True, False])
def test_any_number_of_threads_gives_the_same_bits(
    with_openmp: bool,
    threads: Callable[[int], None],
    product: Callable[[int], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not with_openmp:
        monkeypatch.setattr(team, "_openmp", lambda: None)
    threads(1)
    expected = product(70)
    for count in (2, 3, 5):
        threads(count)
        for _ in range(20):
            assert torch.equal(product(70), expected)


def test_threads_are_woken_for_what_is_worth_it_and_nothing_else(
    threads: Callable[[int], None], product: Callable[[int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []

    def in_parallel(address: int, block: object, count: int, flags: int) -> None:
        woken.append(count)

    monkeypatch.setattr(team, "_openmp", lambda: in_parallel)
    threads(1)
    product(70)
    threads(2)
    product(1)
    assert not woken
    assert 1 * FEATURES * OUTPUTS < team.WORTH_A_THREAD < 70 * FEATURES * OUTPUTS
    product(70)
    assert woken == [2]


def test_torchs_own_threads_are_found_where_torch_brings_gnus_openmp() -> None:
    found = torch.__config__.parallel_info()
    assert ("OpenMP" in found) >= (team._openmp() is not None)
    if torch.backends.openmp.is_available() and "linux" in torch.__config__.show().lower():
        assert team._openmp() is not None
