"""What computes marks: the protocol, and which one a setting chooses."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple, Protocol

from tradepool.errors import Misconfigured
from tradepool.pnl.columns import Columns
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables

__all__ = ["Backend", "Backends", "Choice", "choose_backend"]

_log = logging.getLogger(__name__)

_SETTINGS = ("auto", "numpy", "numba", "cuda")
_THREADS_MAX = 8
"""Cores that marks use: a few of them read all that the memory can deliver."""


class Backend(Protocol):
    """Keeps up with one book's columns and marks them; not thread-safe.

    `upload` once per generation of the columns, `apply` before a `mark` after changes within it, then
    `mark`, then `download`. Every backend gives the same sums to the last 10⁻⁸.
    """

    @property
    def name(self) -> str:
        """What `Marks.backend` says."""
        ...

    @property
    def generation(self) -> object:
        """The generation of the columns it follows; None before the first `upload`."""
        ...

    def upload(self, columns: Columns) -> None:
        """Take all rows of `columns`, forgetting those of any other."""
        ...

    def apply(self, columns: Columns) -> None:
        """Take what changed since the last `upload` or `apply`: the longer tail, the longer `touched`."""
        ...

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Mark every row and add up by group and code; keep each row's PnL if `rows`."""
        ...

    def download(self) -> Sums:
        """The result of the last `mark`."""
        ...


class Choice(NamedTuple):
    """A backend, and one line on why it was chosen."""

    backend: Backend
    reason: str


def choose_backend(setting: str) -> Choice:
    """The backend that `setting` (auto, numpy, numba, cuda) names; the reason is logged too.

    `auto` takes the compiled one where it is installed. Importing that takes a second, so ask where marks
    are made and not before.

    Raises: Misconfigured if it names one that this version or installation does not have, or none at all.
    """
    match setting:
        case "auto":
            choice = _compiled_if_installed()
        case "numpy":
            choice = Choice(NumpyBackend(), "numpy: as set")
        case "numba":
            try:
                choice = Choice(_numba_backend(), "numba: as set")
            except (ImportError, RuntimeError) as problem:
                cure = "pip install 'tradepool[fast]', or set TRADEPOOL_PNL_BACKEND to auto or numpy"
                raise Misconfigured(f"pnl_backend: numba does not work here: {problem}; {cure}") from problem
        case "cuda":
            cure = "set TRADEPOOL_PNL_BACKEND to auto, numba or numpy"
            raise Misconfigured(f"pnl_backend: this version has no cuda backend; {cure}")
        case _:
            cure = f"set TRADEPOOL_PNL_BACKEND to one of {', '.join(_SETTINGS)}"
            raise Misconfigured(f"pnl_backend: there is no backend {setting!r}; {cure}")
    _log.info("pnl backend %s", choice.reason)
    return choice


class Backends:
    """The backends of one process, chosen when the first mark asks: most processes make none.

    Importing the compiled one takes a second. Raises: as `choose_backend`, from `for_rows`.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._chosen: Backend | None = None

    def for_rows(self, rows: int) -> Backend:  # noqa: ARG002 - a device pays from some size on
        """The backend for a book of `rows` positions; the same object as long as the choice stands."""
        if self._chosen is None:
            self._chosen = choose_backend(self._setting).backend
        return self._chosen


def _compiled_if_installed() -> Choice:
    try:
        return Choice(_numba_backend(), "auto: numba is installed, and this version has no cuda")
    except (ImportError, RuntimeError) as problem:
        return Choice(NumpyBackend(), f"auto: numpy, as numba does not work here: {problem}")


def _numba_backend() -> Backend:
    """The compiled backend. Raises: ImportError; RuntimeError where numba finds no folder for its cache."""
    from tradepool.pnl.numba_backend import NumbaBackend  # noqa: PLC0415 - it is an extra, and slow to import

    return NumbaBackend(threads=min(_THREADS_MAX, len(os.sched_getaffinity(0))))
