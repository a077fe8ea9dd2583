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
from tradepool.model.blocks import Block, block_from_counters
from tradepool.model.codec import encode_trade
from tradepool.model.counters import ALL_SOURCES, TRADES, add_counters, contribution, grouped
from tradepool.model.facts import fact_of
from tradepool.model.fold import Fold, Statistics
from tradepool.model.kinds import Source
from tradepool.model.trade import Trade
from tradepool.model.user_fold import UserFold

__all__ = ["Summary", "check_choice", "summarise", "summary_from_counters"]


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
) -> Summary:
    """The summary of a user's trades, given in any order and read once; the definition of what one is.

    Args:
        trades: all trades of the user, each once; memory grows by a few numbers for each.
        user_id: whose they are.
        source: one source, or "all" to mix them; None is his only source, or `real` if he has several.
        currency: the settlement currency of the top figures; None is the one with most trades.
        starting_balance: what relative drawdown and growth start from, in that currency, to 18 places; None
            is the sum of the trades' deposits, and without any those figures stay None.

    Raises: InvalidTrade for a source that does not exist.
    """
    check_choice(source, currency)
    counters: dict[str, int] = {}
    facts = []
    for trade in trades:
        add_counters(counters, contribution(trade))
        facts.append(fact_of(encode_trade(trade)))
    return summary_from_counters(
        counters,
        user_id=user_id,
        source=source,
        currency=currency,
        fold=UserFold(facts),
        starting_balance=starting_balance,
    )


def summary_from_counters(
    counters: Mapping[str, int],
    *,
    user_id: str,
    source: Source | str | None = None,
    currency: str | None = None,
    fold: UserFold | None = None,
    starting_balance: Decimal | None = None,
) -> Summary:
    """The summary that a user's counters make; its statistics come from `fold`, and are None without.

    The rest is as `summarise` has it. Raises: InvalidTrade as `check_choice`.
    """
    check_choice(source, currency)
    groups = grouped(counters)
    chosen = _chosen_source(groups, source)
    blocks = _of_source(groups, chosen)
    top = _top_currency(blocks) if currency is None else currency
    statistics: Mapping[str, Statistics] = {}
    nothing = None
    if fold is not None:
        balances = {} if starting_balance is None else {top: starting_balance}
        statistics, nothing = fold.statistics(chosen, balances), Fold().statistics(starting_balance)
    by_currency = {
        name: block_from_counters(blocks[name], chosen, name, statistics.get(name, nothing))
        for name in sorted(blocks)
    }
    uppermost = by_currency.get(top) or block_from_counters({}, chosen, top, nothing)
    counted = sum(block.trade_count for block in by_currency.values())
    return Summary(
        **msgspec.structs.asdict(uppermost),
        user_id=user_id,
        other_sources=_other_sources(groups, chosen),
        by_currency=by_currency,
        archived_left_out=0 if fold is None else max(counted - fold.trade_count(chosen), 0),
    )


def check_choice(source: object, currency: object) -> None:
    """Make sure that there can be such a summary.

    Raises: InvalidTrade for a source that does not exist, or a currency that is no text.
    """
    if source is not None and (not isinstance(source, str) or source not in _SOURCES):
        cure = f"one of {', '.join(_SOURCES)}"
        raise InvalidTrade("unknown source", field="source", value=source, cure=cure)
    if currency is not None and not isinstance(currency, str):
        raise InvalidTrade("not a text", field="currency", value=currency, cure="a coin, like USDT")


_Names = Mapping[str, int]
_Groups = Mapping[str, Mapping[str, _Names]]
"""Counters by source, currency and name."""

_SOURCES = (*(source.value for source in Source), ALL_SOURCES)


def _chosen_source(groups: _Groups, source: Source | str | None) -> str:
    """As asked, else the user's only one, else `real`."""
    if source is not None:
        return str(source)
    used = [name for name, of_source in groups.items() if of_source]
    return used[0] if len(used) == 1 else Source.REAL.value


def _of_source(groups: _Groups, source: str) -> Mapping[str, _Names]:
    """The counters of a source by currency; those of "all" added up."""
    if source != ALL_SOURCES:
        return groups.get(source, {})
    total: dict[str, dict[str, int]] = {}
    for of_source in groups.values():
        for currency, names in of_source.items():
            add_counters(total.setdefault(currency, {}), names)
    return total


def _top_currency(blocks: Mapping[str, _Names]) -> str:
    return min(blocks, key=lambda currency: (-blocks[currency][TRADES], currency), default="")


def _other_sources(groups: _Groups, source: str) -> dict[str, int]:
    return {
        name: sum(names[TRADES] for names in of_source.values())
        for name, of_source in sorted(groups.items())
        if of_source and source not in (ALL_SOURCES, name)
    }
