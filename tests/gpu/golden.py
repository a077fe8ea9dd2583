"""A book and prices that are the same on every machine, hard rows included, and the digest of its marks.

golden.json has the digests. Each backend replays them, and so does a machine with a device:

    python -m tests.gpu.golden      # prints what golden.json has to be, worked out in fractions
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from tests.pnl_oracle import expected_figures, figures, position
from tradepool.pnl.book import Book
from tradepool.pnl.book.lanes import Lane
from tradepool.pnl.marks import mark
from tradepool.pnl.position import Position
from tradepool.pnl.protocol import Backend
from tradepool.pnl.tables import lane_ratio, lots_max_narrow, lots_max_wide

__all__ = ["GOLDEN", "TICKS", "digests_of", "expected_digests"]

GOLDEN = Path(__file__).with_name("golden.json")
SEED = 20260101
ROWS = 1200
LATE_ROWS = 150
REMOVED_EVERY = 11
USERS = 130
SYMBOL_FIGURES = 4
USER_FIGURES = 5
_SPOT = {
    "BTC/USDT": "64000.12",
    "SHIB/USDT": "0.000012345678",
    "BTC/IDR": "1034567890",
    "TIE/USDT": "0.000000005",
    "THIRD/USDT": "0.333333333333333333",
    "UNIT/USDT": "3",
}
_INVERSE = {"BTC/USD:BTC": "63999.5", "ETH/USD:ETH": "3333.333333", "TIE/USD:TIE": "200000000"}
_CURRENCIES = {"BTC/IDR": "IDR", "BTC/USD:BTC": "BTC", "ETH/USD:ETH": "ETH", "TIE/USD:TIE": "TIE"}
_FEES = ("0", "0", "0.0004", "0.001", "-0.00025", "0.0000001", "1", "-1")
_PLAIN = {symbol: Decimal(price) for symbol, price in (_SPOT | _INVERSE).items()}
TICKS: Mapping[str, Mapping[str, Decimal]] = {
    "all priced": _PLAIN,
    "moved": {symbol: price * Decimal("1.0173") for symbol, price in _PLAIN.items()},
    "some unpriced": {symbol: price for symbol, price in _PLAIN.items() if not symbol.startswith("BTC")},
    "beyond int64": {symbol: price * Decimal("1e7") for symbol, price in _PLAIN.items()},
}


def digests_of(backend: Backend) -> dict[str, str]:
    """The digest of every tick on two books, followed by one backend from tick to tick."""
    digests = {}
    for name, hard in (("everyday", False), ("hard", True)):
        first, late, removed = _history(hard=hard)
        book = Book.from_positions(first)
        mark(book, _PLAIN, 0, backend=backend)
        book.upsert(late, 1)
        book.remove(removed)
        for tick, prices in TICKS.items():
            digests[f"{name}, {tick}"] = _digest(figures(mark(book, prices, 0, backend=backend, rows=True)))
    return digests


def expected_digests() -> dict[str, str]:
    """The same by the oracle, which shares no code with the product."""
    digests = {}
    for name, hard in (("everyday", False), ("hard", True)):
        first, late, removed = _history(hard=hard)
        rows = {row.trade_id: row for row in (*first, *late) if row.trade_id not in removed}
        for tick, prices in TICKS.items():
            digests[f"{name}, {tick}"] = _digest(expected_figures(rows.values(), prices))
    return digests


def _history(*, hard: bool) -> tuple[list[Position], list[Position], set[str]]:
    """Positions, then new and changed ones, then the trades that are closed."""
    rng = random.Random(SEED)
    first = [_random_position(rng, f"t{number}", hard=hard) for number in range(ROWS)]
    first += _at_the_guards() if hard else []
    late = [_random_position(rng, f"t{rng.randrange(2 * ROWS)}", hard=hard) for _ in range(LATE_ROWS)]
    late = list({row.trade_id: row for row in late}.values())
    return first, late, {row.trade_id for row in first[::REMOVED_EVERY]}


def _random_position(rng: random.Random, trade_id: str, *, hard: bool) -> Position:
    """Of up to 10⁵ of its currency, or, where that is not `hard` enough, of any size."""
    symbol = rng.choice([*_PLAIN])
    notional = Decimal(rng.randrange(1, 10**7)).scaleb(-2)
    amount = notional * _PLAIN[symbol] if symbol in _INVERSE else notional / _PLAIN[symbol]
    if hard:
        amount = Decimal(rng.randrange(1, 10 ** rng.randrange(1, 13))).scaleb(-rng.choice((0, 2, 6, 8)))
    return position(
        trade_id,
        f"{amount * rng.choice((1, -1)):.8f}",
        str(Decimal(rng.randrange(-(10**13), 10**13)).scaleb(-8)),
        user_id=f"u{rng.randrange(USERS)}",
        currency=_CURRENCIES.get(symbol, "USDT"),
        symbol=symbol,
        market="inverse" if symbol in _INVERSE else "linear",
        fee_rate=rng.choice(_FEES),
    )


def _at_the_guards() -> list[Position]:
    """Rows on both sides of both limits of tables.py, in every symbol and both directions."""
    limits = {symbol: _limits(symbol, price) for symbol, price in _PLAIN.items()}
    return [
        position(
            f"{symbol} {limit} {step} {sign}",
            str(sign * Decimal(limit + step).scaleb(-8)),
            user_id="whale",
            currency=_CURRENCIES.get(symbol, "USDT"),
            symbol=symbol,
            market="inverse" if symbol in _INVERSE else "linear",
            fee_rate="0.0007",
        )
        for symbol in _PLAIN
        for limit, step, sign in product(limits[symbol], (-1, 0, 1), (1, -1))
    ]


def _limits(symbol: str, price: Decimal) -> tuple[int, int]:
    ratio = lane_ratio(Lane(symbol, "", symbol in _INVERSE, 8), price)
    return lots_max_narrow(ratio), lots_max_wide(ratio)


def _digest(marked: Mapping[str, Any]) -> str:
    canonical = {
        "users": sorted(
            [*key, *values[:USER_FIGURES]] for key, values in marked["users"].items() if values[4]
        ),
        "symbols": sorted([*key, *values[:SYMBOL_FIGURES]] for key, values in marked["symbols"].items()),
        "totals": sorted(marked["totals"].items()),
        "rows": sorted(marked["rows"].items()),
        "missing": marked["missing"],
    }
    return hashlib.sha256(json.dumps(canonical, default=list).encode()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(expected_digests(), indent=1))
