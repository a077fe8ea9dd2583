"""Trades and the changes of their records, as the core would hand them to the store."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from tradepool.model.archived import archived
from tradepool.model.codec import (
    ARCHIVED_KIND,
    LEDGER_KIND,
    NO_STATUS,
    TRADE_KIND,
    pack,
    pack_archived,
    pack_trade,
)
from tradepool.model.fill import Fill
from tradepool.model.ids import mint_id
from tradepool.model.kinds import Role, Side, Status
from tradepool.model.pnl import book_fill
from tradepool.model.trade import Trade
from tradepool.store.plan import RecordChange

START_US = 1_700_000_000_000_000

_numbers = count(1)


def new_trade(user_id: str = "ann", **fields: Any) -> Trade:
    """A pending trade of one coin at 100, each a second younger than the last one made."""
    number = next(_numbers)
    at = fields.pop("created_at", START_US + number * 1_000_000)
    given = {"symbol": "BTC/USDT", "side": Side.BUY, "amount": Decimal(1), "price": Decimal(100)} | fields
    given.setdefault("trade_id", mint_id(user_id, at_us=at, random_bits=number))
    return Trade(user_id=user_id, created_at=at, updated_at=at, **given)


def filled(trade: Trade, role: Role = Role.ENTRY, *, fill_id: str = "v1", price: int = 100) -> Trade:
    """The trade's next version, with its whole amount filled."""
    fill = Fill(fill_id=fill_id, role=role, amount=trade.amount, price=Decimal(price), at=trade.created_at)
    return msgspec.structs.replace(book_fill(trade, fill), version=trade.version + 1)


def cancelled(trade: Trade) -> Trade:
    """The trade's next version, given up."""
    return msgspec.structs.replace(trade, status=Status.CANCELLED, version=trade.version + 1)


def change(before: Trade | None, after: Trade, **fields: Any) -> RecordChange:
    """The change of the trade's record from one version (None: none) to the next."""
    given = {"command_id": f"command-{next(_numbers)}"} | fields
    return RecordChange(
        kind=TRADE_KIND,
        record_id=after.trade_id,
        user_id=after.user_id,
        before=None if before is None else pack_trade(before),
        after=pack_trade(after),
        trade_before=before,
        trade_after=after,
        **given,
    )


def archiving(trade: Trade, **fields: Any) -> RecordChange:
    """The change that leaves the store what it keeps of a trade which has moved to the archive."""
    left = archived(trade, "2026-11-01")
    given: dict[str, Any] = {
        "before": pack_trade(trade),
        "trade_before": trade,
        "command_id": f"command-{next(_numbers)}",
    }
    return RecordChange(
        kind=ARCHIVED_KIND,
        record_id=trade.trade_id,
        user_id=trade.user_id,
        after=pack_archived(left),
        **given | fields,
    )


def ledger_change(
    user_id: str, before: bytes | None, body: bytes, version: int = 1, *, next_expiry: int | None = None
) -> RecordChange:
    """A change of the user's token ledger; the store does not look into `body`."""
    return RecordChange(
        kind=LEDGER_KIND,
        record_id=f"{user_id}\x1fdefault",
        user_id=user_id,
        before=before,
        after=pack(version, body, LEDGER_KIND, NO_STATUS),
        next_expiry=next_expiry,
        command_id=f"command-{next(_numbers)}",
    )
