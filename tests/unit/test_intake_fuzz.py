"""Whatever comes in, a trade or a Rejected comes out."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trade_builders import NOW_US, fill_fields, trade_fields
from tradepool.errors import Rejected
from tradepool.model.changes import add, change
from tradepool.model.codec import pack_trade, unpack_trade
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, UpdateTrade, UpdateTradePnl
from tradepool.model.intake import checked_changes, fill_from_dict, trade_from_dict
from tradepool.model.pnl import recompute
from tradepool.model.times import parse_time
from tradepool.model.trade import Side, Status, Trade

LIMIT = settings(max_examples=70, deadline=None)

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: Any = 0
for _ in range(5000):
    DEEP = [DEEP]
# Printing one of these raises, so no strategy may hold them.
UNPRINTABLE = {"cycle": CYCLE, "deep": DEEP, "huge": 10**5000, "inside": {"a": [10**5000, CYCLE]}}
NASTY = [
    2**64,
    math.nan,
    math.inf,
    5e-324,
    1.7976931348623157e308,
    "1e999",
    "1e-999",
    "\ud800",
    "\x00",
    "",
    b"bytes",
    {1, 2},
    {1: 2},
    {"\ud800": 1},
    object(),
    Decimal("sNaN"),
    Decimal("1e999999"),
    Decimal("-1e-999999"),
    datetime(9999, 12, 31, tzinfo=UTC),
    10**23,
    "0.000000000000000001",
    np.int64(2),
    np.float32(0.5),
    np.datetime64("2025-01-01"),
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=20)
    | st.datetimes()
    | st.sampled_from([*Status, *Side, "executed", "successful", "failed", "USDT", "ETH", "1", "0.5", 2])
    | st.sampled_from(NASTY)
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = [*Trade.__struct_fields__, "timestamp", "pnl", "roi", "fee", "fee_currency", "exit_price", "exit_fee"]
FILL_NAMES = ["fill_id", "id", "role", "side", "amount", "price", "fee", "fee_currency", "fee_price", "at"]
likely_fills = st.fixed_dictionaries({}, optional=dict.fromkeys(FILL_NAMES, junk)).map(
    lambda given_fields: fill_fields("a", "entry", 1, 2000) | given_fields
)
junk_fields = st.dictionaries(
    st.sampled_from(NAMES), junk | st.lists(likely_fills, max_size=2), max_size=4
) | st.dictionaries(st.text(max_size=5) | st.integers(), junk, max_size=3)


def accepted(make: Any) -> Any:
    """What `make` returns, or None when it refuses in a way that can be told as JSON."""
    try:
        return make()
    except Rejected as refusal:
        json.dumps(refusal.as_dict()).encode()
        str(refusal).encode()
        return None


@pytest.mark.parametrize("name", [*NAMES, "mine"])
@pytest.mark.parametrize("kind", UNPRINTABLE)
def test_of_what_cannot_even_be_printed_nothing_but_a_refusal_comes(name, kind):
    fields = trade_fields() | {name: UNPRINTABLE[kind]}
    accepted(lambda: trade_from_dict(fields, now_us=NOW_US))
    accepted(lambda: Trade.from_dict(fields | {"schema_version": 1}))
    accepted(lambda: checked_changes({name: UNPRINTABLE[kind]}))
    accepted(lambda: fill_from_dict(fill_fields("a", "entry", 1, 2) | {name: UNPRINTABLE[kind]}, now_us=1))


@given(junk_fields)
@LIMIT
def test_a_trade_with_junk_in_some_fields_is_taken_or_refused(fields):
    trade = accepted(lambda: trade_from_dict(trade_fields() | fields, now_us=NOW_US, trade_id="t1"))
    if trade is None:
        return
    assert 0 <= trade.closed <= trade.filled <= trade.amount
    assert recompute(trade) == trade
    assert unpack_trade(pack_trade(trade)) == trade
    times = [time for time in (trade.created_at, trade.opened_at, trade.closed_at) if time is not None]
    assert times == sorted(times)
    json.dumps(trade.to_dict(), allow_nan=False)
    assert Trade.from_dict(trade.to_dict()) == trade


@given(junk | junk_fields)
@LIMIT
def test_of_pure_junk_nothing_but_a_refusal_comes(fields):
    accepted(lambda: trade_from_dict(fields, now_us=NOW_US))
    accepted(lambda: Trade.from_dict(fields))
    accepted(lambda: fill_from_dict(fields, now_us=NOW_US))
    accepted(lambda: checked_changes(fields))
    accepted(lambda: parse_time("at", fields))


@given(junk_fields)
@LIMIT
def test_a_record_with_junk_in_some_fields_is_taken_or_refused(fields):
    record = trade_from_dict(trade_fields(exit_price=2100), now_us=NOW_US, trade_id="t1").to_dict()
    accepted(lambda: Trade.from_dict(record | fields))
    accepted(lambda: trade_from_dict(record | fields, now_us=NOW_US))


@given(likely_fills | junk, junk_fields, junk, junk, junk)
@LIMIT
def test_commands_full_of_junk_are_applied_or_refused(fill, changes, price, fee, word):
    base = {"command_id": "c", "as_of": NOW_US, "trade_id": "t1"}
    filled = trade_from_dict(trade_fields(status="filled"), now_us=NOW_US, trade_id="t1")
    pending = trade_from_dict(trade_fields(), now_us=NOW_US, trade_id="t1")
    for trade in (pending, filled):
        for command in (
            AddFill(**base, fill=fill),
            CloseTrade(**base, price=price, fee=fee, fee_currency=word, amount=fee, at=word),
            CloseTrade(**base, price=price),
            UpdateTrade(**base, changes=changes),
            UpdateTradePnl(**base, pnl=price, status=word),
        ):
            done = accepted(lambda: change(trade, command))  # noqa: B023 - called at once
            assert done is None or unpack_trade(pack_trade(done.trade)) == done.trade
    made = AddTrade(command_id="c", as_of=NOW_US, trade=changes)
    accepted(lambda: add(made, trade_id="t1", existing=pending))
