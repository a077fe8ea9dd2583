"""What computes marks: the protocol, and which one a setting chooses."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from tradepool.errors import Misconfigured
from tradepool.pnl.columns import Columns
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables

__all__ = ["Backend", "Choice", "choose_backend"]

_log = logging.getLogger(__name__)

_PLANNED = ("cuda", "numba")
_CURE = "set TRADEPOOL_PNL_BACKEND to auto or numpy"


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

    Raises: Misconfigured if it names one that this version does not have, or none at all.
    """
    if setting == "auto":
        reason = f"auto: this version has neither {' nor '.join(_PLANNED)}, so numpy"
    elif setting == "numpy":
        reason = "numpy: as set"
    elif setting in _PLANNED:
        raise Misconfigured(f"pnl_backend: this version has no {setting} backend; {_CURE}")
    else:
        raise Misconfigured(f"pnl_backend: there is no backend {setting!r}; {_CURE}")
    _log.info("pnl backend %s", reason)
    return Choice(NumpyBackend(), reason)
