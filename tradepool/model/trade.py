"""The trade: one round trip of one user at one venue, immutable, with everything derived from it."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any, Literal

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.fill import Fill
from tradepool.model.kinds import OPEN_STATUSES, Direction, Market, Role, Side, Source, Status, TradeOutcome
from tradepool.model.lots import Lot, match_lots
from tradepool.model.money import CONTEXT, ONE, ZERO, canonical, parse_decimal, quantise, round_ratio
from tradepool.model.plain_form import plain_fields, plain_value
from tradepool.model.symbols import coins_of
from tradepool.model.valuation import Terms, gross, notional, settlement, terms_of

__all__ = [
    "DERIVED_NAMES",
    "OPEN_STATUSES",
    "SCHEMA_VERSION",
    "Direction",
    "Fill",
    "Lot",
    "Market",
    "Role",
    "Side",
    "Source",
    "Status",
    "Trade",
    "TradeOutcome",
]

SCHEMA_VERSION = 1

DERIVED_NAMES = (
    "direction",
    "base_currency",
    "quote_currency",
    "settlement_currency",
    "open_amount",
    "average_entry",
    "average_exit",
    "pnl",
    "pnl_cash",
    "roi",
)
"""What `to_dict` shows beside the stored fields; reading a dictionary back ignores them."""


class Trade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One round trip. Money is in the settlement currency unless said otherwise, times are µs since 1970.

    A bot may leave `trade_id` and `created_at` out: the pool mints the one and puts its time for the other.
    """

    trade_id: str = ""
    user_id: str
    symbol: str
    """ccxt form: `BTC/USDT`, `BTC/USDT:USDT`."""
    side: Side
    amount: Decimal
    """Ordered quantity, in base units or contracts; 0 ≤ closed ≤ filled ≤ amount.

    A further order of an open position (a safety order, an average down) counts in: an update raises it.
    """
    amount_ordered: Decimal | None = None
    """What was ordered at first, where the rest of it was cancelled."""
    account_id: str = "default"
    exchange: str = "unknown"
    market: Market = Market.SPOT
    idempotency_key: str | None = None
    version: int = 1

    filled: Decimal = ZERO
    closed: Decimal = ZERO
    price: Decimal | None = None
    """Limit or expected price, quote per base; None for a market order."""
    contract_size: Decimal = ONE
    leverage: Decimal = ONE
    fills: tuple[Fill, ...] = ()
    entry_cost: Decimal = ZERO
    """Exact Σ q·p of the entries; Σ q/p for inverse contracts."""
    exit_value: Decimal = ZERO
    """The same sum of the exits."""
    open_cost: Decimal = ZERO
    """The part of entry_cost that no exit has taken yet."""
    held_fees: Decimal = ZERO
    """Base coins that fees took out of the holding."""
    entry_fee: Decimal = ZERO
    """Entry fees that have a price."""
    exit_fee: Decimal = ZERO
    """Exit fees that have a price."""
    open_fee: Decimal = ZERO
    """The part of entry_fee that no exit has matched yet."""
    fees: dict[str, Decimal] = {}
    """What venues took, per coin, as they took it."""
    fee_unpriced: bool = False
    """Some fee was paid in a coin without a recorded rate and is in no PnL figure."""
    funding: Decimal = ZERO
    """Total funding; received is positive."""
    interest: Decimal = ZERO
    """Total interest; paid is positive."""

    pnl_gross: Decimal = ZERO
    """Price PnL of what was exited, before fees."""
    pnl_net: Decimal = ZERO
    """Computed PnL, matched: entry fees count pro rata as exits happen."""
    pnl_cash_net: Decimal = ZERO
    """Computed PnL with every fee counted at once; equal to pnl_net when flat."""
    roi_net: Decimal | None = None
    """pnl_net over the entries' cost and fee, times leverage, to 18 places."""
    pnl_reported: Decimal | None = None
    """What somebody else says the PnL is."""
    pnl_as_of: int = 0
    roi_reported: Decimal | None = None

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    liquidation_price: Decimal | None = None
    """The venue's; never computed here."""
    status: Status = Status.PENDING
    outcome: TradeOutcome | None = None
    close_reason: str | None = None
    source: Source = Source.REAL
    strategy: str | None = None
    signals: dict[str, Any] = {}
    signal_metrics: dict[str, Any] = {}
    market_conditions: dict[str, Any] = {}
    symbol_group: str | None = None
    success_label: str | None = None
    deposit: Decimal | None = None
    related_trade_id: str | None = None

    created_at: int = 0
    opened_at: int | None = None
    closed_at: int | None = None
    updated_at: int = 0
    schema_version: int = SCHEMA_VERSION
    extra: dict[str, Any] = {}
    """What the caller gave beyond these fields, untouched."""
    notes: tuple[str, ...] = ()
    """What an auditor should know, oldest first."""
    payload: str = ""
    """16 hex characters that stand for what the caller gave at add."""
    applied: str = ""
    """Short ids of the last 32 applied commands, 16 hex each, newest last."""
    field_times: dict[str, int] = {}
    """`as_of` of the last change of each field changed by an update."""
    quarantine: str | None = None
    """Why nothing may change the trade until somebody releases it; None: it is not in quarantine."""

    @property
    def direction(self) -> Direction:
        """Long for a bought trade, short for a sold one."""
        return Direction.LONG if self.side == Side.BUY else Direction.SHORT

    @property
    def base_currency(self) -> str:
        """The coin that is traded."""
        return coins_of(self.symbol).base

    @property
    def quote_currency(self) -> str:
        """The coin that prices are in."""
        return coins_of(self.symbol).quote

    @property
    def settlement_currency(self) -> str:
        """The coin that PnL is in: the quote, the part after ":", or the base of an inverse contract."""
        return settlement(self.market, self.symbol)

    @property
    def terms(self) -> Terms:
        """What decides how the fills are valued."""
        return terms_of(self.market, self.side, self.symbol, self.contract_size)

    @property
    def open_amount(self) -> Decimal:
        """What is still held (or owed): filled less closed less the fees taken out of the holding.

        Nothing once the trade is completed, also where no exit is known and its result was reported.
        """
        if self.status is Status.COMPLETED:
            return ZERO
        left = CONTEXT.subtract(self.filled, self.closed) if self.closed else self.filled
        return canonical(CONTEXT.subtract(left, self.held_fees) if self.held_fees else left)

    @property
    def average_entry(self) -> Decimal | None:
        """Average entry price of what is open, of all entries once flat; a base fee does not move it."""
        with decimal.localcontext(CONTEXT):
            quantity, cost = self.open_amount, self.open_cost
            if not quantity or not self.closed:
                quantity, cost = self.filled, self.entry_cost
            elif self.held_fees:
                quantity = quantity * self.filled / (self.filled - self.held_fees)
            return self._average(quantity, cost)

    @property
    def average_exit(self) -> Decimal | None:
        """Average exit price; None before any exit."""
        return self._average(self.closed, self.exit_value)

    @property
    def pnl(self) -> Decimal:
        """The matched PnL computed from the fills; the reported one where no exit is known."""
        return self.pnl_net if self.pnl_reported is None or self.closed else self.pnl_reported or ZERO

    @property
    def pnl_cash(self) -> Decimal:
        """The same with every fee counted at once."""
        return self.pnl_cash_net if self.pnl_reported is None or self.closed else self.pnl_reported or ZERO

    @property
    def roi(self) -> Decimal | None:
        """Return on the entries' cost as a fraction (0.05: 5 %); the reported one where no exit is known."""
        return self.roi_reported if self.roi_net is None else self.roi_net

    @property
    def is_open(self) -> bool:
        """Whether the trade can still fill or close."""
        return self.status in OPEN_STATUSES

    def unrealised(self, mark: Decimal | str | float) -> Decimal:
        """Price PnL of the open quantity at `mark`, before fees, to 8 places.

        Raises: InvalidTrade for a mark that is no positive number.
        """
        return quantise(self._open_gross(_positive("mark", mark)))

    def unrealised_net(
        self, mark: Decimal | str | float, exit_fee_rate: Decimal | str | float = 0
    ) -> Decimal:
        """`unrealised` less the open part's entry fees and an exit fee of `exit_fee_rate` of its value.

        Raises: InvalidTrade for a mark that is no positive number, or a rate that is no number.
        """
        price, rate = _positive("mark", mark), parse_decimal("exit_fee_rate", exit_fee_rate)
        with decimal.localcontext(CONTEXT):
            if not self.open_amount:
                return ZERO
            value = notional(Market(self.market), self.open_amount, price) * self.contract_size
            return quantise(self._open_gross(price) - self.open_fee - value * rate)

    def matched_lots(self, method: Literal["fifo", "lifo"] = "fifo") -> tuple[Lot, ...]:
        """The exits matched with the oldest (or newest) entries, as a tax report wants them.

        Raises: InvalidTrade for another method.
        """
        return match_lots(self.fills, self.terms, method)

    def to_dict(self) -> dict[str, Any]:
        """Every field and every derived figure as JSON-able values, decimals as positional text."""
        derived = {name: plain_value(getattr(self, name)) for name in DERIVED_NAMES}
        return plain_fields(self) | derived

    @classmethod
    def from_dict(cls, fields: object) -> Trade:
        """The trade that `to_dict` wrote, field for field; or one from a bot's loose dictionary.

        Raises: InvalidTrade when a field breaks a rule.
        """
        # Intake builds trades and so stands above this module.
        from tradepool.model.intake import trade_from_dict, trade_from_record  # noqa: PLC0415

        if isinstance(fields, dict) and "schema_version" in fields:
            return trade_from_record(fields)
        return trade_from_dict(fields, now_us=0, trade_id=None)

    def _open_gross(self, mark: Decimal) -> Decimal:
        if not self.open_amount:
            return ZERO
        terms = self.terms
        return gross(terms, self.open_cost, notional(terms.market, self.open_amount, mark))

    def _average(self, quantity: Decimal, cost: Decimal) -> Decimal | None:
        if not quantity or not cost:
            return None
        with decimal.localcontext(CONTEXT):
            return round_ratio(quantity / cost if self.market == Market.INVERSE else cost / quantity)


def _positive(field: str, value: object) -> Decimal:
    number = parse_decimal(field, value)
    if number <= 0:
        raise InvalidTrade("not positive", field=field, value=value, cure="a price above 0")
    return number
