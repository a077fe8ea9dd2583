"""The checks on a real CUDA device. Where there is none they are skipped: that is no pass."""

from __future__ import annotations

import os

import pytest

from tests.gpu.checks import CHECKS, Check, Machine
from tests.gpu.devices import NoDevice, real_machine
from tradepool.pnl.backend import CUDA_ROWS_MIN, Backends
from tradepool.pnl.cuda_device import Arithmetic

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
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "cuda"
    child = os.fork()
    if not child:
        os._exit(backends.for_rows(CUDA_ROWS_MIN).name == "cuda")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
