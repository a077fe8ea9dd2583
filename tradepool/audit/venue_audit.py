"""A venue's positions and balances, as its own interface told them, against open trades and ledgers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from tradepool.audit.report import Finding
from tradepool.audit.rules.venue_rules import Held, Told, venue_average_price, venue_balance, venue_quantity
from tradepool.errors import InvalidQuery, Rejected
from tradepool.model import codec
from tradepool.model.kinds import Market, Side
from tradepool.model.ledger import Ledger, ledger_id
from tradepool.model.money import CONTEXT, ZERO, parse_decimal
from tradepool.model.trade import Trade
from tradepool.store.redis_store import RedisStore

__all__ = ["VenueAudit", "VenueSnapshot"]


class _Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whose figures they are, and where."""

    user_id: str
    account_id: str = "default"


class Position(_Account, frozen=True, kw_only=True):
    """An open position; a short one has a negative amount."""

    exchange: str
    symbol: str
    amount: Decimal
    price: Decimal | None = None
    """Average entry price."""


class BalanceTold(_Account, frozen=True, kw_only=True):
    """What is free of an asset."""

    asset: str
    free: Decimal


class VenueSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What venues told at one moment, `at` (µs).

    Positions are those of every account that occurs among them: what is not told of such an account at
    that exchange is nothing. Balances are compared one by one.
    """

    at: int
    positions: tuple[Position, ...] = ()
    balances: tuple[BalanceTold, ...] = ()

    @classmethod
    def read(cls, told: object) -> VenueSnapshot:
        """The snapshot in JSON text, or in what JSON was read into.

        Raises: InvalidQuery for anything else.
        """
        try:
            snapshot = _read(told)
            for position in snapshot.positions:
                parse_decimal("amount", position.amount)
                parse_decimal("price", position.price or ZERO)
            for balance in snapshot.balances:
                parse_decimal("free", balance.free)
                ledger_id(balance.user_id, balance.account_id)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, Rejected) as problem:
            cure = 'give {"at": µs, "positions": […], "balances": […]}'
            raise InvalidQuery(str(problem), field="venue", value=told, cure=cure) from None
        if not (snapshot.positions or snapshot.balances):
            cure = "give the positions or balances that the venue told"
            raise InvalidQuery("nothing to compare", field="venue", value=told, cure=cure)
        return snapshot


class VenueAudit:
    """Compares a venue's snapshot; `undecided` are positions and ledgers that have changed since."""

    def __init__(self, store: RedisStore, told: VenueSnapshot) -> None:
        self._store = store
        self._told = told
        self.undecided: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Quantities, average prices and balances that differ."""
        accounts = {(p.user_id, p.account_id, p.exchange) for p in self._told.positions}
        positions = {
            (p.user_id, p.account_id, p.exchange, p.symbol): Told(p.amount, p.price)
            for p in self._told.positions
        }
        trades = self._open_trades(accounts)
        for place in sorted(positions.keys() | trades.keys()):
            name = "/".join(place)
            if any(trade.updated_at > self._told.at for trade in trades[place]):
                self.undecided.append(f"position {name}")
                continue
            ours, told = _held(name, trades[place]), positions.get(place, Told(ZERO))
            yield from venue_quantity(ours, told)
            yield from venue_average_price(ours, told)
        for balance in self._told.balances:
            yield from self._of_balance(balance)

    def _open_trades(
        self, accounts: set[tuple[str, str, str]]
    ) -> defaultdict[tuple[str, str, str, str], list[Trade]]:
        found: defaultdict[tuple[str, str, str, str], list[Trade]] = defaultdict(list)
        for user_id in sorted({user_id for user_id, _, _ in accounts}):
            for trade in self._store.open_trades_of_user(user_id):
                if (user_id, trade.account_id, trade.exchange) in accounts:
                    found[user_id, trade.account_id, trade.exchange, trade.symbol].append(trade)
        return found

    def _of_balance(self, balance: BalanceTold) -> Iterator[Finding]:
        record_id = ledger_id(balance.user_id, balance.account_id)
        shard = self._store.keys.shard_of_user(balance.user_id)
        value = self._store.read([(shard, record_id)])[0]
        ledger = None if value is None else codec.unpack(value)
        ours = ledger.assets.get(balance.asset) if isinstance(ledger, Ledger) else None
        name = f"{balance.user_id}/{balance.account_id}/{balance.asset}"
        if ours is not None and (ours.as_of or 0) > self._told.at:
            self.undecided.append(f"balance {name}")
        else:
            yield from venue_balance(Held(name, ZERO if ours is None else ours.free), Told(balance.free))


def _read(told: object) -> VenueSnapshot:
    if isinstance(told, bytes | str):
        return msgspec.json.decode(told, type=VenueSnapshot)
    return msgspec.convert(told, VenueSnapshot, strict=False)


def _held(name: str, trades: Iterable[Trade]) -> Held:
    """What the trades hold together; an average only where all are on one side."""
    amount = value = ZERO
    signs = set()
    for trade in trades:
        held, entered = trade.open_amount, trade.average_entry
        if not held or entered is None:
            continue
        signs.add(trade.side)
        amount = (CONTEXT.add if trade.side is Side.BUY else CONTEXT.subtract)(amount, held)
        value = CONTEXT.add(value, _value(trade, held, entered))
    if len(signs) != 1:
        return Held(name, amount)
    return Held(name, amount, _average(next(iter(trades)), abs(amount), value))


def _value(trade: Trade, held: Decimal, entered: Decimal) -> Decimal:
    """Quote units; of an inverse contract base units, in which its cost is."""
    inverse = trade.market is Market.INVERSE
    return CONTEXT.divide(held, entered) if inverse else CONTEXT.multiply(held, entered)


def _average(trade: Trade, amount: Decimal, value: Decimal) -> Decimal:
    inverse = trade.market is Market.INVERSE
    return CONTEXT.divide(amount, value) if inverse else CONTEXT.divide(value, amount)
