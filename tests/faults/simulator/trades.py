"""Trades against the commands that made them: each fill once, each key one trade, each change as asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from tests.faults.simulator.journal_lines import JournalFiles, Line
from tests.faults.simulator.writers import Answer
from tradepool.model.commands import AddFill, AddTrade, Command, UpdateTrade, UpdateTradePnl

__all__ = ["check_trades"]

_VENUE = ("user_id", "exchange", "account_id", "symbol")
"""Within these a venue's fill id names one fill."""


def check_trades(answers: list[Answer], commands: dict[str, Command], journal: JournalFiles) -> Iterator[str]:
    """Nothing is booked twice, everything acknowledged is in its trade, and sums are those of the fills."""
    trades = {
        record_id: msgspec.json.decode(newest[-1].r)
        for record_id, history in journal.history.items()
        if (newest := [line for line in history if line.k == "t"])
    }
    yield from _check_claims({i: trade for i, trade in trades.items() if journal.history[i][-1].k == "t"})
    for trade in trades.values():
        yield from _check_sums(trade)
    for line in journal.lines:
        if line.k == "t" and line.e in commands:
            yield from _check_change(line, commands[line.e])
    for answer in answers:
        yield from _check_promise(answer, commands[answer.command_id], trades)


def _check_claims(trades: dict[str, Any]) -> Iterator[str]:
    """Among live trades; an archived one has given its fills and its key free."""
    fills = Counter(
        (*(trade.get(name) for name in _VENUE), fill["fill_id"])
        for trade in trades.values()
        for fill in trade.get("fills", ())
    )
    yield from (f"fill {fill} is booked {times} times" for fill, times in fills.items() if times > 1)
    keys = Counter(
        (trade["user_id"], trade["idempotency_key"])
        for trade in trades.values()
        if trade.get("idempotency_key")
    )
    yield from (f"key {key} has {times} trades" for key, times in keys.items() if times > 1)


def _check_sums(trade: dict[str, Any]) -> Iterator[str]:
    """Filled and closed are the sums of the fills, added here."""
    for role, name in (("entry", "filled"), ("exit", "closed")):
        amounts = [Decimal(fill["amount"]) for fill in trade.get("fills", ()) if fill["role"] == role]
        if sum(amounts, Decimal(0)) != Decimal(trade.get(name, "0")):
            yield f"trade {trade['trade_id']}: {name} is {trade.get(name)}, its fills say {amounts}"


def _check_change(line: Line, command: Command) -> Iterator[str]:
    """The version that a command made has what the command said."""
    made = msgspec.json.decode(line.r)
    match command:
        case AddTrade():
            is_made = line.v == 1 and all(made.get(name) == value for name, value in command.trade.items())
        case AddFill():
            is_made = line.id == command.trade_id and made["fills"][-1]["fill_id"] == command.fill["fill_id"]
        case UpdateTrade():
            told = command.changes.get("stop_loss")
            is_made = line.id == command.trade_id and told in (None, made.get("stop_loss"))
            is_made = is_made and command.expected_version in (None, line.v - 1)
        case UpdateTradePnl():
            is_made = line.id == command.trade_id and made.get("pnl_reported") == command.pnl
        case _:
            is_made = line.id == command.trade_id
    if not is_made:
        yield f"{command} made something else: {line}"


def _check_promise(answer: Answer, command: Command, trades: dict[str, Any]) -> Iterator[str]:
    """What was acknowledged, as new or as known, is still in the trade."""
    if answer.receipt is None or not isinstance(command, AddFill | AddTrade):
        return
    trade = trades.get(answer.receipt.trade_id)
    if trade is None:
        yield f"{answer.command_id}: acknowledged trade {answer.receipt.trade_id} is nowhere"
    elif isinstance(command, AddFill):
        if command.fill["fill_id"] not in {fill["fill_id"] for fill in trade.get("fills", ())}:
            yield f"{answer.command_id}: acknowledged fill {command.fill['fill_id']} is not in {trade}"
    elif command.trade.get("idempotency_key") != trade.get("idempotency_key"):
        yield f"{answer.command_id}: acknowledged as {answer.receipt.trade_id}, which has another key"
