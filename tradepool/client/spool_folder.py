"""One folder for the spools of many processes, and who sends what a dead one has left there.

Each process holds one file of the folder, a *slot*, by a lock that the kernel lets go when it dies. Files
are never deleted, so that no two processes can hold locks on files of one name: a slot is used again, and
there are as many as processes once ran at the same time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tradepool.client.spool import Spool, SpoolEntry
from tradepool.errors import Corrupt, PoolLocked, Unavailable
from tradepool.logger import CauseLog, Logger

__all__ = ["LOOK_EVERY_S", "Siblings", "open_spool"]

log = Logger(__name__)

LOOK_EVERY_S = 5.0
"""How often a client looks for slots that nobody holds."""
PATIENCE_S = 10.0
"""How long a slot is left to the process that died, which may have been started again meanwhile."""
SLOTS_MAX = 1000

_SUFFIX = ".spool"


class Siblings:
    """The other slots of the folder that `own` stands in. For one thread."""

    def __init__(self, own: Path) -> None:
        self._own = own
        self._free_since_s: dict[Path, float] = {}
        self._failures = CauseLog(log, "a spool cannot be taken over")

    def take_over(self, spool: Spool, *, patience_s: float = PATIENCE_S) -> list[SpoolEntry]:
        """Up to 500 commands, now at the end of `spool`, of a slot that nobody has held for `patience_s`.

        None when there is nothing to take over, or no room for it.
        """
        for path in sorted(self._own.parent.glob(f"*{_SUFFIX}")):
            if path == self._own or not spool.room:
                continue
            try:
                taken = self._take_from(path, spool, patience_s)
            except (Unavailable, Corrupt) as problem:
                self._failures.failed(problem, path=str(path))
                continue
            if taken:
                log.warning(
                    "took over the commands of a process that ended", path=str(path), commands=len(taken)
                )
                return taken
        return []

    def _take_from(self, path: Path, spool: Spool, patience_s: float) -> list[SpoolEntry]:
        try:
            other = Spool(path, entries_max=0)
        except PoolLocked:
            self._free_since_s.pop(path, None)
            return []
        try:
            now_s = time.monotonic()
            if now_s - self._free_since_s.setdefault(path, now_s) < patience_s or not len(other):
                return []
            return spool.take_over(other)
        finally:
            other.close()


def open_spool(spool: str | Path | None, *, entries_max: int) -> tuple[Spool, Siblings | None]:
    """The spool at a path; for a folder a slot of it, and its siblings; in memory for None.

    A folder is one that is there, or a path that ends in a separator.

    Raises: PoolLocked when other processes hold the file, or every slot; StoreUnavailable, Corrupt.
    """
    if spool is None:
        return Spool(None, entries_max=entries_max), None
    path = Path(spool)
    if not path.is_dir() and not str(spool).endswith(os.sep):
        return Spool(path, entries_max=entries_max), None
    for number in range(SLOTS_MAX):
        slot = path / f"{number:03}{_SUFFIX}"
        try:
            return Spool(slot, entries_max=entries_max), Siblings(slot)
        except PoolLocked:
            continue
    raise PoolLocked(f"{SLOTS_MAX} processes have a spool in {path}; give some of them another folder")
