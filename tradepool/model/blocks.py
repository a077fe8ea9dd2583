"""The figures of one source and one settlement currency, as the sum of what trades contribute."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.breakdown import Slice
from tradepool.model.counters import FEE_PREFIX, TRADES, from_fine_units
from tradepool.model.fold import Statistics
from tradepool.model.money import from_units
from tradepool.model.plain_form import plain_fields
from tradepool.model.statistics import Tally

__all__ = ["Block", "Reported", "block_from_counters"]

_SUMS = (
    "pnl",
    "profit",
    "net",
    "gross",
    "gross_profit",
    "gross_loss",
    "funding",
    "interest",
    "volume",
    "deposit",
)
_RATIOS = (
    "win_rate",
    "average_win",
    "average_loss",
    "payoff",
    "profit_factor",
    "expectancy",
    "expectancy_ratio",
)


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """PnL as others reported it, at all 18 decimal places, over the trades that carry such a figure.

    `wins`, `losses`, `draws` and `win_rate` go by the sign of the reported return where a trade carries
    one (as freqtrade counts), else by that of its reported PnL; see `counters.reported_verdict`. The
    money figures go by the reported PnL alone: `profit` and `loss` sum its gains and falls, draws
    included, and the averages, `payoff` and `expectancy_ratio` are over the trades with a gain or a
    fall, so `average_win` need not be `profit` over `wins`.
    """

    trade_count: int
    pnl: Decimal
    profit: Decimal
    loss: Decimal
    wins: int
    losses: int
    draws: int
    win_rate: Decimal | None
    average_win: Decimal | None
    average_loss: Decimal | None
    payoff: Decimal | None
    profit_factor: Decimal | None
    expectancy: Decimal | None
    expectancy_ratio: Decimal | None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one source (or "all") in one settlement currency.

    Wins, losses and draws are completed trades by their `outcome`; ratios are over completed trades,
    after fees, and None where the numbers define nothing. Losses are positive amounts.
    """

    source: str
    currency: str
    """Empty when there are no trades at all."""
    trade_count: int
    open: int
    closed: int
    wins: int
    losses: int
    draws: int
    pnl: Decimal
    """Realised so far, open trades included; where no exit is known, what was reported."""
    profit: Decimal
    """Sum of the positive PnLs of completed trades."""
    loss: Decimal
    """Sum of the negative ones, as a positive amount."""
    net: Decimal
    """Computed from fills alone: `gross` less matched fees, plus funding, less interest."""
    gross: Decimal
    """Computed from fills alone, before fees."""
    gross_profit: Decimal
    gross_loss: Decimal
    fees: dict[str, Decimal]
    """Per coin, as venues took them."""
    funding: Decimal
    interest: Decimal
    volume: Decimal
    """Notional of entries and exits."""
    deposit: Decimal
    """Sum of the trades' deposits."""
    win_rate: Decimal | None
    average_win: Decimal | None
    average_loss: Decimal | None
    payoff: Decimal | None
    profit_factor: Decimal | None
    expectancy: Decimal | None
    expectancy_ratio: Decimal | None
    reported: Reported
    statistics: Statistics | None = None
    """None when the block was read from counters; everything else is the same then."""

    @property
    def pairs(self) -> dict[str, Slice] | None:
        """Slices by symbol; None without statistics."""
        return self.statistics.pairs if self.statistics else None

    @property
    def signals(self) -> dict[str, Slice] | None:
        """Slices by signal and value; None without statistics."""
        return self.statistics.signals if self.statistics else None

    def __getitem__(self, name: str) -> Any:
        """A figure by its name, as in the old bot's dictionary; those of `statistics` as well.

        Raises: KeyError.
        """
        for figures in (self, self.statistics):
            if name in getattr(figures, "__struct_fields__", ()):
                return getattr(figures, name)
        if name in ("pairs", "signals"):
            return None
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Every figure as JSON-able values, decimals as positional text.

        The statistics stand beside the sums, those of the reported PnL inside `reported`.
        """
        figures = plain_fields(self)
        del figures["statistics"]
        more = plain_fields(self.statistics) if self.statistics else {"pairs": None, "signals": None}
        figures["reported"] |= more.pop("reported_series", {})
        return figures | more


def block_from_counters(
    chosen: Mapping[str, int], source: str, currency: str, statistics: Statistics | None = None
) -> Block:
    """The block of one source (or "all") and currency, from its counters by name."""
    count = chosen.get
    money: dict[str, Any] = {name: from_units(count(name, 0)) for name in _SUMS}
    loss = from_units(count("loss_sum", 0))
    results = Tally(count("win", 0), count("loss", 0), count("flat", 0), money["profit"], loss)
    return Block(
        source=source,
        currency=currency,
        trade_count=count(TRADES, 0),
        open=count("open", 0),
        closed=count("closed", 0),
        wins=results.wins,
        losses=results.losses,
        draws=results.draws,
        loss=loss,
        fees=_fees(chosen),
        **money,
        **_ratios(results),
        reported=_reported(chosen),
        statistics=statistics,
    )


def _fees(chosen: Mapping[str, int]) -> dict[str, Decimal]:
    return {
        name.removeprefix(FEE_PREFIX): from_units(units)
        for name, units in sorted(chosen.items())
        if name.startswith(FEE_PREFIX) and units
    }


def _reported(chosen: Mapping[str, int]) -> Reported:
    count = chosen.get
    profit, loss = (from_fine_units(count(name, 0)) for name in ("reported_profit", "reported_loss"))
    wins, losses, draws = (count(f"reported_{name}", 0) for name in ("wins", "losses", "draws"))
    results = Tally(wins, losses, draws, profit, loss)
    gains, falls = count("reported_gains", 0), count("reported_falls", 0)
    by_pnl = Tally(gains, falls, results.count - gains - falls, profit, loss)
    return Reported(
        trade_count=results.count,
        pnl=from_fine_units(count("reported", 0)),
        profit=profit,
        loss=loss,
        wins=wins,
        losses=losses,
        draws=draws,
        **_ratios(by_pnl) | {"win_rate": results.win_rate},
    )


def _ratios(results: Tally) -> dict[str, Any]:
    return {name: getattr(results, name) for name in _RATIOS}
