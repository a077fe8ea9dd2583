"""The short way to a clean trade: whatever it lets pass, the rules themselves find nothing in."""

from __future__ import annotations

import decimal
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trade_builders import NOW_US, new_fill, new_trade
from tests.trade_histories import histories
from tradepool.audit.rules.trade_rules import (
    AHEAD_MAX_US,
    OPEN_QUIET_US,
    PENDING_MAX_US,
    check_trade,
)
from tradepool.audit.sound_trades import is_sound
from tradepool.model.books import BLANK
from tradepool.model.kinds import Market, Role, Side, Status, TradeOutcome
from tradepool.model.pnl import DERIVED_FIELDS, book_fill, refigure
from tradepool.model.trade import Fill, Trade

LIMIT = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LATER_US = NOW_US + 10**6 * 1_000_000
STEP = Decimal("1e-8")
WIDE = Decimal("1e85")

_near = st.sampled_from(["0", "1", "-1", "0.5", "1e-8", "1e-18", "2000", "1e85", "1e-95", "NaN", "Infinity"])
_moved = st.sampled_from([STEP, -STEP, Decimal(1), Decimal(-1), WIDE])
_FINE = {
    "side": st.sampled_from(Side),
    "market": st.sampled_from(Market),
    "status": st.sampled_from(Status),
    "outcome": st.none() | st.sampled_from(TradeOutcome),
    "symbol": st.sampled_from(["ETH/USDT", "ETH/USDT:USDT", "ETH/BTC", "ETHUSDT", "", "ETH/ETH"]),
    "fee_unpriced": st.booleans(),
    "schema_version": st.sampled_from([0, 1, 2]),
    "fees": st.dictionaries(st.sampled_from(["USDT", "ETH"]), _near.map(Decimal), max_size=2),
}
_TIMES = ("created_at", "opened_at", "closed_at", "updated_at")
_OTHERS = {"roi_net", "pnl_reported", *_FINE, *_TIMES}
_AMOUNTS = sorted(
    name
    for name, field in ((each.name, each) for each in msgspec.structs.fields(Trade))
    if field.type is Decimal and name not in _OTHERS
)
_FILL_FIELDS = {
    "role": st.sampled_from(Role),
    "fee_currency": st.sampled_from([None, "USDT", "ETH", "BNB", "BTC"]),
    "at": st.sampled_from([0, NOW_US, LATER_US, LATER_US + AHEAD_MAX_US + 1]),
    "fee_price": st.none() | _near.map(Decimal),
    **dict.fromkeys(("amount", "price", "fee"), _near.map(Decimal)),
}


def usual(*fills: Fill, **fields: object) -> Trade:
    trade = new_trade(**{"amount": 2, **fields})
    for fill in fills:
        trade = book_fill(trade, fill)
    return trade


BOUGHT, SOLD = new_fill("f1", "entry", 2, 2000, fee="4"), new_fill("f2", "exit", 2, 2100, fee="-0.5")
PARTS = (new_fill("f1", "entry", 1, "1999.5"), new_fill("f2", "entry", 1, 2000), new_fill("f3", "exit", 2, 1))
USUAL = {
    "pending": usual(),
    "entered": usual(new_fill("f1", "entry", 1, 2000)),
    "entered, with a fee": usual(BOUGHT),
    "flat": usual(*PARTS),
    "flat, with fees": usual(BOUGHT, SOLD),
    "flat short": usual(BOUGHT, SOLD, side="sell", market="linear", symbol="ETH/USDT:USDT", leverage=3),
    "contracts": usual(BOUGHT, SOLD, market="linear", symbol="ETH/USDT:USDT", contract_size="0.1"),
    "funded": refigure(
        msgspec.structs.replace(
            usual(BOUGHT, SOLD, market="linear", symbol="ETH/USDT:USDT"),
            funding=Decimal("-0.125"),
            interest=Decimal("0.5"),
        )
    ),
    "a funded margin of spot": refigure(msgspec.structs.replace(usual(BOUGHT, SOLD), funding=Decimal(2))),
    "funded, open": refigure(msgspec.structs.replace(usual(BOUGHT), funding=Decimal("0.1"))),
}


def at(fill: Fill, **fields: object) -> Fill:
    return msgspec.structs.replace(fill, **fields)


ENTRY = at(BOUGHT, fee=Decimal(0))
WIDE_BUY = at(
    BOUGHT, amount=Decimal(1), price=Decimal("1e85"), fee=Decimal("0.00000000500000000000000000001")
)
WIDE_SALE = at(SOLD, amount=Decimal(1), price=Decimal("1e85"), fee=Decimal(0))
SPOT = {"market": Market.SPOT, "symbol": "ETH/USDT"}
AHEAD = NOW_US + AHEAD_MAX_US + 1
FAULTS: dict[str, tuple[Trade, dict[str, object]]] = {
    "a schema to come": (USUAL["flat"], {"schema_version": 2}),
    "a reported result that differs": (USUAL["flat"], {"pnl_reported": Decimal(999)}),
    "filled without a fill": (USUAL["pending"], {"status": Status.FILLED}),
    "less than nothing ordered": (USUAL["pending"], {"amount": Decimal(-1)}),
    "figures of another market": (USUAL["entered"], {"market": Market.INVERSE}),
    "opened before it was created": (USUAL["flat"], {"opened_at": NOW_US - 1}),
    "closed before it was opened": (USUAL["flat"], {"closed_at": NOW_US - 1}),
    "changed in the future": (USUAL["flat"], {"updated_at": AHEAD}),
    "closed in the future": (USUAL["flat"], {"closed_at": AHEAD}),
    "filled in the future": (USUAL["entered"], {"fills": (at(USUAL["entered"].fills[0], at=AHEAD),)}),
    "a fill of less than nothing": (
        USUAL["entered"],
        {"fills": (at(ENTRY, amount=Decimal(2)), at(ENTRY, amount=Decimal(-1)))},
    ),
    "a fee in another coin": (
        USUAL["entered, with a fee"],
        {"fills": (at(BOUGHT, fee_currency="ETH"),)},
    ),
    "left before it was entered": (USUAL["flat"], {"fills": USUAL["flat"].fills[::-1]}),
    "cancelled with a fill": (USUAL["entered"], {"status": Status.CANCELLED}),
    "expired with a result": (USUAL["flat"], {"status": Status.EXPIRED}),
    "a half that counts as all": (
        USUAL["flat, with fees"],
        {
            "fills": (BOUGHT, at(SOLD, amount=Decimal(1), price=Decimal(4200))),
            "closed": Decimal(1),
            "status": Status.PARTIALLY_CLOSED,
        },
    ),
    "a fee in a coin that a spot trade does not settle in": (
        usual(
            at(BOUGHT, fee_currency="BTC"),
            at(SOLD, fee_currency="BTC"),
            market="linear",
            symbol="ETH/USDT:BTC",
        ),
        {"market": Market.SPOT},
    ),
    "a spot trade that was sold first": (USUAL["flat short"], SPOT),
    "a spot trade in contracts": (USUAL["contracts"], SPOT),
    "cash that no sum can hold": (usual(WIDE_BUY, WIDE_SALE, amount=1), {}),
}


def findings(trade: Trade, now_us: int) -> list[object]:
    """What the rules say; that they cannot say anything is a finding too."""
    try:
        return [*check_trade(trade, now_us=now_us)]
    except (ArithmeticError, ValueError) as problem:
        return [problem]


@st.composite
def mutated(draw: st.DrawFn) -> Trade:
    """A trade, mostly a usual one, with one field changed, or one field of one of its fills."""
    trade = draw(st.sampled_from(sorted(USUAL)).map(USUAL.__getitem__) | histories())
    for _ in range(draw(st.integers(1, 2))):
        if trade.fills and draw(st.booleans()):
            trade = draw(_with_other_fills(trade))
        else:
            trade = msgspec.structs.replace(trade, **draw(_other_field(trade)))
    return trade


def _other_field(trade: Trade) -> st.SearchStrategy[dict[str, object]]:
    def amount(name: str) -> st.SearchStrategy[dict[str, object]]:
        return (_near.map(Decimal) | _moved.map(lambda step: getattr(trade, name) + step)).map(
            lambda value: {name: value}
        )

    def time(name: str) -> st.SearchStrategy[dict[str, object]]:
        known = st.sampled_from([0, NOW_US - 1, NOW_US, LATER_US, LATER_US + AHEAD_MAX_US + 1])
        empty = st.none() if name in {"opened_at", "closed_at"} else st.nothing()
        return (known | empty).map(lambda value: {name: value})

    return st.one_of(
        st.sampled_from(_AMOUNTS).flatmap(amount),
        st.sampled_from(_TIMES).flatmap(time),
        st.sampled_from(sorted(_FINE)).flatmap(lambda name: _FINE[name].map(lambda value: {name: value})),
        st.sampled_from(("roi_net", "pnl_reported")).flatmap(
            lambda name: (st.none() | _near.map(Decimal)).map(lambda value: {name: value})
        ),
    )


def _with_other_fills(trade: Trade) -> st.SearchStrategy[Trade]:
    def changed(place: int, name: str) -> st.SearchStrategy[Trade]:
        def with_value(value: object) -> Trade:
            fills = list(trade.fills)
            fills[place] = msgspec.structs.replace(fills[place], **{name: value})
            return msgspec.structs.replace(trade, fills=tuple(fills))

        return _FILL_FIELDS[name].map(with_value)

    moved = st.sampled_from(
        [
            msgspec.structs.replace(trade, fills=trade.fills[1:]),
            msgspec.structs.replace(trade, fills=trade.fills[::-1]),
            msgspec.structs.replace(trade, fills=(*trade.fills, trade.fills[0])),
        ]
    )
    place = st.integers(0, len(trade.fills) - 1)
    return moved | st.tuples(place, st.sampled_from(sorted(_FILL_FIELDS))).flatmap(lambda at: changed(*at))


@pytest.mark.parametrize("name", USUAL)
def test_usual_trades_are_proved_sound(name):
    assert is_sound(USUAL[name], NOW_US)
    assert findings(USUAL[name], NOW_US) == []


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("field", [field for field in DERIVED_FIELDS if field != "fees"])
def test_no_figure_is_taken_on_trust(name, field):
    trade = USUAL[name]
    value = getattr(trade, field)
    wrong = (
        (TradeOutcome.FLAT if trade.status is Status.COMPLETED else value)
        if field == "outcome"
        else not value
        if field == "fee_unpriced"
        else (value or Decimal(0)) + STEP
    )
    changed = msgspec.structs.replace(trade, **{field: wrong})
    assert is_sound(changed, NOW_US) == (changed == trade)
    assert bool(findings(changed, NOW_US)) == (changed != trade)


@pytest.mark.parametrize("name", USUAL)
def test_fees_are_not_taken_on_trust(name):
    trade = USUAL[name]
    for fees in ({"USDT": Decimal(3)}, {"ETH": Decimal("3.5")}, {}):
        changed = msgspec.structs.replace(trade, fees=fees)
        assert is_sound(changed, NOW_US) == (changed == trade)


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_rule_finds_is_never_proved_sound(name):
    trade, fields = FAULTS[name]
    changed = msgspec.structs.replace(trade, **fields)
    assert findings(changed, NOW_US) != []
    assert not is_sound(changed, NOW_US)


def test_times_are_held_against_the_limits_of_the_rules():
    pending, entered, flat = USUAL["pending"], USUAL["entered"], USUAL["flat"]
    for trade, ages in (
        (pending, {PENDING_MAX_US: True, PENDING_MAX_US + 1: False}),
        (entered, {PENDING_MAX_US + 1: True, OPEN_QUIET_US: True, OPEN_QUIET_US + 1: False}),
        (flat, {2 * OPEN_QUIET_US: True, -AHEAD_MAX_US: True, -AHEAD_MAX_US - 1: False}),
    ):
        latest = max(trade.updated_at, trade.closed_at or 0)
        for age, is_right in ages.items():
            assert is_sound(trade, latest + age) == is_right == (findings(trade, latest + age) == [])


def test_the_figures_of_a_trade_without_fills_are_nothing():
    for field in {*BLANK, "pnl_gross", "pnl_net", "funding", "interest"} - {"fees", "fee_unpriced"}:
        assert not is_sound(msgspec.structs.replace(USUAL["pending"], **{field: STEP}), NOW_US)


@LIMIT
@given(histories())
def test_a_trade_that_is_proved_sound_breaks_no_rule(trade):
    assert not is_sound(trade, LATER_US) or findings(trade, LATER_US) == []


@LIMIT
@given(mutated())
def test_a_changed_trade_that_is_proved_sound_breaks_no_rule(trade):
    assert not is_sound(trade, LATER_US) or findings(trade, LATER_US) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_many_changed_trades_that_are_proved_sound_break_no_rule(trade):
    assert not is_sound(trade, LATER_US) or findings(trade, LATER_US) == []


def test_numbers_that_no_sum_can_hold_are_left_to_the_rules():
    trade = usual(BOUGHT, SOLD)
    fills = tuple(msgspec.structs.replace(fill, fee=Decimal("1e-95")) for fill in trade.fills)
    assert not is_sound(msgspec.structs.replace(trade, fills=fills, amount=WIDE), NOW_US)
    assert not is_sound(msgspec.structs.replace(trade, amount=Decimal("NaN")), NOW_US)
    assert decimal.getcontext().prec == decimal.DefaultContext.prec
