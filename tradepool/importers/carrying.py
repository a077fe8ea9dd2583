"""A trade that was imported in an earlier state, brought to the state in which the source has it now."""

from __future__ import annotations

import json
from typing import Any

from tradepool.batching import batched
from tradepool.errors import IdempotencyConflict, Rejected, UnknownTrade
from tradepool.importers.ports import Pool
from tradepool.importers.rows import TradeRow, source_id
from tradepool.model import intake
from tradepool.model.commands import AddFill, Command, UpdateTrade, UpdateTradePnl
from tradepool.model.kinds import Status
from tradepool.model.lifecycle import LATE_STATUSES
from tradepool.model.pnl import known_fill
from tradepool.model.receipt import Receipt
from tradepool.model.trade import Fill, Trade

__all__ = ["BATCH_MAX", "carried_on", "command_id"]

BATCH_MAX = 200
"""Commands given to the pool at once."""

_MARKET = ("user_id", "account_id", "exchange", "symbol", "market", "side")
_REPORT_FACTS = (*_MARKET, "amount", "price")
_FILL_FACTS = (*_MARKET, "contract_size")
_CHANGES = ("funding", "interest", "stop_loss", "take_profit", "liquidation_price", "close_reason")
"""What a source goes on to tell of a trade beside its fills."""


def carried_on(
    pool: Pool, row: TradeRow, conflict: IdempotencyConflict, modified_at: int
) -> Receipt | Rejected:
    """Bring the trade of `row`, which the pool has in another state, to the row's; or the refusal.

    The same trade has the same facts; its fills are those of the row as far as they go. A row that is
    older than the pool's trade changes nothing.
    """
    try:
        stored = pool.get_trade(row.trade["trade_id"])
        latest = intake.trade_from_dict(row.trade, now_us=modified_at, trade_id=stored.trade_id)
        commands = _commands(stored, latest, row, modified_at)
    except (UnknownTrade, IdempotencyConflict):
        return conflict
    except Rejected as refusal:
        return refusal
    if commands is None:
        return conflict
    receipt = Receipt(trade_id=stored.trade_id, outcome="duplicate", version=stored.version, position="")
    for batch in batched(commands, BATCH_MAX):
        for result in pool.apply(batch):
            if isinstance(result, Rejected):
                return result
            receipt = result
    return receipt


def command_id(what: str, content: Any) -> str:
    """The id of the command that does `what` with `content`, the same in every run."""
    return source_id(f"import:{what}:", json.dumps(content, sort_keys=True, default=str))


def _commands(stored: Trade, latest: Trade, row: TradeRow, modified_at: int) -> list[Command] | None:
    """What makes `stored` the same as `latest`; None where it is another trade."""
    if row.report is not None:
        facts = _REPORT_FACTS if row.as_of is None else (*_REPORT_FACTS, "created_at")
        if not _are_equal(stored, latest, facts):
            return None
        return _report(stored, latest, row.report.pnl, row.report.status, modified_at)
    new = _new_fills(stored, latest)
    if new is None or not _are_equal(stored, latest, _FILL_FACTS):
        return None
    if not new and len(latest.fills) < len(stored.fills):
        return []
    told = latest.pnl_reported
    report = [] if told is None else _report(stored, latest, str(told), latest.status, modified_at)
    return [*_changes(stored, latest), *_fills(latest, new), *report]


def _are_equal(stored: Trade, latest: Trade, names: tuple[str, ...]) -> bool:
    return all(getattr(stored, name) == getattr(latest, name) for name in names)


def _new_fills(stored: Trade, latest: Trade) -> list[Fill] | None:
    """The fills that the pool lacks, all of them at its trade's end; None where the fills differ.

    Raises: IdempotencyConflict when a fill of the same id differs.
    """
    new = [fill for fill in latest.fills if not known_fill(stored, fill)]
    if len(latest.fills) - len(new) < len(stored.fills):
        # What the pool has beyond the row is newer than it, or of another trade.
        return None if new or not latest.fills else []
    last_at = max((fill.at for fill in stored.fills), default=0)
    return new if all(fill.at >= last_at for fill in new) else None


def _changes(stored: Trade, latest: Trade) -> list[Command]:
    changes = {
        name: value
        for name in _CHANGES
        if (value := getattr(latest, name)) and value != getattr(stored, name)
    }
    changes |= _order(stored, latest)
    if not changes:
        return []
    said = {name: str(value) for name, value in changes.items()}
    return [
        UpdateTrade(
            command_id=command_id("update", [stored.trade_id, stored.version, said]),
            # Later than every change before it, whatever the clock of the file says.
            as_of=max(latest.updated_at, stored.updated_at),
            trade_id=stored.trade_id,
            changes=said,
        )
    ]


def _order(stored: Trade, latest: Trade) -> dict[str, Any]:
    """What became of the order: more of it, less of it, or none."""
    if latest.status in (*LATE_STATUSES, Status.REJECTED) and latest.status is not stored.status:
        return {"status": latest.status.value}
    if latest.amount == stored.amount:
        return {}
    if latest.amount == stored.filled and stored.status is Status.PARTIALLY_FILLED:
        return {"status": Status.CANCELLED.value}
    return {"amount": latest.amount}


def _fills(latest: Trade, new: list[Fill]) -> list[Command]:
    return [
        AddFill(
            command_id=command_id("fill", [latest.trade_id, fill.fill_id]),
            as_of=fill.at,
            trade_id=latest.trade_id,
            fill=fill.to_dict(),
        )
        for fill in new
    ]


def _report(stored: Trade, latest: Trade, pnl: str, status: str, modified_at: int) -> list[Command]:
    if (stored.pnl_reported, stored.status) == (latest.pnl_reported, latest.status):
        return []
    return [
        UpdateTradePnl(
            command_id=command_id("report", [stored.trade_id, pnl, status]),
            as_of=modified_at,
            trade_id=stored.trade_id,
            pnl=pnl,
            status=status,
        )
    ]
