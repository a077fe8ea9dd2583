"""Which backend makes a process's marks, and why."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from tradepool.errors import Misconfigured
from tradepool.pnl.backend_check import check_sums
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.fallback import Fallback
from tradepool.pnl.protocol import Backend

__all__ = ["CUDA_ROWS_MIN", "Backend", "Backends"]

CUDA_ROWS_MIN = 30_000
"""Rows from which `auto` takes a device. Predicted from the latency of copies and launches, not measured."""

_log = logging.getLogger(__name__)

_SETTINGS = ("auto", "numpy", "numba", "cuda")
_THREADS_MAX = 8
"""Cores that marks use: a few of them read all that the memory can deliver."""


class _Choice(NamedTuple):
    backend: Backend
    reason: str


class Backends:
    """The backends of one process, made when the first mark asks: most processes make none.

    A device is looked for once, by the process that marks: a CUDA context does not survive a fork, so a
    forked child looks again and, where its parent had one, goes on without. The compiled backend takes a
    second to import.
    """

    def __init__(self, setting: str, device: int = 0) -> None:
        """`setting`: auto, numpy, numba or cuda. `device`: the number of the CUDA device."""
        self._setting = setting
        self._device = device
        self.reason = ""
        """Why the last one asked for was chosen: one line, logged whenever it becomes another."""
        self._forget()

    def for_rows(self, rows: int) -> Backend:
        """The backend for a book of `rows` positions; the same object as long as the choice stands.

        `auto` is a CUDA device from CUDA_ROWS_MIN rows on, and once taken until there are half as many;
        else compiled loops, else numpy.

        Raises: Misconfigured if the setting names one that does not work here, or none at all.
        """
        if self._process != os.getpid():
            self._forget()
        backend, reason = self._choose(rows)
        if reason != self.reason:
            _log.info("pnl backend %s", reason)
            self.reason = reason
        return backend

    def _forget(self) -> None:
        self._process = os.getpid()
        self._on_processor: _Choice | None = None
        self._on_device: Backend | None = None
        self._no_device = ""
        """Why there is no device, once looked for."""
        self._takes_device = False

    def _choose(self, rows: int) -> _Choice:
        match self._setting:
            case "auto":
                return self._fastest(rows)
            case "numpy" | "numba":
                return _Choice(self._processor().backend, f"{self._setting}: as set")
            case "cuda":
                return _Choice(self._cuda(), "cuda: as set")
            case _:
                cure = f"set TRADEPOOL_PNL_BACKEND to one of {', '.join(_SETTINGS)}"
                raise Misconfigured(f"pnl_backend: there is no backend {self._setting!r}; {cure}")

    def _fastest(self, rows: int) -> _Choice:
        rows_min = CUDA_ROWS_MIN // 2 if self._takes_device else CUDA_ROWS_MIN
        self._takes_device = rows >= rows_min
        if not self._takes_device:
            backend, reason = self._processor()
            return _Choice(backend, f"auto: {reason}; a device pays from {CUDA_ROWS_MIN} rows on")
        if not self._no_device:
            try:
                return _Choice(self._cuda(), f"auto: cuda, device {self._device} answers")
            except Misconfigured as problem:
                self._no_device = str(problem)
        backend, reason = self._processor()
        return _Choice(backend, f"auto: {reason}; no device: {self._no_device}")

    def _cuda(self) -> Backend:
        if self._on_device is None:
            self._on_device = Fallback(_cuda_backend(self._device), lambda: self._processor().backend)
        return self._on_device

    def _processor(self) -> _Choice:
        if self._on_processor is None:
            self._on_processor = _processor_choice(self._setting)
        return self._on_processor


def _cuda_backend(device: int) -> Backend:
    """The device's backend, checked on this machine. Raises: Misconfigured."""
    # CuPy is an extra, and slow to import.
    from tradepool.pnl.cuda.backend import CudaBackend  # noqa: PLC0415
    from tradepool.pnl.cuda.device import open_device  # noqa: PLC0415

    opened = open_device(device)
    try:
        check_sums(CudaBackend(opened))
    except Misconfigured:
        raise
    except Exception as problem:
        # Whatever goes wrong here would go wrong at every tick.
        cure = "set TRADEPOOL_PNL_BACKEND to auto, numba or numpy"
        raise Misconfigured(
            f"pnl_backend: {opened.description} failed its check: {problem}; {cure}"
        ) from problem
    _log.info("pnl device %s", opened.description)
    return CudaBackend(opened)


def _processor_choice(setting: str) -> _Choice:
    if setting == "numpy":
        return _Choice(NumpyBackend(), "numpy")
    try:
        return _Choice(_numba_backend(), "numba")
    except (ImportError, RuntimeError, Misconfigured) as problem:
        if setting != "numba":
            return _Choice(NumpyBackend(), f"numpy, as numba does not work here: {problem}")
        if isinstance(problem, Misconfigured):
            raise
        cure = "pip install 'tradepool[fast]', or set TRADEPOOL_PNL_BACKEND to auto or numpy"
        raise Misconfigured(f"pnl_backend: numba does not work here: {problem}; {cure}") from problem


def _numba_backend() -> Backend:
    """The compiled backend, checked on this machine.

    Raises: ImportError; RuntimeError where numba finds no folder for its cache, or cannot compile;
    Misconfigured.
    """
    # It is an extra, and slow to import.
    from numba.core.errors import NumbaError  # noqa: PLC0415

    from tradepool.pnl.cpu.numba_backend import NumbaBackend  # noqa: PLC0415

    try:
        _check_once(NumbaBackend)
    except NumbaError as problem:
        raise RuntimeError(str(problem).strip().partition("\n")[0]) from problem
    return NumbaBackend(threads=min(_THREADS_MAX, len(os.sched_getaffinity(0))))


@cache
def _check_once(backend: Callable[[], Backend]) -> None:
    """Once in a process: there is one pair of compiled loops, whoever asks for a backend."""
    _log.info("pnl loops are being loaded; the first time on a machine they are compiled, half a minute")
    check_sums(backend())
