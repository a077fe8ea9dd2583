"""A pool in plain dicts and fractions that knows the rules, for comparison; it shares no code with tradepool.

It decides one request at a time: what the answer must be, and what is true afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

__all__ = ["Answer", "PlainPool", "PlainTrade"]

OPEN = {"pending", "submitted", "partially_filled", "filled", "partially_closed"}
FINAL = {"completed", "rejected"}
LATE = {"cancelled", "expired"}
UNITS = 10**8

Fields = dict[str, Any]


class Answer(NamedTuple):
    """`outcome` of an accepted request, or the name of the error; the version it leaves."""

    outcome: str
    version: int = 0


class PlainFill(NamedTuple):
    """One fill; a role of "entry" or "exit"."""

    fill_id: str
    role: str
    amount: Fraction
    price: Fraction
    fee: Fraction


@dataclass
class PlainTrade:
    """One trade: what was said, and the fills; every figure is folded from them when asked."""

    trade_id: str
    given: Fields
    status: str = "pending"
    version: int = 1
    is_shrunk: bool = False
    is_archived: bool = False
    fills: list[PlainFill] = field(default_factory=list)
    stop_loss: Fraction | None = None
    reported: Fraction | None = None
    reported_at: int = 0

    @property
    def user_id(self) -> str:
        return self.given["user_id"]

    @property
    def place(self) -> tuple[int, str]:
        return self.given["timestamp"], self.trade_id

    @property
    def ordered(self) -> Fraction:
        return Fraction(self.given["amount"])

    @property
    def amount(self) -> Fraction:
        return self.filled if self.is_shrunk else self.ordered

    @property
    def filled(self) -> Fraction:
        return sum((fill.amount for fill in self.fills if fill.role == "entry"), Fraction())

    @property
    def closed(self) -> Fraction:
        return sum((fill.amount for fill in self.fills if fill.role == "exit"), Fraction())

    @property
    def market(self) -> tuple[str, str]:
        """Where a venue's fill id is one fill only: the user's and the symbol's."""
        return self.user_id, self.given["symbol"]

    @property
    def named_fills(self) -> list[PlainFill]:
        """Those that the venue named; the pool names its own after the trade."""
        return [fill for fill in self.fills if not fill.fill_id.startswith(f"{self.trade_id}:")]

    @property
    def volume(self) -> Fraction:
        return sum((fill.amount * fill.price for fill in self.fills), Fraction())

    @property
    def fees(self) -> Fraction:
        return sum((fill.fee for fill in self.fills), Fraction())

    @property
    def pnl(self) -> Fraction:
        if self.reported is not None and not self.closed:
            return self.reported
        return self.figures()[1]

    @property
    def outcome(self) -> str | None:
        if self.status != "completed":
            return None
        return "win" if self.pnl > 0 else "loss" if self.pnl < 0 else "flat"

    def room(self, role: str) -> Fraction:
        """How much more may be filled, or closed."""
        return self.ordered - self.filled if role == "entry" else self.filled - self.closed

    def figures(self) -> tuple[Fraction, Fraction]:
        """Gross and net PnL, average cost, entry fees pro rata, in units of 10⁻⁸."""
        held = cost = fee = gross = net = Fraction()
        sign = 1 if self.given["side"] == "buy" else -1
        for fill in self.fills:
            if fill.role == "entry":
                held, cost, fee = held + fill.amount, cost + fill.amount * fill.price, fee + fill.fee
                continue
            share = fill.amount / held
            gain = sign * (fill.amount * fill.price - cost * share)
            gross, net = gross + gain, net + gain - fill.fee - fee * share
            held, cost, fee = held - fill.amount, cost * (1 - share), fee * (1 - share)
        return _rounded(gross), _rounded(net)


class PlainPool:
    """Everything said so far, by trade id; `tokens` by user and asset: (amount, as of)."""

    def __init__(self) -> None:
        self.trades: dict[str, PlainTrade] = {}
        self.tokens: dict[str, dict[str, tuple[Fraction, int]]] = {}
        self.claims: dict[tuple[str, str, str], str] = {}
        self.keys: dict[tuple[str, str], str] = {}

    def of_user(self, user_id: str) -> list[PlainTrade]:
        """Newest first."""
        own = (trade for trade in self.trades.values() if trade.user_id == user_id)
        return sorted(own, key=lambda trade: trade.place, reverse=True)

    def add(self, trade_id: str, given: Fields) -> Answer:
        key = (given["user_id"], given.get("idempotency_key"))
        known = self.trades.get(trade_id)
        if known is not None and known.user_id != given["user_id"]:
            return Answer("IdempotencyConflict")
        if known is None and key in self.keys:
            known = self.trades[self.keys[key]]
        if known is not None:
            return self._same(known) if known.given == given else Answer("IdempotencyConflict")
        trade = self.trades[trade_id] = PlainTrade(trade_id, given)
        if key[1] is not None:
            self.keys[key] = trade_id
        if given.get("status") == "filled":
            self._fill_rest(trade)
        return Answer("applied", 1)

    def fill(self, trade_id: str, fill: PlainFill) -> Answer:
        trade = self.trades[trade_id]
        if trade.is_archived:
            return Answer("IllegalTransition")
        booked = next((each for each in trade.fills if each.fill_id == fill.fill_id), None)
        if booked is not None:
            return self._same(trade) if booked == fill else Answer("IdempotencyConflict")
        if trade.status in FINAL or fill.amount > trade.room(fill.role):
            return Answer("IllegalTransition")
        claim = (*trade.market, fill.fill_id)
        if self.claims.setdefault(claim, trade_id) != trade_id:
            return Answer("IdempotencyConflict")
        return self._book(trade, fill)

    def close(self, trade_id: str, fill: PlainFill, *, everything: bool) -> Answer:
        trade = self.trades[trade_id]
        if trade.is_archived:
            return Answer("IllegalTransition")
        left = trade.filled - trade.closed
        if trade.status not in OPEN or not left or (not everything and fill.amount > left):
            return Answer("IllegalTransition")
        return self._book(trade, fill._replace(amount=left if everything else fill.amount))

    def set_stop_loss(self, trade_id: str, value: Fraction, expected_version: int | None) -> Answer:
        trade = self.trades[trade_id]
        if trade.is_archived:
            return Answer("IllegalTransition")
        if expected_version not in (None, trade.version):
            return Answer("VersionMismatch")
        if trade.stop_loss == value:
            return self._same(trade)
        trade.stop_loss = value
        return self._applied(trade)

    def set_status(self, trade_id: str, status: str) -> Answer:
        trade = self.trades[trade_id]
        if trade.is_archived:
            return Answer("IllegalTransition")
        is_order = trade.status in ("pending", "submitted")
        is_entered = trade.status in ("filled", "partially_closed")
        if status == trade.status or (status == "cancelled" and is_entered and trade.is_shrunk):
            return self._same(trade)
        if status == "cancelled" and is_entered and trade.room("entry"):
            trade.is_shrunk = True
        elif status == "cancelled" and trade.status == "partially_filled":
            trade.is_shrunk, trade.status = True, "filled"
        elif status == "filled" and (is_order or trade.status == "partially_filled"):
            self._fill_rest(trade)
        elif (status in ("cancelled", "expired", "rejected") and is_order) or (
            status == "submitted" and trade.status == "pending"
        ):
            trade.status = status
        else:
            return Answer("IllegalTransition")
        return self._applied(trade)

    def report(self, trade_id: str, pnl: Fraction, as_of: int) -> Answer:
        """A reported PnL, with the word that the trade is completed."""
        trade = self.trades[trade_id]
        if trade.is_archived:
            return Answer("IllegalTransition")
        if as_of < trade.reported_at:
            return Answer("stale", trade.version)
        if trade.status in LATE or trade.status == "rejected":
            return Answer("IllegalTransition")
        if trade.status == "completed" and trade.reported == pnl:
            return self._same(trade)
        if trade.status in ("pending", "submitted"):
            self._fill_rest(trade)
        trade.reported, trade.reported_at, trade.status = pnl, as_of, "completed"
        return self._applied(trade)

    def repeat(self, trade_id: str | None) -> Answer:
        """A command that was applied comes again; None: one about balances."""
        if trade_id is None:
            return Answer("duplicate")
        return self._same(self.trades[trade_id])

    def archive(self) -> None:
        """What is final becomes so for good, and lets go of its key and fills."""
        for trade in self.trades.values():
            if trade.status in FINAL | LATE:
                trade.is_archived = True
        gone = {trade.trade_id for trade in self.trades.values() if trade.is_archived}
        self.keys = {key: owner for key, owner in self.keys.items() if owner not in gone}
        self.claims = {claim: owner for claim, owner in self.claims.items() if owner not in gone}

    def tell_tokens(self, user_id: str, told: dict[str, Fraction], as_of: int, *, complete: bool) -> Answer:
        known = self.tokens.get(user_id, {})
        wanted = {**dict.fromkeys(known if complete else (), Fraction()), **told}
        late = {asset for asset in wanted if asset in known and as_of < known[asset][1]}
        after = known | {asset: (amount, as_of) for asset, amount in wanted.items() if asset not in late}
        if after == known:
            return Answer("stale" if late else "duplicate")
        self.tokens[user_id] = after
        return Answer("applied")

    def _fill_rest(self, trade: PlainTrade) -> None:
        name = f"{trade.trade_id}:{'rest' if trade.filled else 'entry'}"
        rest, price = trade.ordered - trade.filled, Fraction(trade.given["price"])
        trade.fills.append(PlainFill(name, "entry", rest, price, Fraction()))
        trade.status = "filled"

    def _book(self, trade: PlainTrade, fill: PlainFill) -> Answer:
        before = trade.status
        trade.fills.append(fill)
        if trade.closed:
            trade.status = "completed" if trade.filled == trade.closed else "partially_closed"
        else:
            trade.is_shrunk = trade.is_shrunk or before in LATE
            whole = before == "filled" or trade.filled >= trade.amount
            trade.status = "filled" if whole else "partially_filled"
        return self._applied(trade)

    @staticmethod
    def _applied(trade: PlainTrade) -> Answer:
        trade.version += 1
        return Answer("applied", trade.version)

    @staticmethod
    def _same(trade: PlainTrade) -> Answer:
        """What is left of an archived trade is one version more."""
        return Answer("duplicate", trade.version + trade.is_archived)


def summed(trades: Iterable[PlainTrade]) -> dict[str, Any]:
    """What a summary must say of these trades."""
    own = list(trades)
    done = [trade for trade in own if trade.status == "completed"]
    outcomes = [trade.outcome for trade in done]
    return {
        "trade_count": len(own),
        "open": sum(trade.status in OPEN for trade in own),
        "closed": len(done),
        "wins": outcomes.count("win"),
        "losses": outcomes.count("loss"),
        "draws": outcomes.count("flat"),
        "pnl": sum((trade.pnl for trade in own), Fraction()),
        "gross": sum((trade.figures()[0] for trade in own), Fraction()),
        "net": sum((trade.figures()[1] for trade in own), Fraction()),
        "profit": sum((trade.pnl for trade in done if trade.pnl > 0), Fraction()),
        "loss": -sum((trade.pnl for trade in done if trade.pnl < 0), Fraction()),
        "volume": sum((trade.volume for trade in own), Fraction()),
    }


def _rounded(exact: Fraction) -> Fraction:
    return Fraction(round(exact * UNITS), UNITS)
