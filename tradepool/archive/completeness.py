"""Whether the archive has every trade that the store says is in it.

A day whose folder was lost leaves no trace in the archive itself: only the store knows what stood there.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from hashlib import blake2b

import numpy as np

from tradepool.archive.reading import Archive
from tradepool.errors import Corrupt
from tradepool.model.archived import Archived

__all__ = ["ArchivedTrades"]

_KEY_BYTES = 8
_DAYS_NAMED_MAX = 3


class ArchivedTrades:
    """What the store says is archived, in 8 bytes for each trade: noted first, then looked for."""

    def __init__(self) -> None:
        self._days: dict[str, array[int]] = defaultdict(lambda: array("Q"))

    def note(self, left: Archived) -> None:
        """A trade of which `left` is in the store: its row was written before that."""
        self._days[left.day].append(_key(left.trade_id, left.version - 1))

    def check(self, archive: Archive, *, since: str = "") -> None:
        """Make sure that `archive` has all that was noted of the day `since` and later ones.

        Raises: Corrupt naming the days that are not whole; as `Archive`.
        """
        lacking = {
            day: count
            for day, owed in sorted(self._days.items())
            if day >= since and (count := _missing(owed, archive, day))
        }
        if lacking:
            days = [f"{day} ({count})" for day, count in list(lacking.items())[:_DAYS_NAMED_MAX]]
            more = f" and {len(lacking) - len(days)} other days" if len(lacking) > len(days) else ""
            raise Corrupt(
                f"{sum(lacking.values())} archived trades are not in {archive.folder.path}, of "
                f"{', '.join(days)}{more}; restore those days from a backup; 'tradepool "
                "check-all-trades --deep' names each trade"
            )


def _missing(owed: array[int], archive: Archive, day: str) -> int:
    """How many of `owed` have no row in the parts of `day`."""
    rows = (_key(trade_id, version) for trade_id, version in archive.versions(day))
    found = np.fromiter(rows, dtype=np.uint64)
    return int(np.count_nonzero(~np.isin(np.frombuffer(owed, dtype=np.uint64), found)))


def _key(trade_id: str, version: int) -> int:
    text = f"{version} {trade_id}".encode()
    return int.from_bytes(blake2b(text, digest_size=_KEY_BYTES).digest(), "little")
