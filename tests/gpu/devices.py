"""The CUDA device of this machine, where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gpu.checks import Machine
from tradepool.errors import Misconfigured
from tradepool.pnl.backend import CUDA_ROWS_MIN, Backends
from tradepool.pnl.cuda.device import open_device

__all__ = ["NoDevice", "a_forked_child_goes_on_without_the_device", "real_machine"]

ROWS = 1_000_000


class NoDevice(Exception):  # noqa: N818 - it is an answer
    """Says why there is none."""


def real_machine(number: int = 0) -> tuple[Machine, str]:
    """The machine with its device, and the device in words. Raises: NoDevice."""
    try:
        described = open_device(number).description
    except Misconfigured as problem:
        raise NoDevice(str(problem)) from problem
    import cupy  # noqa: PLC0415 - only now it is known to be there

    @contextmanager
    def with_memory(left_bytes: int) -> Iterator[None]:
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes() + left_bytes)
        try:
            yield
        finally:
            pool.set_limit(size=0)

    return Machine(cupy=cupy, number=number, rows=ROWS, with_memory=with_memory), described


def a_forked_child_goes_on_without_the_device() -> None:
    """A context does not survive a fork: the child marks on the processor, and its parent on the device."""
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "cuda", backends.reason
    child = os.fork()
    if not child:
        is_cuda = True
        try:
            is_cuda = backends.for_rows(CUDA_ROWS_MIN).name == "cuda"
        finally:
            os._exit(is_cuda)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backends.for_rows(CUDA_ROWS_MIN).name == "cuda"
