"""Stress tests of the open trades: what callers give, read at the edge, and put to the book."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from tradepool.errors import InvalidTrade
from tradepool.marking.open_book import OpenBook
from tradepool.marking.tick import Tick
from tradepool.model.money import DECIMALS_MAX, parse_decimal
from tradepool.placing import known_id
from tradepool.pnl.backend import Backends
from tradepool.pnl.stress.kernels import kernel_beside
from tradepool.pnl.stress.netting import net
from tradepool.pnl.stress.results import StressTest
from tradepool.pnl.stress.scenarios import REST, Scenario
from tradepool.pnl.stress.valuation import stress

__all__ = ["CHANGES_MAX", "StressQuestion", "StressTesting", "stress_question"]

CHANGES_MAX = 200_000
"""Changes of single users in one answer: users asked for, times scenarios."""

# Neither an exponent nor a NaN, so as many characters as places are allowed leave nothing to refuse.
_PLAIN = re.compile(r"[-+.0-9]*")
_KINDS = {"prices", "shocks"}
_SCENARIO_CURE = "give {'prices': {symbol: price}, 'shocks': {symbol: change, '*': that of all others}}"
_SCENARIOS_CURE = "give {name: scenario}, or a list of scenarios"


class StressQuestion(NamedTuple):
    """What a stress test is asked."""

    scenarios: Mapping[str, Scenario]
    confidence: Decimal
    users: frozenset[str]


class StressTesting:
    """Puts questions to a book, which `lock` is held to read."""

    def __init__(self, open_book: OpenBook, lock: AbstractContextManager[object], backends: Backends) -> None:
        self._open_book = open_book
        self._lock = lock
        self._backends = backends

    def answer(self, question: StressQuestion, tick: Tick) -> StressTest:
        """The answer as of now, at the base prices of `tick`; the lock is held while the book is netted.

        Raises: InvalidTrade as `stress`; as `OpenBook.catch_up`.
        """
        with self._lock:
            self._open_book.catch_up()
            book = self._open_book.book
            backend = self._backends.for_rows(len(book))
            netted = net(book)
        test = stress(
            netted,
            tick.prices,
            question.scenarios,
            tick.at,
            confidence=question.confidence,
            users=question.users,
            kernel=kernel_beside(backend.name),
        )
        held = netted.symbols()
        return replace(test, stale={symbol: age for symbol, age in tick.stale.items() if symbol in held})


def stress_question(scenarios: object, confidence: object, users: object) -> StressQuestion:
    """What was asked, read from what a caller or a message has given.

    Scenarios in a list are named by their place, from 1 on. Raises: InvalidTrade naming what cannot be read.
    """
    reader = _Reader()
    read = {name: reader.scenario(name, given) for name, given in _named(scenarios).items()}
    asked = _user_ids(users)
    if len(asked) * len(read) > CHANGES_MAX:
        raise InvalidTrade(
            f"too many to tell the changes of each in {len(read)} scenarios",
            field="users",
            value=len(asked),
            cure=f"ask for fewer: users times scenarios may be {CHANGES_MAX}",
        )
    return StressQuestion(read, parse_decimal("confidence", confidence), asked)


def _named(scenarios: object) -> Mapping[str, object]:
    if isinstance(scenarios, list | tuple):
        return {str(place): given for place, given in enumerate(scenarios, 1)}
    if not isinstance(scenarios, Mapping):
        raise InvalidTrade("not scenarios", field="scenarios", value=scenarios, cure=_SCENARIOS_CURE)
    for name in scenarios:
        known_id("name of a scenario", name)
    return scenarios


class _Reader:
    """Reads scenarios, each symbol once: a history is a lot of numbers by the same symbols."""

    def __init__(self) -> None:
        self._symbols = {REST}

    def scenario(self, name: str, given: object) -> Scenario:
        """Raises: InvalidTrade naming the scenario and what cannot be read."""
        if isinstance(given, Scenario):
            parts: Mapping[str, object] = {"prices": given.prices, "shocks": given.shocks}
        elif isinstance(given, Mapping) and given and given.keys() <= _KINDS:
            parts = given
        else:
            raise InvalidTrade("not a scenario", field=f"scenarios[{name}]", value=given, cure=_SCENARIO_CURE)
        prices = self._by_symbol(f"scenarios[{name}].prices", parts.get("prices", {}))
        if REST in prices:
            raise InvalidTrade(
                "no price fits every symbol",
                field=f"scenarios[{name}].prices[{REST}]",
                value=prices[REST],
                cure="name each symbol, or give a shock for all others",
            )
        return Scenario(
            prices=prices,
            shocks=self._by_symbol(f"scenarios[{name}].shocks", parts.get("shocks", {})),
        )

    def _by_symbol(self, field: str, given: object) -> dict[str, Decimal]:
        if not isinstance(given, Mapping):
            raise InvalidTrade("not numbers by symbol", field=field, value=given, cure=_SCENARIO_CURE)
        for symbol in given:
            if type(symbol) is not str or symbol not in self._symbols:
                known_id(f"symbol in {field}", symbol)
                self._symbols.add(symbol)
        values = list(given.values())
        numbers = _plain_numbers(values)
        if numbers is None:
            numbers = [_number(field, symbol, value) for symbol, value in given.items()]
        return dict(zip(given, numbers, strict=True))


def _plain_numbers(values: list[object]) -> list[Decimal] | None:
    """What `parse_decimal` takes `values` for, much faster; None unless all are plain, short text."""
    texts = [value for value in values if type(value) is str]
    if len(texts) != len(values) or not _PLAIN.fullmatch("".join(texts)):
        return None
    if max(map(len, texts), default=0) > DECIMALS_MAX:
        return None
    try:
        return list(map(Decimal, texts))
    except InvalidOperation:
        return None


def _number(field: str, symbol: str, value: object) -> Decimal:
    # What is exact already is looked at once, where it is used.
    return value if type(value) is Decimal else parse_decimal(f"{field}[{symbol}]", value)


def _user_ids(users: object) -> frozenset[str]:
    if isinstance(users, str) or not isinstance(users, Iterable):
        raise InvalidTrade("not a list of users", field="users", value=users, cure="give [user_id, …]")
    ids = list(users)
    for user_id in ids:
        known_id("user_id", user_id)
    return frozenset(ids)
