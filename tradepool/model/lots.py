"""FIFO and LIFO views of a trade's fills; the books themselves use average cost."""

from __future__ import annotations

import decimal
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Literal

import msgspec

from tradepool.model.fields import reject
from tradepool.model.fill import Fill
from tradepool.model.kinds import Role
from tradepool.model.money import CONTEXT, canonical, round_cost
from tradepool.model.valuation import Terms, fee_effect, gross, notional

__all__ = ["Lot", "match_lots"]


class Lot(msgspec.Struct, frozen=True, kw_only=True):
    """A part of one entry fill matched with a part of one exit fill."""

    amount: Decimal
    """What was sold (for a short, bought back), base units or contracts."""
    entry_price: Decimal
    exit_price: Decimal
    gross: Decimal
    """Price PnL before fees in the settlement currency; a whole trade's lots sum to its gross."""


class _Open:
    """What is left of an entry fill."""

    __slots__ = ("cost", "price", "quantity")

    def __init__(self, fill: Fill, terms: Terms) -> None:
        self.quantity = fill.amount - fee_effect(terms, fill).held
        self.cost = notional(terms.market, fill.amount, fill.price)
        self.price = fill.price

    def take(self, quantity: Decimal) -> Decimal:
        """Remove `quantity` and return its share of the cost; the last take leaves nothing."""
        whole = quantity == self.quantity
        share = self.cost if whole else round_cost(self.cost * quantity / self.quantity)
        self.quantity -= quantity
        self.cost -= share
        return share


def match_lots(fills: Iterable[Fill], terms: Terms, method: Literal["fifo", "lifo"]) -> tuple[Lot, ...]:
    """The exits of `fills`, in booking order, matched against the oldest or the newest open entry.

    Raises: InvalidTrade for another `method`.
    """
    if method not in ("fifo", "lifo"):
        reject("method", "unknown", method, "fifo or lifo")
    open_entries: deque[_Open] = deque()
    lots: list[Lot] = []
    with decimal.localcontext(CONTEXT):
        for fill in fills:
            if fill.role is Role.ENTRY:
                open_entries.append(_Open(fill, terms))
            else:
                lots.extend(_match_exit(fill, open_entries, terms, newest_first=method == "lifo"))
    return tuple(lots)


def _match_exit(fill: Fill, entries: deque[_Open], terms: Terms, *, newest_first: bool) -> Iterator[Lot]:
    leaving = fill.amount + fee_effect(terms, fill).held
    unsold = fill.amount
    while leaving > 0 and entries:
        entry = entries[-1] if newest_first else entries[0]
        taken = min(leaving, entry.quantity)
        last = taken == leaving or (len(entries) == 1 and taken == entry.quantity)
        sold = unsold if last else round_cost(unsold * taken / leaving)
        cost = entry.take(taken)
        value = notional(terms.market, sold, fill.price)
        yield Lot(
            amount=sold,
            entry_price=entry.price,
            exit_price=fill.price,
            gross=canonical(gross(terms, cost, value)),
        )
        leaving -= taken
        unsold -= sold
        if not entry.quantity:
            entries.remove(entry)
