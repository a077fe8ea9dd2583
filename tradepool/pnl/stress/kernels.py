"""What values net positions in every scenario: in numpy, or compiled where a mark may be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.stress import numpy_matrix
from tradepool.pnl.stress.numpy_matrix import MatrixRows
from tradepool.pnl.stress.tables import ScenarioTables

__all__ = ["Kernel", "kernel_beside"]

_THREADS_MAX = 8


class Kernel(NamedTuple):
    """A way to value, and how many threads may do so at the same time."""

    name: str
    add_values: Callable[[Ints, MatrixRows, ScenarioTables], None]
    threads: int


def kernel_beside(backend: str) -> Kernel:
    """The kernel for stress tests where marks are made by `backend`: compiled, unless that is numpy.

    A GPU does not pay: netted, a stress test is a few milliseconds of one core. Importing the compiled one
    takes a second. All kernels give the same sums.
    """
    threads = min(_THREADS_MAX, len(os.sched_getaffinity(0)))
    plain = Kernel("numpy", numpy_matrix.add_values, threads)
    if backend == "numpy":
        return plain
    try:
        from tradepool.pnl.stress import numba_matrix  # noqa: PLC0415 - it is an extra, and slow to import
    except (ImportError, RuntimeError):
        return plain
    return Kernel("numba", numba_matrix.add_values, threads)
