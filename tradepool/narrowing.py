"""What a list query asks for, checked where it comes in, and the page it gets back.

Lists are newest first by creation time and id. A cursor is the last trade's time and id, so that a
page neither skips nor repeats a trade while others are being added.
"""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.times import parse_time
from tradepool.model.trade import Source, Status, Trade
from tradepool.store.indexes import Cursor

__all__ = ["LIMIT_MAX", "Narrowing", "Page", "checked_limit", "cursor_after", "narrow", "place_of"]

LIMIT_MAX = 10_000
"""Trades in one page at most."""

_Choice = TypeVar("_Choice", Source, Status)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some trades, newest first, and the cursor of the page after it (None at the end)."""

    trades: list[Trade]
    cursor: str | None = None


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """Which trades a page wants, checked: `since` is included, `until` is not (µs)."""

    source: Source | None = None
    status: Status | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 1000
    after: Cursor | None = None

    @property
    def admits_all(self) -> bool:
        """Whether every trade within the times is wanted."""
        return self.source is None and self.status is None

    def admits(self, trade: Trade) -> bool:
        """Whether source, status and time of creation are the wanted ones."""
        return (
            self.source in (None, trade.source)
            and self.status in (None, trade.status)
            and (self.since is None or trade.created_at >= self.since)
            and (self.until is None or trade.created_at < self.until)
        )


def narrow(
    *,
    source: str | None = None,
    status: str | None = None,
    since: object = None,
    until: object = None,
    limit: int = 1000,
    cursor: str | None = None,
) -> Narrowing:
    """Check the arguments of a list query. Raises: InvalidTrade naming the wrong one."""
    return Narrowing(
        source=_choice("source", source, Source),
        status=_choice("status", status, Status),
        since=None if since is None else parse_time("since", since),
        until=None if until is None else parse_time("until", until),
        limit=checked_limit(limit),
        after=None if cursor is None else _parse_cursor(cursor),
    )


def _choice(field: str, value: str | None, kind: type[_Choice]) -> _Choice | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(kind)
        raise InvalidTrade("not a choice", field=field, value=value, cure=f"one of {choices}") from None


def checked_limit(limit: object) -> int:
    """`limit` as a number of trades. Raises: InvalidTrade."""
    if isinstance(limit, int) and 0 < limit <= LIMIT_MAX:
        return limit
    raise InvalidTrade("out of range", field="limit", value=limit, cure=f"give 1 to {LIMIT_MAX}")


def place_of(trade: Trade) -> Cursor:
    """Where the trade stands in a list by time."""
    return trade.created_at, trade.trade_id


def cursor_after(trade: Trade) -> str:
    """The cursor of the page that begins behind `trade`."""
    place = place_of(trade)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _parse_cursor(text: object) -> Cursor:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(str(text)), type=tuple[int, str])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise InvalidTrade(
            "not a cursor", field="cursor", value=text, cure="give the one of the page before"
        ) from None
