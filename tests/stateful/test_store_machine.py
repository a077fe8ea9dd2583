"""Any history of requests, repeats, refusals, crashes and recoveries: the pool and a plain one agree.

All examples share one pool on one real server; each has users, symbols and ids of its own. After every step
everything that its users can ask is compared, at the end of each example the audit finds nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.audit_reports import contradictions
from tests.servers import kill_until_revived
from tests.stateful.plain_pool import OPEN, Answer, PlainFill, PlainPool, PlainTrade, summed
from tests.waiting import eventually
from tradepool import TradePool, commanding
from tradepool.core import Result
from tradepool.errors import Rejected
from tradepool.model.commands import AddTrade
from tradepool.model.ids import mint_id
from tradepool.model.summary import summary_from_counters

START_US = 1_750_000_000_000_000
US_PER_S = 1_000_000
FILLED_US = START_US + 10 * US_PER_S
"""When every fill happened."""
SHARDS = 4
BATCH_MAX = 8
TRADES_AT_FIRST = 3
PAGE = 5
RESTARTS_MAX = 1
REDELIVERED_MAX = 20
"""Below the 32 applied commands that a record remembers."""

QUICK = settings(max_examples=10, stateful_step_count=20)
LONG = settings(max_examples=400, stateful_step_count=60)

halves = st.integers(1, 8).map(lambda number: f"{number / 2:g}")
prices = st.integers(80, 120).map(str)
fees = st.sampled_from(["0", "0", "0.1"])
seconds = st.integers(0, 6)

Request = tuple[Any, Answer]
"""A command, and what the plain pool says to it."""


class World:
    """The pool under test, whose server and process state may go away and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples = count(1)
        self.pool = self._open()

    def reopen(self) -> None:
        """A clean end, and a start."""
        self.pool.close()
        self.pool = self._open()

    def kill_server(self, *, keep_data: bool) -> None:
        """The server dies at once; without its data only the journal and a snapshot are left."""
        pid = int(self.pool.redis.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not _is_running(pid))
        self.pool.close()
        if not keep_data:
            shutil.rmtree(self.folder / "server" / "appendonlydir")
        self.pool = self._open()

    def _open(self) -> TradePool:
        return TradePool.embedded(self.folder, shard_count=SHARDS, retention_s=0)


class Histories(RuleBasedStateMachine):
    """One example: a random history of two users."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.plain = PlainPool()
        self.applied: list[Any] = []
        self.touched: set[str] = set()
        self.ticked = 0
        self.restarts = 0
        self.numbers = count(1)

    @initialize(data=st.data())
    def two_users_begin_to_trade(self, data):
        self.name = f"e{next(self.world.examples)}"
        self.users = [f"{self.name}-ann", f"{self.name}-bob"]
        self.symbols = [f"{self.name}A/USDT".upper(), f"{self.name}B/USDT".upper()]
        self.send([self.an_add(data.draw) for _ in range(TRADES_AT_FIRST)])

    @property
    def pool(self) -> TradePool:
        return self.world.pool

    # What may be asked: each draws a request of its kind, decided by the plain pool as it is drawn.

    def an_add(self, draw) -> Request:
        given = self._new_trade(draw)
        kind = draw(st.sampled_from(["slotless", "slotted", "keyed"]))
        number = next(self.numbers)
        trade_id = f"{self.name}:{number}"
        if kind != "slotless":
            trade_id = mint_id(given["user_id"], at_us=given["timestamp"], random_bits=number)
        if kind == "keyed":
            given["idempotency_key"] = f"{self.name}-key-{number}"
        return self._adding(trade_id, given)

    def an_add_again(self, draw) -> Request:
        trade = self._some_trade(draw)
        given = dict(trade.given)
        change = draw(st.sampled_from(["nothing", "nothing", "price", "user", "id"]))
        if change == "price":
            given["price"] = "1" + given["price"]
        if change == "user" and trade.trade_id.startswith(self.name):
            given["user_id"] = next(user for user in self.users if user != trade.user_id)
            given.pop("idempotency_key", None)
        if change == "id" and "idempotency_key" in given:
            # The key alone says that it is the same trade; what the caller gave is no longer the same.
            return self._adding(f"{self.name}:{next(self.numbers)}", given | {"price": "7"})
        return self._adding(trade.trade_id, given)

    def a_fill(self, draw) -> Request:
        role = draw(st.sampled_from(["entry", "exit"]))
        numbers = (Fraction(draw(each)) for each in (halves, prices, fees))
        return self._filling(self._some_trade(draw), PlainFill(self._fill_id(), role, *numbers))

    def a_known_fill(self, draw) -> Request:
        """One that was booked: the same again, or changed, or on another trade."""
        known = [(trade, fill) for trade in self.plain.trades.values() for fill in trade.named_fills]
        if not known:
            return self.a_fitting_fill(draw)
        trade, fill = draw(st.sampled_from(known))
        how = draw(st.sampled_from(["same", "changed", "elsewhere"]))
        if how == "changed":
            fill = fill._replace(price=fill.price + 1)
        if how == "elsewhere":
            trades = list(self.plain.trades.values())
            near = [each for each in trades if each.market == trade.market and each.room("entry")]
            trade = draw(st.sampled_from([each for each in near if each is not trade] or trades))
            fill = fill._replace(role="entry", amount=min(fill.amount, trade.room("entry")) or fill.amount)
        return self._filling(trade, fill)

    def a_fitting_fill(self, draw) -> Request:
        """One that the trade has room for, so that histories get somewhere."""
        trade = self._some_trade(draw)
        role = draw(st.sampled_from([role for role in ("entry", "exit") if trade.room(role)] or ["exit"]))
        amount = min(Fraction(draw(halves)), trade.room(role)) or Fraction(1)
        numbers = (Fraction(draw(each)) for each in (prices, fees))
        return self._filling(trade, PlainFill(self._fill_id(), role, amount, *numbers))

    def a_close(self, draw) -> Request:
        trade, price, everything = self._some_trade(draw), draw(prices), draw(st.booleans())
        amount = None if everything else draw(halves)
        command = commanding.close_trade(
            trade.trade_id, price, fee="0.1", fee_currency=None, amount=amount, at=FILLED_US
        )
        fill = PlainFill(
            f"{trade.trade_id}:{command.command_id}",
            "exit",
            Fraction(amount or 0),
            Fraction(price),
            Fraction("0.1"),
        )
        return command, self.plain.close(trade.trade_id, fill, everything=everything)

    def an_update(self, draw) -> Request:
        trade, value = self._some_trade(draw), draw(prices)
        expected = draw(st.sampled_from([None, None, trade.version, trade.version + 1]))
        command = commanding.update_trade(trade.trade_id, {"stop_loss": value}, expected_version=expected)
        return command, self.plain.set_stop_loss(trade.trade_id, Fraction(value), expected)

    def a_status(self, draw) -> Request:
        trade = self._some_trade(draw)
        words = ["submitted", "filled", "cancelled", "expired", "rejected", "completed"]
        word = draw(st.sampled_from(words))
        command = commanding.update_trade(trade.trade_id, {"status": word}, expected_version=None)
        return command, self.plain.set_status(trade.trade_id, word)

    def a_report(self, draw) -> Request:
        trade, pnl, as_of = self._some_trade(draw), draw(st.integers(-3, 3)), self._some_time(draw)
        command = commanding.update_trade_pnl(trade.trade_id, pnl, "completed", as_of=as_of)
        return command, self.plain.report(trade.trade_id, Fraction(pnl), as_of)

    def a_snapshot_of_tokens(self, draw) -> Request:
        user, as_of, complete = draw(st.sampled_from(self.users)), self._some_time(draw), draw(st.booleans())
        told = draw(st.dictionaries(st.sampled_from(["USDT", "BTC", "ETH"]), st.integers(0, 4), min_size=1))
        command = commanding.update_available_tokens(
            user, told, as_of=as_of, account_id="default", complete=complete
        )
        exact = {asset: Fraction(amount) for asset, amount in told.items()}
        return command, self.plain.tell_tokens(user, exact, as_of, complete=complete)

    def a_redelivery(self, draw) -> Request:
        command = draw(st.sampled_from(self.applied[-REDELIVERED_MAX:]))
        return command, self.plain.repeat(_trade_id(command))

    # What happens.

    @rule(data=st.data())
    def a_trade_is_added_without_an_id(self, data):
        given = self._new_trade(data.draw)
        receipt = self.pool.add_trade(given)
        assert receipt.durable
        assert self.plain.add(receipt.trade_id, given) == (receipt.outcome, receipt.version)
        self.touched.add(receipt.trade_id)

    @rule(data=st.data())
    def a_request_arrives(self, data):
        self.send([self.a_request(data.draw)])

    @rule(data=st.data(), size=st.integers(2, BATCH_MAX))
    def requests_arrive_together(self, data, size):
        self.send([self.a_request(data.draw) for _ in range(size)])

    def a_request(self, draw) -> Request:
        kinds: list[Callable[[Any], Request]] = [
            self.an_add,
            self.an_add_again,
            self.a_fill,
            self.a_fitting_fill,
            self.a_fitting_fill,
            self.a_known_fill,
            self.a_known_fill,
            self.a_close,
            self.a_close,
            self.an_update,
            self.a_status,
            self.a_report,
            self.a_snapshot_of_tokens,
        ]
        return draw(st.sampled_from(kinds))(draw)

    @rule(data=st.data())
    def a_command_is_delivered_again(self, data):
        self.send([self.a_redelivery(data.draw)])

    @precondition(lambda self: self.applied[self.ticked :])
    @rule(what=st.sampled_from(["snapshot", "archive"]))
    def the_clock_ticks(self, what):
        self.ticked = len(self.applied)
        if what == "snapshot":
            self.pool.write_snapshot()
            return
        self.plain.archive()
        self.pool.archive_closed_trades()
        self.touched.update(self.plain.trades)

    @precondition(lambda self: self.restarts < RESTARTS_MAX)
    @rule(how=st.sampled_from(["reopened", "revived", "killed", "emptied"]))
    def the_server_restarts(self, how):
        self.restarts += 1
        if how == "reopened":
            self.world.reopen()
        elif how == "revived":
            kill_until_revived(self.world.pool)
        else:
            self.world.kill_server(keep_data=how == "killed")

    def send(self, requests: list[Request]) -> None:
        """Apply in one call; every answer must be the plain pool's."""
        results = self.pool.apply([command for command, _ in requests])
        for (command, expected), result in zip(requests, results, strict=True):
            assert _answer(result, expected) == expected, command
            self.touched |= {_trade_id(command)} & self.plain.trades.keys()
            if expected.outcome == "applied":
                self.applied.append(command)

    # What must hold after each step.

    @invariant()
    def what_was_just_asked_for_is_as_said(self):
        for trade_id in self.touched:
            assert _shown(self.pool.get_trade(trade_id)) == _expected(self.plain.trades[trade_id])
        self.touched.clear()

    @invariant()
    def lists_are_complete_and_newest_first(self):
        for user in self.users:
            own = self.plain.of_user(user)
            assert list(self._pages(user)) == [_expected(trade) for trade in own]
            still_open = {trade.trade_id for trade in own if trade.status in OPEN}
            assert {trade.trade_id for trade in self.pool.get_open_trades(user)} == still_open
        for symbol in self.symbols:
            found = [trade.trade_id for trade in self.pool.get_trades_by_symbol(symbol).trades]
            own = [trade for trade in self.plain.trades.values() if trade.given["symbol"] == symbol]
            assert found == [t.trade_id for t in sorted(own, key=lambda t: t.place, reverse=True)]

    @invariant()
    def sums_are_those_of_the_trades(self):
        for user in self.users:
            expected = {name: _number(value) for name, value in summed(self.plain.of_user(user)).items()}
            folded = self.pool.get_user_summary(user)
            counted = summary_from_counters(self.pool.store.counters(user), user_id=user)
            for summary in (folded, counted):
                assert {name: _number(getattr(summary, name)) for name in expected} == expected

    @invariant()
    def balances_are_the_newest_told(self):
        for user in self.users:
            expected = {
                asset: amount for asset, (amount, _) in self.plain.tokens.get(user, {}).items() if amount
            }
            found = self.pool.get_available_tokens(user)
            assert {asset: Fraction(amount) for asset, amount in found.items()} == expected

    def teardown(self):
        assert self.pool.check_all_trades().findings == ()
        for user in self.users:
            assert contradictions(self.pool.check_trades(user)) == []
        for trade in list(self.plain.trades.values())[:1]:
            history = self.pool.get_trade_history(trade.trade_id)
            assert [each.version for each in history] == list(range(1, trade.version + 1))

    def _pages(self, user: str) -> Iterator[Shown]:
        cursor = None
        while True:
            page = self.pool.get_trades_by_user(user, limit=PAGE, cursor=cursor)
            yield from map(_shown, page.trades)
            if (cursor := page.cursor) is None:
                return

    def _new_trade(self, draw) -> dict[str, Any]:
        given = {
            "user_id": draw(st.sampled_from(self.users)),
            "symbol": draw(st.sampled_from(self.symbols)),
            "side": draw(st.sampled_from(["buy", "sell"])),
            "amount": draw(halves),
            "price": draw(prices),
            "timestamp": self._some_time(draw),
        }
        return given | ({"status": "filled"} if draw(st.booleans()) else {})

    def _adding(self, trade_id: str, given: dict[str, Any]) -> Request:
        return commanding.add_trade(given | {"trade_id": trade_id}), self.plain.add(trade_id, given)

    def _filling(self, trade: PlainTrade, fill: PlainFill) -> Request:
        fields = {"fill_id": fill.fill_id, "role": fill.role, "at": FILLED_US}
        numbers = {name: f"{float(getattr(fill, name)):g}" for name in ("amount", "price", "fee")}
        return commanding.add_fill(trade.trade_id, fields | numbers), self.plain.fill(trade.trade_id, fill)

    def _fill_id(self) -> str:
        return f"{self.name}-{next(self.numbers)}"

    def _some_trade(self, draw) -> PlainTrade:
        return self.plain.trades[draw(st.sampled_from(list(self.plain.trades)))]

    def _some_time(self, draw) -> int:
        return START_US + draw(seconds) * US_PER_S


def _trade_id(command: Any) -> str | None:
    """The trade that a command is about; None for one about balances."""
    if isinstance(command, AddTrade):
        return command.trade["trade_id"]
    return getattr(command, "trade_id", None)


def _answer(result: Result, expected: Answer) -> Answer:
    if isinstance(result, Rejected):
        return Answer(type(result).__name__)
    assert result.durable
    return Answer(result.outcome, result.version if expected.version else 0)


@dataclass(frozen=True)
class Shown:
    """What of a trade is compared."""

    trade_id: str
    version: int
    status: str
    outcome: str | None
    created_at: int
    figures: dict[str, Fraction | None]
    fills: list[tuple[str, Fraction, Fraction, Fraction]]


def _shown(trade) -> Shown:
    names = ("amount", "filled", "closed", "stop_loss", "pnl", "pnl_gross", "pnl_net", "pnl_reported")
    return Shown(
        trade_id=trade.trade_id,
        version=trade.version,
        status=trade.status,
        outcome=trade.outcome,
        created_at=trade.created_at,
        figures={name: _fraction(getattr(trade, name)) for name in names},
        fills=[
            (str(fill.role), Fraction(fill.amount), Fraction(fill.price), Fraction(fill.fee))
            for fill in trade.fills
        ],
    )


def _expected(trade: PlainTrade) -> Shown:
    gross, net = trade.figures()
    return Shown(
        trade_id=trade.trade_id,
        version=trade.version,
        status=trade.status,
        outcome=trade.outcome,
        created_at=trade.given["timestamp"],
        figures={
            "amount": trade.amount,
            "filled": trade.filled,
            "closed": trade.closed,
            "stop_loss": trade.stop_loss,
            "pnl": trade.pnl,
            "pnl_gross": gross,
            "pnl_net": net,
            "pnl_reported": trade.reported,
        },
        fills=[(fill.role, fill.amount, fill.price, fill.fee) for fill in trade.fills],
    )


def _fraction(value: Any) -> Fraction | None:
    return None if value is None else Fraction(value)


def _number(value: Any) -> Fraction:
    return Fraction(value)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def world(server_binary, tmp_path) -> Iterator[World]:
    running = World(tmp_path / "pool")
    yield running
    running.pool.close()


def agree(world: World, profile: settings) -> None:
    quiet = settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Histories(world), settings=quiet)
    assert contradictions(world.pool.check_all_trades(deep=True)) == []


@pytest.mark.timeout(600)  # Only a failure takes long: its history is made as short as possible.
def test_the_pool_and_a_plain_one_agree(world):
    agree(world, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_pool_and_a_plain_one_agree_for_long(world):
    agree(world, LONG)
