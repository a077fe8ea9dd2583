"""Lists of ccxt's `fetch_my_trades` and `fetch_orders`, as JSON: what was executed, market by market.

The rows of a file become one history for each market (`rows.MarketHistory`), in the order in which they
happened; `grouping` makes trades of it. The two lists may be mixed, and pages may overlap:

* A fill told twice is one fill. An order whose fills are listed, in the order itself or in the file, is
  told by them; without them it counts as one fill of its average price.
* An order that never filled is no trade and no error: it is reported as idle. One that is still open
  and partly filled is refused until its fills are listed or it is done.
* **Hedge mode.** Where the venue says of its rows which position they are of, longs and shorts are two
  histories of the market.
* **Contracts.** Neither structure names the size of a contract. It follows from the cost:
  amount·price·size for linear contracts, amount·size/price for inverse ones; a caller can name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from tradepool.errors import IdempotencyConflict, InvalidTrade, Rejected
from tradepool.importers.ccxt_rows import ORDER_TOTAL, CcxtRow, read_row
from tradepool.importers.file_text import begins_array, open_text
from tradepool.importers.json_text import ArrayItem, array_items
from tradepool.importers.rows import (
    Defaults,
    Entry,
    IdleRow,
    MarketHistory,
    RefusedRow,
    RepeatedRow,
    VenueRow,
)
from tradepool.model.fields import reject
from tradepool.model.kinds import Market, Side, Source
from tradepool.model.money import CONTEXT, ONE, ZERO, canonical, plus
from tradepool.model.round_trips import Execution
from tradepool.model.symbols import coins_of

__all__ = ["read_ccxt"]

_ROUND = tuple(Context(prec=digits) for digits in (1, 2, 3))
_OFF_MAX = Decimal("0.002")
"""How far a cost may be from the one that a round contract size gives, beside its last digit."""
_FACTOR_MAX = Decimal(2)
"""A size of 1 is taken where the costs say none, but are not off by more than this."""

_OPTIONS = ("-C", "-P")
"""Ends the symbols of options: calls and puts."""


class _Placed(NamedTuple):
    """A row and its number in the file."""

    number: int
    row: VenueRow


class _Market:
    """The rows of one market, and what they show of the size of its contracts."""

    def __init__(self, kind: Market) -> None:
        self.kind = kind
        self.placed: list[_Placed] = []
        self.known: dict[str, Execution] = {}
        self.about: dict[str, Any] = {}
        self._sizes_named: set[Decimal] = set()
        self._costs = _Costs(kind)

    def learn_size(self, row: CcxtRow) -> None:
        """Take note of what the row says of the contract size, or its cost."""
        if row.size is not None:
            self._sizes_named.add(row.size)
        self._costs.learn(row)

    def size(self) -> Decimal | None:
        """The size that the rows name, else the round one that their costs show; None without one."""
        if self._sizes_named:
            return next(iter(self._sizes_named)) if len(self._sizes_named) == 1 else None
        return self._costs.size()


class _Costs:
    """What the costs of a market's rows leave open of the size of its contracts."""

    def __init__(self, kind: Market) -> None:
        self._kind = kind
        self._low, self._high = ZERO, Decimal("Infinity")
        self._largest = self._ratio = ZERO
        self._are_near = True

    def learn(self, row: CcxtRow) -> None:
        """Take note of a row's cost, which is right to its last digit."""
        cost = row.cost
        if cost is None or cost <= ZERO:
            return
        worth = _worth(row, self._kind)
        last = Decimal((0, (1,), min(int(cost.as_tuple().exponent), 0)))
        low, ratio, high = (CONTEXT.divide(value, worth) for value in (cost - last, cost, cost + last))
        self._low = max(self._low, CONTEXT.multiply(low, 1 - _OFF_MAX))
        self._high = min(self._high, CONTEXT.multiply(high, 1 + _OFF_MAX))
        self._are_near &= 1 / _FACTOR_MAX < ratio < _FACTOR_MAX
        if cost > self._largest:
            self._largest, self._ratio = cost, ratio

    def size(self) -> Decimal | None:
        """The round size that the largest cost shows, if all allow it; 1 where linear ones are near it."""
        off = CONTEXT.multiply(self._ratio, _OFF_MAX)
        tight = max(self._low, self._ratio - off), min(self._high, self._ratio + off)
        for low, high in (tight, (self._low, self._high)) if self._largest else ():
            for context in _ROUND:
                if low <= (size := canonical(context.plus(self._ratio))) <= high:
                    return size
        return ONE if self._kind is Market.LINEAR and self._are_near else None


def read_ccxt(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """The rows that are left out or repeat others, in the file's order; then one history a market.

    Raises: Rejected when the file cannot be read or is no list, or no user is named.
    """
    if defaults.user is None:
        cure = "name the owner of these fills with --user"
        raise Rejected("ccxt's lists name no user", field="user", value=None, cure=cure)
    collected = _Collected(defaults.market or Market.SPOT)
    with open_text(path) as text:
        if not begins_array(text):
            cure = "save what fetch_my_trades or fetch_orders returned: one list, in [ and ]"
            raise Rejected("not a JSON array", field="file", value=str(path), cure=cure)
        for item in array_items(text):
            yield from collected.take(item, f"{path.name} row {item.row} (line {item.line})")
    yield from collected.orders_told_twice()
    for (symbol, opens_with), market in collected.markets.items():
        if market.placed:
            yield _history(symbol, market, defaults, opens_with)


class _Collected:
    """The rows of a file by market, each execution once."""

    def __init__(self, unsettled: Market) -> None:
        self.markets: dict[tuple[str, Side | None], _Market] = {}
        self._unsettled = unsettled

    def take(self, item: ArrayItem, position: str) -> Iterator[Entry]:
        """Add a row; what there is to report of it."""
        try:
            if item.error:
                raise InvalidTrade(item.error)
            row = read_row(item.value)
            if row.idle:
                yield IdleRow(position=position, reason=row.idle)
            elif not self._add(row, item.row, position):
                yield RepeatedRow(position=position)
        except Rejected as refusal:
            yield RefusedRow(position=position, reason=str(refusal))

    def orders_told_twice(self) -> Iterator[Entry]:
        """Take out the orders whose fills are in the file too."""
        for market in self.markets.values():
            filled: dict[str | None, Decimal] = {}
            for execution in (e for one in market.placed for e in one.row.executions if not _is_total(e)):
                filled[execution.order_id] = plus(filled.get(execution.order_id, ZERO), execution.amount)
            kept = []
            for one in market.placed:
                first = one.row.executions[0]
                if _is_total(first) and first.order_id in filled:
                    yield _told_twice(one.row, filled[first.order_id])
                else:
                    kept.append(one)
            market.placed = kept

    def _add(self, row: CcxtRow, number: int, position: str) -> bool:
        """Whether the row told anything new."""
        key = row.symbol, row.opens_with
        market = self.markets.get(key)
        if market is None:
            market = self.markets[key] = _Market(_kind_of(row.symbol, self._unsettled))
        fresh = tuple(e for e in row.executions if not _is_known(market.known.get(e.fill_id), e))
        if fresh:
            market.known.update((execution.fill_id, execution) for execution in fresh)
            market.learn_size(row)
            # Most rows say the same: one object for them all.
            if market.about != row.about:
                market.about = row.about
            told = VenueRow(position=position, executions=fresh, about=market.about)
            market.placed.append(_Placed(number, told))
        return bool(fresh)


def _is_known(known: Execution | None, execution: Execution) -> bool:
    if known is None:
        return False
    if (known.side, known.amount, known.price) != (execution.side, execution.amount, execution.price):
        raise IdempotencyConflict(
            "the file has another fill with this id",
            field="id",
            value=execution.fill_id,
            cure="export it again: an id names one fill of a market",
        )
    return True


def _is_total(execution: Execution) -> bool:
    return execution.fill_id.startswith(ORDER_TOTAL)


def _told_twice(row: VenueRow, filled: Decimal) -> Entry:
    total = ZERO
    for execution in row.executions:
        total = plus(total, execution.amount)
    if total == filled:
        return RepeatedRow(position=row.position)
    problem = InvalidTrade(
        "not all of its fills are in the file", field="filled", value=total, cure="export all of its fills"
    )
    return RefusedRow(position=row.position, reason=str(problem))


def _kind_of(symbol: str, unsettled: Market) -> Market:
    coins = coins_of(symbol)
    if not coins.settle:
        return unsettled
    if coins.settle == coins.base and symbol.endswith(_OPTIONS):
        cure = "leave it out: the pool values linear and inverse contracts"
        reject("symbol", "an option priced in the coin that it is of", symbol, cure)
    return Market.INVERSE if coins.settle == coins.base else Market.LINEAR


def _history(symbol: str, market: _Market, defaults: Defaults, opens_with: Side | None) -> MarketHistory:
    assert defaults.user is not None
    is_contract = market.kind in (Market.LINEAR, Market.INVERSE)
    return MarketHistory(
        user=defaults.user,
        account=defaults.account or "default",
        exchange=defaults.exchange or "unknown",
        symbol=symbol,
        market=market.kind,
        source=defaults.source or Source.IMPORT,
        contract_size=(defaults.contract_size or market.size()) if is_contract else ONE,
        opens_with=opens_with,
        rows=tuple(one.row for one in _in_order(market.placed)),
    )


def _in_order(placed: list[_Placed]) -> list[_Placed]:
    """By time; of one millisecond by numeric id, else as in the file, which may be newest first."""
    newest_first = placed[0].row.executions[0].at > placed[-1].row.executions[0].at

    def place(one: _Placed) -> tuple[int, int, int]:
        first = one.row.executions[0]
        number = int(first.fill_id) if first.fill_id.isascii() and first.fill_id.isdigit() else 0
        return first.at, number, -one.number if newest_first else one.number

    return sorted(placed, key=place)


def _worth(row: CcxtRow, market: Market) -> Decimal:
    worth = ZERO
    for execution in row.executions:
        value = CONTEXT.divide if market is Market.INVERSE else CONTEXT.multiply
        worth = CONTEXT.add(worth, value(execution.amount, execution.price))
    return worth
