"""What a list query asks for, checked where it comes in, and the page it gets back.

Lists are newest first by creation time and id, neither of which ever changes. A cursor is the last trade's
time and id, so that a page neither skips nor repeats a trade while others are being added.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import TypedDict, TypeVar

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.fields import text
from tradepool.model.kinds import Source, Status
from tradepool.model.times import check_time, parse_time
from tradepool.model.trade import Trade
from tradepool.model.trade_filter import Cursor, TradeFilter

__all__ = ["LIMIT_MAX", "Narrowing", "Page", "Part", "cursor_after", "narrow", "part", "path_of", "place_of"]

LIMIT_MAX = 10_000
"""Trades in one page at most."""

_text = text()
_Choice = TypeVar("_Choice", Source, Status)


class Narrowing(TypedDict, total=False):
    """What every list query can be narrowed to, beside user, symbol and source; as callers say it."""

    status: str | None
    strategy: str | None
    since: object
    """Created at this time or after it."""
    until: object
    """Created before it."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some trades, newest first, and the cursor of the page after it (None at the end)."""

    trades: list[Trade]
    cursor: str | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list is wanted: up to `limit` trades, from behind the place `after` on."""

    limit: int = 1000
    after: Cursor | None = None


def narrow(
    *,
    user_id: str | None = None,
    symbol: str | None = None,
    source: str | None = None,
    status: str | None = None,
    strategy: str | None = None,
    since: object = None,
    until: object = None,
) -> TradeFilter:
    """Check what a query says of the trades it wants. Raises: InvalidTrade naming the wrong argument."""
    return TradeFilter(
        user_id=_name("user_id", user_id),
        symbol=_name("symbol", symbol),
        source=_choice("source", source, Source),
        status=_choice("status", status, Status),
        strategy=_name("strategy", strategy),
        since=None if since is None else parse_time("since", since),
        until=None if until is None else parse_time("until", until),
    )


def part(limit: object = 1000, cursor: object = None) -> Part:
    """Check which part of a list a query wants. Raises: InvalidTrade naming the wrong argument."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= LIMIT_MAX:
        raise InvalidTrade("out of range", field="limit", value=limit, cure=f"give 1 to {LIMIT_MAX}")
    return Part(limit=limit, after=None if cursor is None else _parse_cursor(cursor))


def path_of(given: object) -> Path:
    """The file that a caller names. Raises: InvalidTrade when it is no path."""
    try:
        path = Path(given)  # type: ignore[arg-type] # what is none raises
        names_one = b"\0" not in os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        names_one = False
    if not names_one:
        raise InvalidTrade("not a path", field="path", value=given, cure="name a file")
    return path


def _name(field: str, value: object) -> str | None:
    return None if value is None else _text(field, value)


def _choice(field: str, value: str | None, kind: type[_Choice]) -> _Choice | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(kind)
        raise InvalidTrade("not a choice", field=field, value=value, cure=f"one of {choices}") from None


def place_of(trade: Trade) -> Cursor:
    """Where the trade stands in a list by time."""
    return trade.created_at, trade.trade_id


def cursor_after(trade: Trade) -> str:
    """The cursor of the page that begins behind `trade`."""
    place = place_of(trade)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _parse_cursor(cursor: object) -> Cursor:
    try:
        at, trade_id = msgspec.json.decode(base64.urlsafe_b64decode(str(cursor)), type=tuple[int, str])
        return check_time("cursor", at, cursor), trade_id
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise InvalidTrade(
            "not a cursor", field="cursor", value=cursor, cure="give the one of the page before"
        ) from None
