"""The latest marks in the store, readable by user and in total."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from tradepool.model.money import plain
from tradepool.placing import known_id
from tradepool.pnl.marks import Marks
from tradepool.store.redis_store import RedisStore

__all__ = ["WriteBack"]


class WriteBack:
    """Writes marks and reads them.

    Who was marked last time and has nothing to mark now gets marks without figures. A new process does
    not know whom the one before it has marked: the marks of those who are flat by then keep their time.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._marked: set[str] = set()

    def write(self, marks: Marks) -> None:
        """Replace the marks of every user, and the totals. Raises: StoreUnavailable."""
        now = _by_user(marks)
        nothing = _user_marks(marks.at, {})
        gone = dict.fromkeys(self._marked - now.keys(), nothing)
        # Should the write fail half way, the next one still knows everybody whom it may have reached.
        self._marked |= now.keys()
        self._store.write_marks(now | gone)
        self._marked = set(now)
        self._store.write_mark_totals(_totals(marks))

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first.

        Raises: InvalidTrade when it is no user's id.
        """
        known_id("user_id", user_id)
        value = self._store.read_marks(user_id)
        return {} if value is None else msgspec.json.decode(value, type=dict[str, Any])

    def get_totals(self) -> dict[str, Any] | None:
        """What the last mark came to: `at` (µs), `totals` by currency, `missing`; None before the first."""
        value = self._store.read_mark_totals()
        return None if value is None else msgspec.json.decode(value, type=dict[str, Any])


def _totals(marks: Marks) -> bytes:
    totals = {currency: plain(total) for currency, total in marks.totals.items()}
    return msgspec.json.encode({"at": marks.at, "totals": totals, "missing": marks.missing})


def _by_user(marks: Marks) -> dict[str, bytes]:
    """Each user's marks as JSON: the time, and the figures of every currency."""
    users: dict[str, dict[str, Any]] = defaultdict(dict)
    for (user_id, currency), figures in marks.users.items():
        users[user_id][currency] = {
            "unrealised": plain(figures.unrealised),
            "profit": plain(figures.profit),
            "exposure": plain(figures.exposure),
            "winners": figures.winners,
            "count": figures.count,
        }
    return {user_id: _user_marks(marks.at, currencies) for user_id, currencies in users.items()}


def _user_marks(at: int, currencies: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"at": at, "by_currency": currencies})
