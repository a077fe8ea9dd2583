"""Freqtrade's SQLite database (`tradesv3.sqlite`), of every age of its two tables `trades` and `orders`.

Columns came and went under several names (`fee`, `sell_reason`, `buy_tag`, `isolated_liq`), and the first
years had no `orders`: what a file lacks is taken from what it has, as freqtrade's own migrations do. Each row
is then read like a trade of a backtest export. The file is opened for reading only, and never changed.

* **Ids** are digests of the user, the strategy and the exchange, freqtrade's own number of the trade, its
  pair and its opening, so that another import of the file, grown meanwhile, meets the same trades.
* **Fees** are those of each order at the trade's rate, in quote; what a venue took in the bought coin
  (`ft_fee_base`) in that coin. Fees in a third coin stay in `extra`: freqtrade counts them by that rate too.
* **Orders** give a fill when they are done: what an open one has filled so far would be another fill of it
  in the next import. Until then an entry order is in the trade's amount. One that never filled is a trade
  without fills.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tradepool.errors import InvalidTrade, Rejected, ResourceUnavailable
from tradepool.importers.freqtrade_trades import Origin, trade_row
from tradepool.importers.rows import Defaults, Entry, RefusedRow
from tradepool.model.kinds import Source, Status
from tradepool.model.money import parse_decimal

__all__ = ["LOCK_WAIT_S", "read_freqtrade_database"]

LOCK_WAIT_S = 5.0
"""How long another program may hold the file before the import gives up."""

Row = dict[str, Any]

_WAL = (2, 2)
_VERSIONS_AT = slice(18, 20)
_DRY_RUN = "dry_run"
_ENDED_UNFILLED = {"canceled": Status.CANCELLED, "expired": Status.EXPIRED, "rejected": Status.REJECTED}
_FILLED_WORDS = frozenset({"closed", "filled"})
# Our name, and freqtrade's of all ages, the newest first.
_NAMES = {
    "fee_open": ("fee_open", "fee"),
    "fee_close": ("fee_close", "fee"),
    "exit_reason": ("exit_reason", "sell_reason"),
    "enter_tag": ("enter_tag", "buy_tag"),
    "liquidation_price": ("liquidation_price", "isolated_liq"),
    "stop_loss_abs": ("stop_loss",),
    "profit_abs": ("close_profit_abs",),
    "profit_ratio": ("close_profit",),
}
_RENAMED = frozenset(name for names in _NAMES.values() for name in names)
_NEEDED = frozenset({"id", "pair", "is_open", "open_rate", "amount", "open_date"})


def read_freqtrade_database(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """The trades of a database in the order of their numbers, streamed, as they were at one moment.

    Trades of a dry run are `paper`, others `real`, unless `defaults` say what they are.

    Raises: Rejected when the file is no database of freqtrade's; ResourceUnavailable when another program
    keeps it locked, or began to write to it meanwhile.
    """
    with _opened(path) as database:
        for trade, orders in _trades(database, path):
            yield _entry(trade, orders, defaults, path)


def _entry(trade: Row, orders: list[Row], defaults: Defaults, path: Path) -> Entry:
    position = f"trade {trade['id']}"
    try:
        return trade_row(_as_exported(trade, orders), position, _origin(trade, orders, path), defaults)
    except Rejected as refusal:
        return RefusedRow(position=position, reason=str(refusal))


def _origin(trade: Row, orders: list[Row], path: Path) -> Origin:
    strategy = trade.get("strategy") or ""
    if not isinstance(strategy, str):
        raise InvalidTrade("not a text", field="strategy", value=strategy, cure="a text, or nothing")
    # Without orders there is only the file's name to tell, as freqtrade names it.
    is_dry = any(str(order.get("order_id")).startswith(_DRY_RUN) for order in orders) or (
        not orders and "dryrun" in path.name
    )
    source = Source.PAPER if is_dry else Source.REAL
    return Origin(strategy, f"database {trade.get('exchange')}", str(trade["id"]), source)


def _as_exported(trade: Row, orders: list[Row]) -> Row:
    """The trade under the names that a backtest export has. Raises: InvalidTrade for what is no number."""
    named = {name: _first(trade, names) for name, names in _NAMES.items()}
    exported = {name: value for name, value in trade.items() if name not in _RENAMED} | named
    exported["pair"] = _pair(trade["pair"])
    shown = [_order(order, exported) for order in orders]
    exported["orders"] = _waited_for(trade) if _tell_less(shown, trade) else shown
    if not trade["is_open"]:
        exported["profit_abs"] = _profit(exported) if named["profit_abs"] is None else named["profit_abs"]
        exported["profit_ratio"] = named["profit_ratio"] or Decimal(0)
    return exported | {"status": _unfilled_status(trade, orders).value}


def _first(row: Row, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _pair(pair: Any) -> Any:
    """The first versions wrote `BTC_ETH` for what is ETH/BTC now."""
    if isinstance(pair, str) and "/" not in pair and pair.count("_") == 1:
        quote_coin, base = pair.split("_")
        return f"{base}/{quote_coin}"
    return pair


def _order(order: Row, trade: Row) -> Row:
    """An order under the names that an export has; without a time of filling where nothing was filled."""
    entry_side = "sell" if trade.get("is_short") else "buy"
    is_entry = order.get("ft_order_side", order.get("side")) == entry_side
    is_open = bool(order.get("ft_is_open")) and bool(trade["is_open"])
    ordered = _number(order, "ft_amount") or _number(order, "amount")
    filled = Decimal(0) if is_open else _number(order, "filled")
    if order.get("filled") is None and not is_open and order.get("status") in _FILLED_WORDS:
        filled = ordered
    at = _first(order, ("order_filled_date", "order_update_date", "order_date")) or trade["open_date"]
    return {
        "ft_is_entry": is_entry,
        "filled": filled,
        "amount": ordered,
        "safe_price": _first(order, ("average", "price", "ft_price")),
        "order_filled_timestamp": at if filled else None,
        "order_id": order.get("order_id"),
        "ft_fee_base": order.get("ft_fee_base"),
        "open": ordered if is_open and is_entry else None,
    }


def _tell_less(orders: list[Row], trade: Row) -> bool:
    """Whether the trade's own figures say more: orders are kept only of what was open when they came up."""
    filled = [order["ft_is_entry"] for order in orders if order["filled"]]
    if not orders:
        return True
    is_entered = True in filled
    is_left = not trade["is_open"] and trade.get("close_rate") is not None
    return (is_left and not (is_entered and False in filled)) or (False in filled and not is_entered)


def _waited_for(trade: Row) -> list[Row] | None:
    """The entry that the first versions still waited for; None where the trade's figures are its fills."""
    waits_for_exit = any(trade.get(name) is not None for name in ("close_rate", "close_rate_requested"))
    if trade["is_open"] and trade.get("open_order_id") and not waits_for_exit:
        return [{"ft_is_entry": True, "open": trade["amount"]}]
    return None


def _unfilled_status(trade: Row, orders: list[Row]) -> Status:
    """What became of a trade of which nothing was filled."""
    if trade["is_open"]:
        return Status.SUBMITTED
    return _ENDED_UNFILLED.get(str(orders[-1].get("status") if orders else None), Status.CANCELLED)


def _profit(trade: Row) -> Decimal | None:
    """What the first versions did not store: received less paid, as freqtrade's own migration computes it."""
    if trade.get("close_rate") is None:
        return None
    amount, fee_in, fee_out = (_number(trade, name) for name in ("amount", "fee_open", "fee_close"))
    paid = amount * _number(trade, "open_rate") * (1 + fee_in)
    return amount * _number(trade, "close_rate") * (1 - fee_out) - paid


def _number(row: Row, name: str) -> Decimal:
    """The number in a column, 0 for none. Raises: InvalidTrade: SQLite keeps any value in any column."""
    value = row.get(name)
    if value is None or isinstance(value, Decimal):
        return value or Decimal(0)
    return parse_decimal(name, value)


def _trades(database: sqlite3.Connection, path: Path) -> Iterator[tuple[Row, list[Row]]]:
    """Each trade with its orders, both in the order of their numbers, in one reading transaction."""
    with _translated(path):
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {column[1] for column in database.execute("PRAGMA table_info(trades)")}
        if not columns >= _NEEDED:
            raise _foreign(path, "has no trades of freqtrade's")
        database.execute("BEGIN")
        orders = (
            _rows(database, "SELECT * FROM orders ORDER BY ft_trade_id, id") if "orders" in tables else ()
        )
        groups = groupby(orders, key=lambda order: order.get("ft_trade_id"))
        waiting = next(groups, None)
        for trade in _rows(database, "SELECT * FROM trades ORDER BY id"):
            while waiting is not None and (waiting[0] is None or waiting[0] < trade["id"]):
                waiting = next(groups, None)
            own: list[Row] = []
            if waiting is not None and waiting[0] == trade["id"]:
                own, waiting = list(waiting[1]), next(groups, None)
            yield trade, own


def _rows(database: sqlite3.Connection, query: str) -> Iterator[Row]:
    found = database.execute(query)
    names = [column[0] for column in found.description]
    for values in found:
        yield dict(zip(names, map(_exact, values), strict=True))


def _exact(value: Any) -> Any:
    """A float by its shortest digits, as freqtrade would print it."""
    return Decimal(repr(value)) if isinstance(value, float) else value


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, for reading only.

    One in WAL mode that nobody has open can only be read with two files laid beside it; so it is read as one
    that does not change, and afterwards it must not have.
    """
    log = path.with_name(f"{path.name}-wal")
    with _translated(path):
        is_still = _is_wal(path) and not log.exists()
        before = path.stat()
        where = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if is_still else ''}"
        database = sqlite3.connect(where, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)
        # What is no UTF-8 is refused by the model, with its row.
        database.text_factory = _text
    with closing(database):
        yield database
    after = path.stat()
    if is_still and (
        log.exists() or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size)
    ):
        raise ResourceUnavailable(f"{path}: another program began to write to it; import it again")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _is_wal(path: Path) -> bool:
    with path.open("rb") as file:
        return tuple(file.read(_VERSIONS_AT.stop)[_VERSIONS_AT]) == _WAL


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _foreign(path, str(problem)) from problem
        cure = "stop it, or import a copy: sqlite3 FILE '.backup copy.sqlite'"
        raise ResourceUnavailable(f"{path}: locked by another program; {cure}") from problem
    except (sqlite3.DatabaseError, OSError) as problem:
        raise _foreign(path, str(problem)) from problem


def _foreign(path: Path, problem: str) -> Rejected:
    return Rejected(
        problem, field="file", value=str(path), cure="give freqtrade's tradesv3.sqlite, undamaged"
    )
