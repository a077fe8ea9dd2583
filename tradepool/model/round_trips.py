"""What a venue executed, grouped to round trips: from flat, through the position, to flat again.

A venue tells buys and sells; a trade has entries and exits. The first execution on a flat market opens a
trip and gives it its side; those of the same side add to it, those of the other take from it, until
nothing is left. What an execution sells (or buys) beyond that flips the position: its first part closes
the trip, its second, under the id `<id>#2`, opens the next one. Its fee belongs to the part that closes,
as in the published accounts of flips; so nothing is rounded, and parts add up to the execution. Only a fee
that takes coins out of what the second part brings belongs to that.

Venues tell milliseconds, and several executions may share one; the order in which they are given counts.

A spot account holds coins or none, and a venue in hedge mode keeps longs and shorts apart. What leaves
such a position beyond what the history brought in came from elsewhere, and is handed back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from tradepool.model.fields import reject
from tradepool.model.fill import Fill
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.money import ONE, ZERO, minus, plus
from tradepool.model.valuation import Terms, fee_effect, terms_of

__all__ = ["FLIPPED", "Execution", "RoundTrip", "Unheld", "round_trips"]

FLIPPED = "#2"
"""Ends the id of the part that opens the opposite position."""


class Execution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One execution at a venue, which does not say what it did to the position."""

    fill_id: str
    side: Side
    amount: Decimal
    """Base units, or contracts; > 0."""
    price: Decimal
    """Quote per base; > 0."""
    fee: Decimal = ZERO
    """What the venue took; a rebate is negative."""
    fee_currency: str | None = None
    """None is the settlement currency."""
    at: int
    """µs since 1970."""
    order_id: str | None = None
    fee_price: Decimal | None = None


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fills of one position, in order."""

    side: Side
    fills: tuple[Fill, ...]
    is_flat: bool
    """Whether the exits have taken everything."""


class Unheld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an execution took from a position beyond what was in it."""

    execution: Execution
    amount: Decimal


def round_trips(
    executions: Iterable[Execution],
    *,
    market: Market,
    symbol: str,
    opens_with: Side | None = None,
    begun: RoundTrip | None = None,
) -> Iterator[RoundTrip | Unheld]:
    """The trips of one market of one account, each when it ends; one that is still open comes last.

    `executions` are in the order in which they happened, and go on from `begun` where there is one: a
    history cut anywhere gives the same trips when its parts are grouped one after the other. Where all of
    them are of one side of an account in hedge mode, `opens_with` is that side.

    Raises: InvalidTrade for a fee in the base coin that takes all of what was bought.
    """
    position = _Position(market, symbol, Side.BUY if market is Market.SPOT else opens_with)
    if begun is not None:
        position.resume(begun)
    for execution in executions:
        yield from position.take(execution)
    if position.fills:
        yield position.trip()


class _Position:
    """What is held while executions are booked, by the same sums as `books.Books`."""

    def __init__(self, market: Market, symbol: str, opens_with: Side | None) -> None:
        self._market = market
        self._symbol = symbol
        self._opens_with = opens_with
        self.fills: list[Fill] = []
        self._begin(Side.BUY)

    def resume(self, trip: RoundTrip) -> None:
        """Hold what `trip` holds."""
        self._begin(trip.side)
        for fill in trip.fills:
            self._book(fill)

    def trip(self) -> RoundTrip:
        """The fills since the position was flat."""
        return RoundTrip(side=self._terms.side, fills=tuple(self.fills), is_flat=not self._open)

    def take(self, execution: Execution) -> Iterator[RoundTrip | Unheld]:
        """Book an execution; the trip it ends, and what it sold without holding it."""
        if not self.fills:
            yield from self._enter_anew(execution, execution.amount)
        elif execution.side is self._terms.side:
            self._book(_part(execution, Role.ENTRY, execution.amount))
        else:
            yield from self._leave(execution)

    def _leave(self, execution: Execution) -> Iterator[RoundTrip | Unheld]:
        leaving = min(execution.amount, self._open)
        rest = minus(execution.amount, leaving)
        charged = _free(execution) if self._takes_of(execution, rest) else execution
        self._book(_part(charged, Role.EXIT, leaving))
        if self._open:
            return
        yield self.trip()
        self.fills = []
        if rest:
            yield from self._enter_anew(_free(execution) if charged is execution else execution, rest)

    def _takes_of(self, execution: Execution, rest: Decimal) -> bool:
        """Whether the fee comes out of the coins that `rest`, which opens the next trip, brings in."""
        if not rest or self._opens_with not in (None, execution.side):
            return False
        terms = terms_of(self._market, execution.side, self._symbol, ONE)
        return ZERO < fee_effect(terms, _part(execution, Role.ENTRY, rest)).held < rest

    def _enter_anew(self, execution: Execution, amount: Decimal) -> Iterator[Unheld]:
        if self._opens_with not in (None, execution.side):
            yield Unheld(execution=execution, amount=amount)
            return
        self._begin(execution.side)
        self._book(_part(execution, Role.ENTRY, amount, is_rest=amount != execution.amount))

    def _begin(self, side: Side) -> None:
        self._terms: Terms = terms_of(self._market, side, self._symbol, ONE)
        self.fills = []
        self._not_closed = self._held_fees = ZERO

    @property
    def _open(self) -> Decimal:
        return minus(self._not_closed, self._held_fees)

    def _time_of(self, fill: Fill) -> int:
        """The fill's own, or 1 µs after the exit that it followed in the same instant: a trade's books put
        entries before the exits of their instant.
        """
        last = self.fills[-1] if self.fills else fill
        is_after_exit = (last.role, fill.role) == (Role.EXIT, Role.ENTRY)
        return max(fill.at, last.at + is_after_exit)

    def _book(self, fill: Fill) -> None:
        is_entry, held = fill.role is Role.ENTRY, fee_effect(self._terms, fill).held
        if is_entry and held >= fill.amount:
            reject("fee", "takes the whole fill", fill.fee, "below the amount")
        self.fills.append(msgspec.structs.replace(fill, at=self._time_of(fill)))
        self._not_closed = (plus if is_entry else minus)(self._not_closed, fill.amount)
        held_fees = plus(self._held_fees, held)
        self._held_fees = held_fees if is_entry else min(held_fees, self._not_closed)


def _free(execution: Execution) -> Execution:
    return msgspec.structs.replace(execution, fee=ZERO, fee_currency=None, fee_price=None)


def _part(execution: Execution, role: Role, amount: Decimal, *, is_rest: bool = False) -> Fill:
    return Fill(
        fill_id=execution.fill_id + FLIPPED if is_rest else execution.fill_id,
        role=role,
        amount=amount,
        price=execution.price,
        fee=execution.fee,
        fee_currency=execution.fee_currency,
        fee_price=execution.fee_price,
        at=execution.at,
        order_id=execution.order_id,
    )
