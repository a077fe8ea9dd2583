"""Stress tests of a book: netted and exact, against float64, in one run.

    python bench/stress.py [--quick] [--trades N] [--scenarios N] [--users N] [--symbols N]

10⁶ trades of 2,000 users in 16 symbols, spot, without exit fees, as the pool has them; 512 scenarios, each a
shock of its own to every symbol. All come to the change of every user in every scenario, and its tail.

Ours, exact: `read_ms` reads the shocks from text, `net_ms` nets the book, `tables_ms` makes prices of shocks
and scales them, `kernel_ms` values every net position in every scenario on one core, `tails_ms` is partition
and sums of all users; `stress_ms` is the whole call, on all cores, without `read_ms` and `net_ms`;
`plain_stress_ms` the same in numpy alone. `values_per_s` is net positions times scenarios over the kernel's
time.

The denominators, wrong in the last digits: `dense_ms` multiplies the amount of every trade with its price in
every scenario in float64 and adds up by user (rows sorted by user, `np.add.reduceat`, a scenario at a time);
`float_ms` does so with the same net positions, in blocks that fit a cache. Neither looks at the tail.
Medians over rounds that alternate.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from measurement import Numbers, median_ratio, medians, rounds_of, run, seconds

from tradepool.marking.stress import stress_question
from tradepool.pnl.book import Book
from tradepool.pnl.position import Position
from tradepool.pnl.stress.blocks import Matrix
from tradepool.pnl.stress.kernels import Kernel, kernel_beside
from tradepool.pnl.stress.netting import Net, net
from tradepool.pnl.stress.risk import Tail, tails_of
from tradepool.pnl.stress.scenarios import Scenario, ScenarioPrices
from tradepool.pnl.stress.tables import ScenarioTables, build_scenario_tables
from tradepool.pnl.stress.valuation import stress

CONFIDENCE = Decimal("0.95")
BLOCK_CELLS = 1 << 15


class Load(NamedTuple):
    """A book, and what happens to its prices."""

    book: Book
    net: Net
    prices: dict[str, Decimal]
    scenarios: dict[str, Scenario]


class Floats(NamedTuple):
    """Amounts of rows sorted by user, as a notebook would have them."""

    amount: np.ndarray
    symbol: np.ndarray
    starts: np.ndarray
    price: np.ndarray
    """By symbol and scenario."""


def load(trades: int, scenarios: int, users: int, symbols: int) -> Load:
    """Longs and shorts of 3 to 10⁵ quote at prices from 10⁻² to 10⁵."""
    rng = np.random.default_rng(5)
    names = [f"S{number}/USDT" for number in range(symbols)]
    prices = {
        name: Decimal(f"{price:.7g}")
        for name, price in zip(names, 10 ** rng.uniform(-2, 5, symbols), strict=True)
    }
    symbol = rng.integers(0, symbols, trades).tolist()
    notional = (10 ** rng.uniform(0.5, 5, trades) * rng.choice([-1, 1], trades)).tolist()
    rows = [
        Position(
            trade_id=f"t{number}",
            user_id=f"u{number % users}",
            currency="USDT",
            symbol=names[symbol[number]],
            market="linear",
            amount=Decimal(f"{notional[number] / float(prices[names[symbol[number]]]):.6f}"),
            cost=Decimal(f"{notional[number]:.8f}"),
        )
        for number in range(trades)
    ]
    shocks = rng.standard_t(4, (scenarios, symbols)).clip(-30, 30) * 0.03
    given = {
        f"day {number}": Scenario(
            shocks={name: Decimal(f"{shock:.6f}") for name, shock in zip(names, of_day, strict=True)}
        )
        for number, of_day in enumerate(shocks.tolist())
    }
    book = Book.from_positions(rows)
    return Load(book, net(book), prices, given)


def tables_of(loaded: Load) -> tuple[ScenarioPrices, ScenarioTables]:
    """Prices in the scenarios, and the tables of them."""
    prices = ScenarioPrices(loaded.prices, loaded.scenarios)
    return prices, build_scenario_tables(loaded.net, prices, set(loaded.prices), len(loaded.scenarios))


def value(matrix: Matrix, kernel: Kernel) -> None:
    """Every net position in every scenario, block by block, and nothing else."""
    for block in matrix.blocks():
        matrix.values(block, kernel)


def floats(loaded: Load, lots: np.ndarray, group: np.ndarray, lane: np.ndarray) -> Floats:
    """Rows in float64."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    exponents = np.array([10.0**-each.exponent for each in loaded.net.lanes])
    prices, _ = tables_of(loaded)
    price = np.array(
        [
            [float(one) for one in prices.of(each.symbol).decimals()]
            if each.symbol
            else [0.0] * (len(loaded.scenarios) + 1)
            for each in loaded.net.lanes
        ]
    )
    return Floats(lots * exponents[lane], lane, starts, price)


def dense(rows: Floats) -> np.ndarray:
    """The value of every user in every scenario, one scenario at a time."""
    return np.stack(
        [np.add.reduceat(rows.amount * price[rows.symbol], rows.starts) for price in rows.price.T.copy()],
        axis=1,
    )


def blocked(rows: Floats) -> list[np.ndarray]:
    """The same, a few users at a time over all scenarios."""
    step = max(1, BLOCK_CELLS // rows.price.shape[1] * len(rows.starts) // len(rows.amount))
    ends = np.append(rows.starts, len(rows.amount))
    sums = []
    for first in range(0, len(rows.starts), step):
        start, stop = ends[first], ends[min(first + step, len(rows.starts))]
        values = rows.price[rows.symbol[start:stop]] * rows.amount[start:stop, None]
        sums.append(np.add.reduceat(values, rows.starts[first : first + step] - start, axis=0))
    return sums


def measure(
    *,
    quick: bool,
    trades: int | None = None,
    scenarios: int | None = None,
    users: int | None = None,
    symbols: int | None = None,
) -> Numbers:
    """Alternate between all of them over one book."""
    trades = trades or (100_000 if quick else 1_000_000)
    loaded = load(trades, scenarios or 512, users or 2000, symbols or 16)
    columns, netted = loaded.book.columns, loaded.net
    order = np.argsort(columns.group, kind="stable")
    every = floats(loaded, columns.lots[order], columns.group[order], columns.code[order] >> 1)
    few = floats(loaded, netted.lots, netted.group, netted.lane)
    kernel, plain = kernel_beside("numba"), kernel_beside("numpy")
    _, tables = tables_of(loaded)
    matrix = Matrix(netted, tables, np.flatnonzero(tables.fitting(netted)))
    tail = Tail(len(loaded.scenarios), CONFIDENCE)
    changes = np.concatenate([matrix.values(block, kernel)[:, 1:] for block in matrix.blocks()])

    texts = {
        name: {"shocks": {symbol: str(by) for symbol, by in scenario.shocks.items()}}
        for name, scenario in loaded.scenarios.items()
    }

    def tested(by: Kernel) -> Callable[[], float]:
        return lambda: seconds(
            lambda: stress(netted, loaded.prices, loaded.scenarios, 0, confidence=CONFIDENCE, kernel=by)
        )

    tested(kernel)()
    rates = rounds_of(
        3 if quick else 5,
        read=lambda: seconds(lambda: stress_question(texts, str(CONFIDENCE), ())),
        net=lambda: seconds(lambda: net(loaded.book)),
        tables=lambda: seconds(lambda: tables_of(loaded)),
        kernel=lambda: seconds(lambda: value(matrix, kernel)),
        plain_kernel=lambda: seconds(lambda: value(matrix, plain)),
        tails=lambda: seconds(lambda: tails_of(changes, tail)),
        stress=tested(kernel),
        plain_stress=tested(plain),
        float=lambda: seconds(lambda: blocked(few)),
        dense=lambda: seconds(lambda: dense(every)),
    )
    middle = medians(rates)
    numbers = {f"{name}_ms": taken_s * 1e3 for name, taken_s in middle.items()}
    return numbers | {
        "net_positions": len(netted.lots),
        "values_per_s": len(netted.lots) * len(loaded.scenarios) / middle["kernel"],
        "dense_to_stress_ratio": median_ratio(rates["dense"], rates["stress"]),
        "float_to_kernel_ratio": median_ratio(rates["float"], rates["kernel"]),
    }


if __name__ == "__main__":
    run(measure)
