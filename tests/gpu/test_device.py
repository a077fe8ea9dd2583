"""The checks on a real CUDA device. Where there is none they are skipped: that is no pass."""

from __future__ import annotations

import pytest

from tests.gpu.checks import CHECKS, Check, Machine
from tests.gpu.devices import NoDevice, a_forked_child_goes_on_without_the_device, real_machine
from tradepool.pnl.cuda.device import Arithmetic

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def machine() -> Machine:
    try:
        return real_machine()[0]
    except NoDevice as problem:
        pytest.skip(f"no CUDA device: {problem}")


@pytest.mark.parametrize("arithmetic", Arithmetic)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_device(machine: Machine, check: Check, arithmetic: Arithmetic):
    check(machine, arithmetic)


def test_a_child_of_a_process_with_a_device_goes_on_without_it(machine):
    a_forked_child_goes_on_without_the_device()
