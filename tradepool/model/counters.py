"""What one trade adds to its user's counters: integers that may be added in any order.

A key is `<source>|<currency>|<name>`, the currency (and the one in `fee:<currency>`) percent-encoded,
so that no text a caller chose can be taken for another key or end in the store's limb mark `~`.
Amounts are scaled: 1e-8 units, except the three sums of reported PnL, which keep 18 places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from tradepool.model.kinds import Source, Status, TradeOutcome
from tradepool.model.money import CONTEXT, DECIMALS_MAX, ONE, ZERO, canonical, plus, to_units
from tradepool.model.trade import OPEN_STATUSES, Trade
from tradepool.model.valuation import settlement

__all__ = [
    "ALL_SOURCES",
    "FEE_PREFIX",
    "TRADES",
    "CounterKey",
    "add_counters",
    "closed_outcome",
    "contribution",
    "from_fine_units",
    "grouped",
    "parse_key",
    "reported_verdict",
    "to_fine_units",
]

ALL_SOURCES = "all"
"""Asks for every source mixed."""
FEE_PREFIX = "fee:"
TRADES = "trades"
"""The counter of all trades, whatever became of them."""

# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_COMPLETED = Status.COMPLETED
_NAME_OF = {TradeOutcome.WIN: "win", TradeOutcome.LOSS: "loss", TradeOutcome.FLAT: "flat"}
_TEXTS_CACHED = 4096


class CounterKey(NamedTuple):
    """A counter's key, taken apart and decoded."""

    source: str
    currency: str
    name: str


def contribution(trade: Trade) -> dict[str, int]:
    """What `trade` counts for: the sum over a user's trades is exactly his counters.

    Names: trades, open, closed, win, loss, flat, reported_wins, reported_losses and reported_draws (by
    `reported_verdict`), reported_gains and reported_falls (by the sign of the reported PnL; all counts);
    pnl (the trade's `pnl`, realised so far), net and gross (computed figures), profit, loss_sum,
    gross_profit, gross_loss (closed trades, losses positive), funding, interest, volume (entry and exit
    notional), deposit, fee:<currency> (1e-8); reported, reported_profit, reported_loss (1e-18). Zeros are
    left out.
    """
    outcome = closed_outcome(trade.status, trade.outcome, trade.pnl)
    counts = {TRADES: 1, "open": int(trade.status in OPEN_STATUSES)}
    if outcome is not None:
        counts["closed"] = counts[_NAME_OF[outcome]] = 1
    _count_money(counts, trade, closed=outcome is not None)
    if trade.pnl_reported is not None:
        counts |= _reported(trade, trade.pnl_reported)
    prefix = _prefix(trade.source, trade.market, trade.symbol)
    return {prefix + name: number for name, number in counts.items() if number}


def closed_outcome(status: Status, outcome: TradeOutcome | None, pnl: Decimal) -> TradeOutcome | None:
    """How a completed trade of that PnL ended, None for one that is not completed."""
    if status != _COMPLETED or outcome is not None:
        return outcome if status == _COMPLETED else None
    units = to_units(pnl)
    return TradeOutcome.WIN if units > 0 else TradeOutcome.LOSS if units < 0 else TradeOutcome.FLAT


def reported_verdict(pnl: Decimal, roi: Decimal | None) -> Decimal:
    """The figure whose sign makes a reported result a win, a loss or a draw.

    That is the reported return where there is one: freqtrade rounds it to 8 places and counts by it, so
    that what is left of a gain after fees can be a draw. One whose sign is opposite to the reported PnL's
    is not believed (old bots wrote such), and the PnL decides, as it does without one.
    """
    if roi is None:
        return pnl
    is_opposite = (pnl > 0 > roi) or (pnl < 0 < roi)
    return pnl if is_opposite else roi


def add_counters(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add `more` to `total`, in place."""
    for key, number in more.items():
        total[key] = total.get(key, 0) + number


@lru_cache(maxsize=_TEXTS_CACHED)
def parse_key(key: str) -> CounterKey | None:
    """The parts of a counter's key; None for a field that is none (such as the store's revision)."""
    source, bar, rest = key.partition("|")
    currency, second_bar, name = rest.partition("|")
    if not bar or not second_bar:
        return None
    if name.startswith(FEE_PREFIX):
        name = FEE_PREFIX + unquote(name.removeprefix(FEE_PREFIX))
    return CounterKey(source, unquote(currency), name)


def grouped(counters: Mapping[str, int]) -> dict[str, dict[str, dict[str, int]]]:
    """The counters by source, currency and name; currencies without a trade are left out."""
    groups: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for text, number in counters.items():
        key = parse_key(text)
        if key is not None:
            groups[key.source][key.currency][key.name] = number
    return {
        source: {currency: names for currency, names in of_source.items() if names.get(TRADES)}
        for source, of_source in groups.items()
    }


def to_fine_units(amount: Decimal) -> int:
    """`amount` in integer units of 1e-18; what is finer than those, and no record is, is cut off."""
    return int(CONTEXT.scaleb(amount, DECIMALS_MAX))


def from_fine_units(units: int) -> Decimal:
    """The amount that `units` of 1e-18 are worth."""
    return canonical(Decimal(units).scaleb(-DECIMALS_MAX, context=CONTEXT))


def _count_money(counts: dict[str, int], trade: Trade, *, closed: bool) -> None:
    pnl, gross, size = trade.pnl, trade.pnl_gross, trade.contract_size
    volume = plus(trade.entry_cost, trade.exit_value)
    # Most amounts of most trades are 0, and this runs in every commit.
    if pnl:
        counts["pnl"] = to_units(pnl)
    if net := trade.pnl_net:
        counts["net"] = to_units(net)
    if gross:
        counts["gross"] = to_units(gross)
    if trade.funding:
        counts["funding"] = to_units(trade.funding)
    if trade.interest:
        counts["interest"] = to_units(trade.interest)
    if volume:
        counts["volume"] = to_units(volume if size is ONE else CONTEXT.multiply(size, volume))
    if trade.deposit:
        counts["deposit"] = to_units(trade.deposit)
    if closed:
        counts["profit" if pnl > ZERO else "loss_sum"] = abs(counts.get("pnl", 0))
        counts["gross_profit" if gross > ZERO else "gross_loss"] = abs(counts.get("gross", 0))
    for currency, fee in trade.fees.items():
        counts[FEE_PREFIX + _encoded(currency)] = to_units(fee)


def _reported(trade: Trade, pnl: Decimal) -> dict[str, int]:
    verdict = reported_verdict(pnl, trade.roi_reported)
    units = to_fine_units(pnl)
    return {
        "reported": units,
        "reported_profit": max(units, 0),
        "reported_loss": max(-units, 0),
        "reported_gains": int(units > 0),
        "reported_falls": int(units < 0),
        "reported_wins": int(verdict > 0),
        "reported_losses": int(verdict < 0),
        "reported_draws": int(not verdict),
    }


@lru_cache(maxsize=_TEXTS_CACHED)
def _prefix(source: str, market: str, symbol: str) -> str:
    return f"{source}|{_encoded(settlement(market, symbol))}|"


@lru_cache(maxsize=_TEXTS_CACHED)
def _encoded(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E")


# Keeps the vocabulary closed: a source named "all" could not be told from all of them.
assert ALL_SOURCES not in set(Source)
