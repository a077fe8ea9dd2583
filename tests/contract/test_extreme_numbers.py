"""The largest and the smallest numbers through a real pool: exact in the trade, the sums and the audit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

from tradepool import TradePool

AMOUNTS = ("0.00000001", "1e15", "999999999999999.99999999")
PRICES = (("1e6", "1e-12"), ("1e-12", "1e6"), ("0.000000000003", "0.000000000007"))
MARKETS: dict[str, dict[str, str]] = {
    "spot": {"symbol": "A/B"},
    "linear": {"symbol": "A/B:B", "side": "sell"},
    "inverse": {"symbol": "A/B:A", "contract_size": "1"},
}
FEES = Fraction("0.0000011")
HALF_A_UNIT = Fraction(1, 2 * 10**8)


def round_trip(market: str, amount: str, entry: str) -> dict[str, Any]:
    told = {"user_id": market, "market": market, "side": "buy", "status": "filled", "fee": "0.000001"}
    return told | {"amount": amount, "price": entry} | MARKETS[market]


def gross(market: str, amount: str, entry: str, leave: str) -> Fraction:
    quantity, opened, closed = (Fraction(Decimal(number)) for number in (amount, entry, leave))
    if market == "inverse":
        return quantity / opened - quantity / closed
    return (quantity * closed - quantity * opened) * (-1 if market == "linear" else 1)


def test_numbers_at_both_ends_are_exact_in_trades_sums_and_audit(server_binary, tmp_path):
    sums = dict.fromkeys(MARKETS, Fraction(0))
    with TradePool.embedded(tmp_path / "pool", shard_count=1) as pool:
        for market, amount, (entry, leave) in product(MARKETS, AMOUNTS, PRICES):
            trade_id = pool.add_trade(round_trip(market, amount, entry)).trade_id
            pool.close_trade(trade_id, leave, fee="0.0000001")
            trade = pool.get_trade(trade_id)
            exact = gross(market, amount, entry, leave) - FEES
            assert abs(Fraction(trade.pnl) - exact) <= HALF_A_UNIT
            assert (trade.status, trade.open_cost, trade.pnl_cash) == ("completed", 0, trade.pnl)
            sums[market] += Fraction(trade.pnl)
        for market, total in sums.items():
            assert Fraction(pool.get_user_summary(market).pnl) == total
        assert pool.check_all_trades(deep=True).ok
