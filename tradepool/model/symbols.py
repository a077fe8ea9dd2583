"""The coins that a market's symbol names."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["SYMBOLS_CACHED", "Coins", "coins_of"]

SYMBOLS_CACHED = 8192
"""Symbols whose parts are remembered; venues list fewer."""


class Coins(NamedTuple):
    """The coins of `BASE/QUOTE:SETTLE-…`."""

    base: str
    """The coin that is traded."""
    quote: str
    """The coin that prices are in."""
    settle: str
    """The coin named behind the ":"; "" where there is none."""


@lru_cache(maxsize=SYMBOLS_CACHED)
def coins_of(symbol: str) -> Coins:
    """The coins that `symbol` names, "" for each that it does not."""
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    return Coins(base, quote, settle.partition("-")[0])
