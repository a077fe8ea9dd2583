"""Freqtrade backtest exports (`backtest-result-*.json`, or the `.zip` that newer versions write).

    {"strategy": {name: {"trades": [...], "starting_balance": ...}}, "metadata": {name: {"run_id": ...}}}

In a pool's own export of that form the pool's trades are taken, which it holds whole beside freqtrade's.
Else each trade becomes one of the pool as `freqtrade_trades` says. The first of a strategy carries what the
backtest began with as its `deposit`: that is what growth and relative drawdown are reckoned from.

* **Ids** are digests of user, strategy, run, pair, opening time and place in the list, so that a second
  import of the file finds every trade there, and another run of the same strategy is another set of
  trades.
* **Rounding.** What rounding cuts off a `profit_abs` is carried to the next profit of the same sign, so that
  the totals of gains and of losses agree with the file's to the last kept place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.errors import Rejected
from tradepool.importers.freqtrade_trades import Origin, trade_row
from tradepool.importers.pool_files import record_row
from tradepool.importers.rows import Defaults, Entry, RefusedRow, json_value, money_text, round_noise
from tradepool.model.money import CONTEXT

__all__ = ["read_freqtrade"]


def read_freqtrade(document: Any, defaults: Defaults) -> Iterator[Entry]:
    """The trades of an export that `json_text.decode` has read, in the file's order.

    Raises: Rejected when `document` is no freqtrade export.
    """
    own = document.get("tradepool") if isinstance(document, dict) else None
    if isinstance(own, dict) and isinstance(own.get("trades"), list):
        for number, record in enumerate(own["trades"], 1):
            yield record_row(f"trade {number}", json_value("trade", record))
        return
    carry = _Carry()
    for strategy, result, run in _results(document):
        balance = _balance(result)
        for number, trade in enumerate(result["trades"], 1):
            position = f"{strategy} trade {number}"
            origin = Origin(strategy, run, str(number))
            try:
                row = trade_row(trade, position, origin, defaults, carry.round)
                yield msgspec.structs.replace(row, trade=row.trade | balance)
                balance = {}
            except Rejected as refusal:
                yield RefusedRow(position=position, reason=str(refusal))


def _results(document: Any) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Name, result and run id of each strategy."""
    cure = "export with: freqtrade backtesting --export trades"
    strategies = document.get("strategy") if isinstance(document, dict) else None
    if not isinstance(strategies, dict):
        raise Rejected(
            "no freqtrade export: it has no strategies", field="strategy", value=strategies, cure=cure
        )
    metadata = document.get("metadata")
    for name, result in strategies.items():
        trades = result.get("trades") if isinstance(result, dict) else None
        if not isinstance(trades, list):
            raise Rejected(
                "no freqtrade export: no list of trades", field=f"strategy.{name}", value=trades, cure=cure
            )
        about = metadata.get(name) if isinstance(metadata, dict) else None
        yield name, result, str(about.get("run_id", "")) if isinstance(about, dict) else ""


def _balance(result: Mapping[str, Any]) -> dict[str, str]:
    """What the backtest began with, as a trade's deposit; nothing where it does not tell."""
    balance = result.get("starting_balance")
    if isinstance(balance, bool) or not isinstance(balance, int | Decimal):
        return {}
    amount = Decimal(balance)
    return {"deposit": money_text(amount)} if amount.is_finite() and amount > 0 else {}


class _Carry:
    """Rounds a series of profits so that its sums of gains and of losses round correctly too."""

    def __init__(self) -> None:
        self._cut = {True: Decimal(0), False: Decimal(0)}

    def round(self, profit: Decimal) -> Decimal:
        gain = profit > 0
        exact = CONTEXT.add(profit, self._cut[gain])
        rounded = round_noise(exact)
        self._cut[gain] = CONTEXT.subtract(exact, rounded)
        return rounded
