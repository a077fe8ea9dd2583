"""The running sums of one trade while fills are booked, and the figures that follow from them.

Average cost is canonical. With s = +1 long, −1 short, m = contract size, Q open quantity, C its cost:
an exit of q at p takes the share C·q/Q of the cost and grosses s·m·(q·p − share), for an inverse
contract s·m·(share − q/p) in the base coin; the last exit takes all that is left of C. What exits leave
is one share of what the last entry left, and all else are exact sums: so figures, rounded once, depend
neither on how fills were batched nor on the parts in which an order was filled.

Every sum is canonical whenever a fill is booked, so what no fill touches is not looked at again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from tradepool.errors import IllegalTransition, InvalidTrade
from tradepool.model.fill import Fill
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.money import (
    CONTEXT,
    ZERO,
    minus,
    plain,
    plus,
    quantise,
    round_cost,
    round_quotients,
    round_ratio,
)
from tradepool.model.trade import Trade
from tradepool.model.valuation import NO_FEE, FeeEffect, Terms, fee_effect, gross, notional

__all__ = ["BLANK", "FILLS_MAX", "Books", "return_on_cost"]

FILLS_MAX = 10_000
"""Fills that one trade can hold."""

BLANK: dict[str, Any] = {
    "filled": ZERO,
    "closed": ZERO,
    "entry_cost": ZERO,
    "exit_value": ZERO,
    "open_cost": ZERO,
    "held_fees": ZERO,
    "entry_fee": ZERO,
    "exit_fee": ZERO,
    "open_fee": ZERO,
    "fees": {},
    "fee_unpriced": False,
}
"""The sums of a trade without fills."""

_RETURN_DIGITS_MAX = 24
"""A return of more digits says only that the stake was nothing."""

# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_ENTRY, _BUY, _INVERSE = Role.ENTRY, Side.BUY, Market.INVERSE


class _Basis(NamedTuple):
    """What was open after the last entry; exits leave a share of it."""

    held: Decimal
    cost: Decimal
    fee: Decimal

    def left(self, held: Decimal) -> tuple[Decimal, Decimal]:
        """The cost and the entry fee of `held` of it."""
        if held == self.held:
            return self.cost, self.fee
        return _share(self.cost, held, self.held), _share(self.fee, held, self.held)


class Books:
    """The running sums of `trade`, which stays as it is."""

    __slots__ = (
        "_amount",
        "_basis",
        "_closed",
        "_entry_cost",
        "_entry_fee",
        "_exit_fee",
        "_exit_value",
        "_fees",
        "_filled",
        "_fills",
        "_held_fees",
        "_open_cost",
        "_open_fee",
        "_terms",
        "_trade",
        "_unpriced",
    )

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._terms = trade.terms
        self._fills = list(trade.fills)
        self._fees = trade.fees
        self._unpriced = trade.fee_unpriced
        self._amount = trade.amount
        self._basis: _Basis | None = None
        self._filled, self._closed, self._held_fees = trade.filled, trade.closed, trade.held_fees
        self._entry_cost, self._exit_value = trade.entry_cost, trade.exit_value
        self._open_cost, self._open_fee = trade.open_cost, trade.open_fee
        self._entry_fee, self._exit_fee = trade.entry_fee, trade.exit_fee

    def book(self, fill: Fill) -> None:
        """Add one fill to the sums.

        Raises: InvalidTrade and IllegalTransition as `pnl.fold_fills`.
        """
        if len(self._fills) >= FILLS_MAX:
            raise InvalidTrade("too many fills", field="fills", value=FILLS_MAX, cure="open another trade")
        effect = fee_effect(self._terms, fill)
        if fill.role is _ENTRY:
            self._enter(fill, effect)
        else:
            self._exit(fill, effect)
        self._fills.append(fill)
        if effect is not NO_FEE:
            self._unpriced = self._unpriced or effect.unpriced
            coin = fill.fee_currency or self._terms.settlement_currency
            self._fees = {**self._fees, coin: plus(self._fees.get(coin, ZERO), fill.fee)}

    def fields(self) -> dict[str, Any]:
        """The sums and the figures derived from them, by the trade's field names."""
        price_gain = self._price_gain() if self._closed else ZERO
        cash = self._after_costs(price_gain)
        net = CONTEXT.add(cash, self._open_fee) if self._open_fee else cash
        cash_net = quantise(cash)
        return {
            "fills": tuple(self._fills),
            "amount": self._amount,
            "filled": self._filled,
            "closed": self._closed,
            "entry_cost": self._entry_cost,
            "exit_value": self._exit_value,
            "open_cost": self._open_cost,
            "held_fees": self._held_fees,
            "entry_fee": self._entry_fee,
            "exit_fee": self._exit_fee,
            "open_fee": self._open_fee,
            "fees": self._fees,
            "fee_unpriced": self._unpriced,
            "pnl_gross": quantise(price_gain),
            "pnl_net": quantise(net) if self._open_fee else cash_net,
            "pnl_cash_net": cash_net,
            "roi_net": (
                return_on_cost(self._terms, self._entry_cost, self._entry_fee, net, self._trade.leverage)
                if self._closed
                else None
            ),
        }

    def _enter(self, fill: Fill, effect: FeeEffect) -> None:
        filled = plus(self._filled, fill.amount)
        if filled > self._amount:
            ordered = max(self._amount, self._trade.amount_ordered or ZERO)
            if filled > ordered:
                raise _beyond("fills more than was ordered", fill, CONTEXT.subtract(ordered, self._filled))
            self._amount = filled
        if effect.held >= fill.amount:
            raise InvalidTrade("takes the whole fill", field="fee", value=fill.fee, cure="below the amount")
        cost = notional(self._terms.market, fill.amount, fill.price)
        self._filled = filled
        self._entry_cost = plus(self._entry_cost, cost)
        self._open_cost = plus(self._open_cost, cost)
        if effect is not NO_FEE:
            self._held_fees = plus(self._held_fees, effect.held)
            self._entry_fee = plus(self._entry_fee, effect.settled)
            self._open_fee = plus(self._open_fee, effect.settled)
        if self._closed:
            held = minus(minus(filled, self._closed), self._held_fees)
            self._basis = _Basis(held, self._open_cost, self._open_fee)

    def _exit(self, fill: Fill, effect: FeeEffect) -> None:
        not_closed = minus(self._filled, self._closed)
        if fill.amount > not_closed:
            room = CONTEXT.subtract(self._filled, self._closed)
            raise _beyond("closes more than is filled", fill, room)
        held = minus(not_closed, self._held_fees)
        leaving = plus(fill.amount, effect.held)
        if leaving < held:
            self._basis = self._basis or self._last_basis(held)
            self._open_cost, self._open_fee = self._basis.left(minus(held, leaving))
        else:
            self._open_cost = self._open_fee = ZERO
        # Coins that the trade did not hold came from elsewhere, at a cost it cannot know.
        self._unpriced = self._unpriced or leaving > held
        self._closed = plus(self._closed, fill.amount)
        self._held_fees = min(plus(self._held_fees, effect.held), minus(not_closed, fill.amount))
        self._exit_value = plus(self._exit_value, notional(self._terms.market, fill.amount, fill.price))
        self._exit_fee = plus(self._exit_fee, effect.settled)

    def _last_basis(self, held: Decimal) -> _Basis:
        if not self._closed:
            return _Basis(held, self._open_cost, self._open_fee)
        basis, held = _Basis(ZERO, ZERO, ZERO), ZERO
        for fill in self._fills:
            effect = fee_effect(self._terms, fill)
            if fill.role is _ENTRY:
                cost, fee = basis.left(held)
                held = plus(held, minus(fill.amount, effect.held))
                cost = plus(cost, notional(self._terms.market, fill.amount, fill.price))
                basis = _Basis(held, cost, plus(fee, effect.settled))
            else:
                held = max(minus(held, plus(fill.amount, effect.held)), ZERO)
        return basis

    def _price_gain(self) -> Decimal:
        gain = gross(self._terms, minus(self._entry_cost, self._open_cost), self._exit_value)
        return round_quotients(gain) if self._terms.market is _INVERSE else gain

    def _after_costs(self, gain: Decimal) -> Decimal:
        for cost in (self._entry_fee, self._exit_fee, self._trade.interest):
            if cost:
                gain = CONTEXT.subtract(gain, cost)
        return CONTEXT.add(gain, self._trade.funding) if self._trade.funding else gain


def return_on_cost(
    terms: Terms, entry_cost: Decimal, entry_fee: Decimal, net: Decimal, leverage: Decimal
) -> Decimal | None:
    """`net` over the entries' cost and fee, times leverage, to 18 places; None for a stake of nothing."""
    stake = CONTEXT.multiply(entry_cost, terms.contract_size)
    paid = CONTEXT.add if terms.side is _BUY else CONTEXT.subtract
    stake = paid(stake, entry_fee)
    if stake <= ZERO:
        return None
    ratio = CONTEXT.multiply(CONTEXT.divide(net, stake), leverage)
    return round_ratio(ratio) if ratio.adjusted() < _RETURN_DIGITS_MAX else None


def _share(cost: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    return round_cost(CONTEXT.divide(CONTEXT.multiply(cost, part), whole)) if cost else ZERO


def _beyond(problem: str, fill: Fill, room: Decimal) -> IllegalTransition:
    return IllegalTransition(problem, field="amount", value=plain(fill.amount), cure=f"at most {plain(room)}")
