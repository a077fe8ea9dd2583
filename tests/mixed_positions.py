"""Positions of every kind at prices of every size: spot, linear and inverse, fees and rebates, dust."""

from __future__ import annotations

from decimal import Decimal

from tests.pnl_oracle import position

__all__ = ["PRICES", "random_positions"]

PRICES = {
    "BTC/USDT": Decimal("64000.12"),
    "SHIB/USDT": Decimal("0.000012345678"),
    "BTC/USD:BTC": Decimal("63999.5"),
    "ETH/USD:ETH": Decimal("3333.333333"),
    "BTC/IDR": Decimal(1_034_567_890),
    "DUST/USDT": Decimal("0.000000000000000003"),
    "ETH/USDT": Decimal("3210.7"),
}
_MARKETS = {"BTC/USD:BTC": ("inverse", "BTC"), "ETH/USD:ETH": ("inverse", "ETH"), "BTC/IDR": ("spot", "IDR")}
_FEES = ("0", "0.0004", "0.001", "-0.00025", "0.0000001", "0.00012345", "1", "-1", "1.5")


def random_positions(count, *, rng, users, magnitudes, places):
    """Positions of some users in all symbols: amounts of 10 to the power of `magnitudes`, in `places`."""
    for number in range(count):
        symbol = rng.choice(list(PRICES))
        market, currency = _MARKETS.get(symbol, ("linear", "USDT"))
        amount = Decimal(10) ** rng.randint(*magnitudes) * Decimal(str(rng.uniform(-1, 1)))
        yield position(
            f"t{number}",
            f"{amount:.{rng.choice(places)}f}",
            f"{rng.uniform(-1e6, 1e6):.{rng.choice((2, 8, 10))}f}",
            user_id=f"u{rng.randrange(users)}",
            currency=currency,
            symbol=symbol,
            market=market,
            contract_size=rng.choice(("1", "1", "10", "0.001")),
            fee_rate=rng.choice(_FEES),
        )
