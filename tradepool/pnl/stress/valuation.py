"""Stress tests: what the open positions gain or lose in hypothetical scenarios.

A stress test values net positions (netting.py), so its cost is their number times that of the scenarios,
however many trades they are made of. Each is valued as a mark values a trade: value and exit fee are
rounded half to even at 10⁻⁸, every sum is exact. The one difference from a mark is that this happens once
for a net position and not once for each trade in it. A value is off by at most half of 10⁻⁸ a rounding,
and so is a fee, of which the value's rounding shifts another half at most: `base`, and the PnL in a
scenario, of k trades netted into m positions are within (k + m) · 1.5 · 10⁻⁸ of the mark's, without fees
within (k + m) · 0.5 · 10⁻⁸, and equal to the mark's where every trade is a net position of its own. A
change is the difference of two such figures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from itertools import chain

import numpy as np

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.stress.blocks import BlockRisks, Matrix, Total
from tradepool.pnl.stress.exact_rows import Cost, ExactResults, ExactRows
from tradepool.pnl.stress.kernels import Kernel
from tradepool.pnl.stress.netting import Net, NetRow
from tradepool.pnl.stress.results import Risk, Single, SingleColumns, StressTest, UserRisks, risk_of
from tradepool.pnl.stress.risk import Tail, TailColumns, tail_of
from tradepool.pnl.stress.scenarios import Scenario, ScenarioPrices
from tradepool.pnl.stress.tables import build_scenario_tables
from tradepool.pnl.sums import LIMB_BITS
from tradepool.pnl.tables import usable_prices

__all__ = ["stress"]


def stress(
    net: Net,
    prices: Mapping[str, Decimal],
    scenarios: Mapping[str, Scenario],
    at: int,
    *,
    confidence: Decimal,
    users: Collection[str] = (),
    kernel: Kernel,
) -> StressTest:
    """Value `net` at `prices` (by symbol, those of time `at`) and in each of `scenarios` (by name).

    Every user has his risk in the result; those in `users` their changes in every scenario as well.

    Raises: InvalidTrade naming a symbol whose price is not a finite Decimal above 0, what is wrong with a
        scenario (as `ScenarioPrices`), or a confidence that is none.
    """
    usable, missing = usable_prices(net.symbols(), prices)
    tail = Tail(len(scenarios), confidence)
    shifted = ScenarioPrices(usable, scenarios)
    tables = build_scenario_tables(net, shifted, set(usable), len(scenarios))
    is_fitting = tables.fitting(net)
    matrix = Matrix(net, tables, np.flatnonzero(is_fitting))
    outside = map(net.row, np.flatnonzero(~is_fitting & tables.priced[net.lane]).tolist())
    exact = ExactRows(_priced(chain(outside, net.rows), usable), shifted)
    work = partial(matrix.risks, tail=tail, kernel=kernel, exact=exact, kept=frozenset(users))
    with ThreadPoolExecutor(kernel.threads, thread_name_prefix="stress") as pool:
        blocks = list(pool.map(work, matrix.blocks()))
    results = _exact_results(matrix, blocks, exact, tail, users)
    names = tuple(scenarios)
    return StressTest(
        at=at,
        confidence=confidence,
        scenarios=names,
        fleet=_fleet(blocks, results, tail, names),
        users=_users(matrix, blocks, results, tail, names),
        missing=missing,
        unheld=tuple(sorted(shifted.named() - net.symbols())),
    )


def _priced(rows: Iterable[NetRow], prices: Mapping[str, Decimal]) -> Iterable[NetRow]:
    return (row for row in rows if row.symbol in prices)


def _exact_results(
    matrix: Matrix, blocks: Iterable[BlockRisks], exact: ExactRows, tail: Tail, users: Collection[str]
) -> ExactResults:
    """Those of the blocks together with the groups that are in none."""
    results = ExactResults()
    for block in blocks:
        results.absorb(block.exact)
    in_blocks = set(matrix.keys)
    for key in exact:
        if key not in in_blocks:
            results.add(key, exact, [0] * (tail.count + 1), Cost(0, 0), tail, keep=key[0] in users)
    return results


def _fleet(
    blocks: Iterable[BlockRisks], results: ExactResults, tail: Tail, names: Sequence[str]
) -> dict[str, Risk]:
    totals: dict[str, Total] = {}
    for block in blocks:
        for currency, total in block.totals.items():
            known = totals.get(currency)
            totals[currency] = total if known is None else known.plus(total)
    fleet = {}
    for currency in sorted(totals.keys() | results.totals.keys()):
        total = totals.get(currency, _nothing(tail))
        exact = results.totals.get(currency, [0] * (tail.count + 1))
        values = [value + own for value, own in zip(total.values(), exact, strict=True)]
        changes = [value - values[0] for value in values[1:]]
        trades = total.trades + results.trades.get(currency, 0)
        single = Single(values[0] - total.cost, trades, tail_of(changes, tail))
        fleet[currency] = risk_of(single, tail, names, changes)
    return fleet


def _users(
    matrix: Matrix, blocks: Sequence[BlockRisks], results: ExactResults, tail: Tail, names: Sequence[str]
) -> UserRisks:
    values = chain.from_iterable(block.base.tolist() for block in blocks)
    halves = zip(values, matrix.cost_high.tolist(), matrix.cost_low.tolist(), strict=True)
    base = [value - (high << LIMB_BITS) - low for value, high, low in halves]
    tails = TailColumns.joined(block.tails for block in blocks)
    changes: dict[tuple[str, str], Sequence[int] | Ints] = dict(results.changes)
    for block in blocks:
        changes |= block.changes
    columns = SingleColumns(base, matrix.trades, tails)
    return UserRisks(matrix.keys, columns, results.singles, changes, tail, names)


def _nothing(tail: Tail) -> Total:
    return Total(np.zeros(tail.count + 1, np.int64), np.zeros(tail.count + 1, np.int64), 0, 0)
