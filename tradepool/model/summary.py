"""A user's summary: counts and money of one settlement currency, never two of them mixed.

What is a sum comes from counters (`contribution` of every trade, added up), in the store or in the
fold alike, so the two cannot disagree; what is no sum (`Statistics`) comes only from the fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.blocks import Block, Reported, block_from_counters
from tradepool.model.counters import ALL_SOURCES, add_counters, contribution, trade_counts
from tradepool.model.fold import Fold, Statistics
from tradepool.model.kinds import Source
from tradepool.model.trade import Trade

__all__ = [
    "ALL_SOURCES",
    "Block",
    "Reported",
    "Statistics",
    "Summary",
    "block_from_counters",
    "chosen_source",
    "contribution",
    "summarise",
    "summary_from_counters",
]


class Summary(Block, frozen=True, kw_only=True):
    """A user's figures: those of `currency` at the top, every currency's in `by_currency`."""

    user_id: str
    other_sources: dict[str, int]
    """Trades of the sources that are not in here, by source."""
    by_currency: dict[str, Block]
    archived_left_out: int = 0
    """Archived trades that `statistics` leaves out, here and in `by_currency`: they could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """As `Block.to_dict`, with a block for every currency."""
        return super().to_dict() | {
            "by_currency": {name: block.to_dict() for name, block in self.by_currency.items()}
        }


def summarise(
    trades: Iterable[Trade],
    *,
    user_id: str,
    source: Source | str | None = None,
    currency: str | None = None,
    starting_balance: Decimal | None = None,
    lifetime: Mapping[str, int] | None = None,
) -> Summary:
    """The summary of a user's trades, given in any order and read once.

    Args:
        trades: all trades of the user; memory grows with the closed ones, by a few numbers each.
        user_id: whose they are.
        source: one source, or "all" to mix them; None is his only source, or `real` if he has several.
        currency: the settlement currency of the top figures; None is the one with most trades.
        starting_balance: what relative drawdown and growth start from, in that currency; None is the
            sum of the trades' deposits, and without any those figures stay None.
        lifetime: the user's counters, where `trades` are not all he ever had: counts and sums come from
            these then, and only the statistics from the trades.

    Raises: InvalidTrade for a source that does not exist.
    """
    wanted = _checked(source)
    counters: dict[str, int] = {}
    folds: dict[tuple[str, str], Fold] = {}
    for trade in trades:
        add_counters(counters, contribution(trade))
        if wanted in (None, ALL_SOURCES, trade.source):
            label = ALL_SOURCES if wanted == ALL_SOURCES else str(trade.source)
            folds.setdefault((label, trade.settlement_currency), Fold()).add(trade)
    whole = counters if lifetime is None else lifetime
    chosen = chosen_source(whole, wanted)
    top = _top_currency(whole, chosen) if currency is None else currency
    statistics = {
        name: fold.statistics(starting_balance if name == top else None)
        for (label, name), fold in folds.items()
        if label == chosen
    }
    left_out = sum(trade_counts(whole, chosen).values()) - sum(trade_counts(counters, chosen).values())
    found = _summary(whole, user_id, chosen, top, statistics)
    return msgspec.structs.replace(found, archived_left_out=max(left_out, 0))


def summary_from_counters(
    counters: Mapping[str, int],
    *,
    user_id: str,
    source: Source | str | None = None,
    currency: str | None = None,
) -> Summary:
    """The same summary without its statistics, from the user's counters alone.

    Raises: InvalidTrade for a source that does not exist.
    """
    chosen = chosen_source(counters, source)
    top = _top_currency(counters, chosen) if currency is None else currency
    return _summary(counters, user_id, chosen, top, {})


def chosen_source(counters: Mapping[str, int], source: Source | str | None) -> str:
    """The source a summary is of: as asked, else the user's only one, else `real`.

    Raises: InvalidTrade for a source that does not exist.
    """
    wanted = _checked(source)
    if wanted is not None:
        return wanted
    sources = {key.source for key in trade_counts(counters)}
    return sources.pop() if len(sources) == 1 else Source.REAL.value


def _summary(
    counters: Mapping[str, int], user_id: str, source: str, top: str, statistics: Mapping[str, Statistics]
) -> Summary:
    def block(currency: str) -> Block:
        sums = block_from_counters(counters, source, currency)
        return msgspec.structs.replace(sums, statistics=statistics.get(currency))

    currencies = sorted({key.currency for key in trade_counts(counters, source)})
    return Summary(
        **msgspec.structs.asdict(block(top)),
        user_id=user_id,
        other_sources=_other_sources(counters, source),
        by_currency={currency: block(currency) for currency in currencies},
    )


def _checked(source: Source | str | None) -> str | None:
    if source is None or source == ALL_SOURCES or source in set(Source):
        return None if source is None else str(source)
    choices = ", ".join([*Source, ALL_SOURCES])
    raise InvalidTrade("unknown source", field="source", value=source, cure=f"one of {choices}")


def _top_currency(counters: Mapping[str, int], source: str) -> str:
    totals: dict[str, int] = {}
    for key, number in trade_counts(counters, source).items():
        totals[key.currency] = totals.get(key.currency, 0) + number
    return min(totals, key=lambda currency: (-totals[currency], currency), default="")


def _other_sources(counters: Mapping[str, int], source: str) -> dict[str, int]:
    others: dict[str, int] = {}
    for key, number in trade_counts(counters).items():
        if source not in (ALL_SOURCES, key.source):
            others[key.source] = others.get(key.source, 0) + number
    return dict(sorted(others.items()))
