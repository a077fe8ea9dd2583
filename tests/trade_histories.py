"""Random histories of a trade, each made by the commands that a pool takes, with whatever callers give."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.trade_builders import NOW_US, trade_fields
from tradepool.errors import Rejected
from tradepool.model import changes
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, UpdateTrade, UpdateTradePnl
from tradepool.model.trade import Trade

SECOND_US = 1_000_000
_TRADE_ID = "t1"

numbers = st.one_of(
    st.decimals(min_value="0.00000001", max_value="1000", places=8).map(str),
    st.sampled_from(
        ["1", "2", "0.5", "0.000000000000000001", "999999999999999", "123456789.123456789012345678"]
    ),
)
amounts = numbers.filter(lambda number: number != "0E-8")
texts = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], max_codepoint=0x1F600), min_size=1, max_size=12
).filter(lambda text: bool(text.strip()))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
times = st.integers(0, 10**6).map(lambda seconds: NOW_US + seconds * SECOND_US)
fees = st.fixed_dictionaries(
    {},
    optional={
        "fee": st.sampled_from(["0.001", "-0.0005", "0.00000001", "12.5"]),
        "fee_currency": st.sampled_from(["USDT", "ETH", "BNB"]),
        "fee_price": st.sampled_from(["0.5", "612.25"]),
        "order_id": texts,
    },
)
words = st.sampled_from(
    ["pending", "open", "executed", "successful", "failed", "filled", "completed", "canceled", "expired"]
)


@st.composite
def histories(draw: st.DrawFn) -> Trade:
    """A trade after some commands; those that were refused changed nothing."""
    trade = None
    while trade is None:
        trade = _tried(AddTrade(command_id="add", as_of=NOW_US, trade=draw(_orders)), None)
    for number in range(draw(st.integers(0, 6))):
        as_of = NOW_US + (number + 1) * SECOND_US
        trade = _tried(draw(_commands(f"c{number}", as_of)), trade) or trade
    return trade


def _tried(command: Any, trade: Trade | None) -> Trade | None:
    try:
        if trade is None:
            return changes.add(command, trade_id=_TRADE_ID, existing=None).trade
        return changes.change(trade, command).trade
    except Rejected:
        return None


_fills = st.builds(
    lambda role, amount, price, at, fee: {"role": role, "amount": amount, "price": price, "at": at} | fee,
    st.sampled_from(["entry", "entry", "exit"]),
    amounts,
    amounts,
    times,
    fees,
)
_orders = st.builds(
    lambda basic, optional: trade_fields(**basic, **optional),
    st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["ETH/USDT", "ETH/USDT:USDT", "ETH/USD:ETH", "ETH/BTC"]),
            "side": st.sampled_from(["buy", "buy", "sell"]),
            "amount": amounts,
            "price": amounts,
            "contract_size": st.sampled_from(["1", "10", "0.001"]),
        }
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "status": words,
            "fills": st.lists(_fills, max_size=3),
            "fee": st.just("0.25"),
            "exit_price": amounts,
            "pnl": st.sampled_from(["0", "-3.5", "12.000000000000000001"]),
            "roi": st.sampled_from(["N/A", 0.0, "0.05", 0.25]),
            "timestamp": st.sampled_from(["2025-03-20T00:07:00+00:00", 1_742_429_220, 1_742_429_220_000.5]),
            "strategy": texts,
            "exchange": texts,
            "account_id": texts,
            "idempotency_key": texts,
            "signals": json_objects,
            "signal_metrics": json_objects,
            "market_conditions": json_objects,
            "extra": json_objects,
            "leverage": st.sampled_from(["1", "3.5"]),
            "market": st.sampled_from(["spot", "margin", "linear"]),
            "stop_loss": amounts,
            "deposit": st.sampled_from(["0", "1000"]),
            "funding": st.sampled_from(["0", "-0.125"]),
            "source": st.sampled_from(["real", "paper", "backtest", "import"]),
            "opinion": json_values,
            "related_trade_id": texts,
        },
    ),
)


def _commands(command_id: str, as_of: int) -> st.SearchStrategy[Any]:
    about = {"command_id": command_id, "as_of": as_of, "trade_id": _TRADE_ID}
    fill = _fills.map(lambda fields: AddFill(**about, fill=fields))
    close = st.builds(
        lambda price, amount, fee: CloseTrade(**about, price=price, amount=amount, fee=fee),
        amounts,
        st.none() | amounts,
        st.sampled_from(["0", "0.002"]),
    )
    update = st.fixed_dictionaries(
        {},
        optional={
            "status": words,
            "amount": amounts,
            "price": amounts,
            "strategy": st.none() | texts,
            "close_reason": texts,
            "interest": st.just("0.75"),
            "funding": st.just("1.5"),
            "signals": json_objects,
        },
    ).map(lambda changed: UpdateTrade(**about, changes=changed))
    report = st.builds(
        lambda pnl, word: UpdateTradePnl(**about, pnl=pnl, status=word),
        st.sampled_from(["1.5", "-2", "0"]),
        words,
    )
    return st.one_of(fill, fill, close, update, report)
