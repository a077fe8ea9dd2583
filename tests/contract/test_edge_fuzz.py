"""Whatever is passed to any public call, it answers or refuses by name; a refusal writes nothing."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.loose_trades import buy, entry
from tradepool import PoolClient, TradePool, wire
from tradepool.errors import Rejected, quoted

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
NASTY = [
    None,
    True,
    -1,
    2**70,
    10**5000,
    math.nan,
    math.inf,
    5e-324,
    Decimal("sNaN"),
    Decimal("1e999999"),
    "",
    "\x00",
    "\ud800",
    "\x1f",
    "x" * 200,
    "1e999",
    "2026-13-01",
    b"bytes",
    [],
    {},
    {1, 2},
    [CYCLE],
    {"a": CYCLE},
    {("a",): 1},
    {"\ud800": "\ud800"},
    object,
    datetime(9999, 12, 31, tzinfo=UTC),
    datetime.max,  # noqa: DTZ901 - a bot may well give it
]

UNFIT = {
    "close": "ends the pool",
    "connect": "makes another",
    "embedded": "makes another",
    "apply": "takes commands, which are fuzzed as messages",
    "write_snapshot": "takes the journal of its process",
    "archive_closed_trades": "takes the journal of its process",
    "flush": "waits for as long as it is told",
    "repair": "is an argument of check_all_trades: what it writes is tested by itself",
    "progress": "is an argument of check_all_trades, which calls it",
    "confirm": "waits for as long as it is told: fuzzed by itself",
}
RESERVE = {"asset": "USDT", "amount": "1", "ttl_s": 60}
FILTERS = {"source": "real", "status": "filled", "strategy": "s", "since": 1, "until": 2}
PAGE = FILTERS | {"limit": 5, "cursor": None}
FILTERS |= {"symbol": "BTC/USDT"}
GOOD_CALLS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "add_trade": ([buy()], {"reserve": RESERVE}),
    "add_trades": ([[buy(), buy()]], {}),
    "add_fill": (["t-1", entry("f1")], {"user_id": "ann"}),
    "close_trade": (["t-1", "9"], {"fee": "1", "fee_currency": "USDT", "amount": "0.1", "at": "2026-01-01"}),
    "update_trade": (["t-1"], {"expected_version": 99, "strategy": "s", "stop_loss": "90"}),
    "update_trade_pnl": (["t-1", "5", "completed"], {"as_of": "2026-01-01"}),
    "update_available_tokens": (
        ["ann", {"USDT": "5"}],
        {"as_of": "2026-01-01", "account_id": "default", "complete": False},
    ),
    "reserve_tokens": (["ann", "USDT", "1", "k", 60], {"account_id": "default"}),
    "settle_tokens": (["ann:default:k", "1", {"BTC": "1"}], {}),
    "release_tokens": (["ann:default:k"], {}),
    "expire_reservations": ([], {}),
    "set_prices": ([{"BTC/USDT": "100"}], {"at": "2026-01-01"}),
    "get_trade": (["t-1"], {"as_of": "2100-01-01"}),
    "get_trade_history": (["t-1"], {}),
    "get_all_trades": ([], FILTERS),
    "get_trades_by_user": (["ann"], PAGE | {"symbol": "BTC/USDT"}),
    "get_trades_by_symbol": (["BTC/USDT"], PAGE),
    "get_recent_trades": ([5, "ann"], FILTERS),
    "get_open_trades": (["ann"], FILTERS),
    "get_user_summary": (["ann"], {"source": "real", "currency": "USDT", "statistics": False}),
    "get_available_tokens": (["ann"], {"account_id": "default"}),
    "get_reservations": (["ann"], {"account_id": "default"}),
    "mark_to_market": ([{"BTC/USDT": "100"}], {"at": "2026-01-01", "rows": True, "write": False}),
    "stress_test": (
        [[{"shocks": {"*": "-0.1"}}]],
        {"prices": {"BTC/USDT": "100"}, "confidence": "0.95", "users": ["ann"]},
    ),
    "get_marks": (["ann"], {}),
    "get_mark_totals": ([], {}),
    "get_symbol_marks": ([], {}),
    "sql": (["SELECT 1"], {"limit": 5}),
    "export": (["trades.jsonl"], FILTERS | {"user_id": "ann", "file_format": "csv", "force": True}),
    "check_trades": (["ann"], {"deep": False}),
    "check_all_trades": ([], {"deep": False, "level": "standard", "venue": {"at": 1}}),
    "get_last_audit": ([], {}),
    "get_audits": ([5], {"level": "deep"}),
    "write_audit_page": (["page.html"], {}),
    "get_running_audits": ([], {}),
    "get_quarantined": ([5], {}),
    "quarantine": (["t-1", "looked into"], {}),
    "release_quarantine": (["t-1"], {}),
    "get_audit_progress": (["1f"], {}),
    "pending": ([], {}),
    "lag": ([], {}),
}
HEAD = {"command_id": "c", "as_of": 1}
GOOD_MESSAGES: list[dict[str, Any]] = [
    {"op": "add_trade", "trade": buy(), "reserve": RESERVE},
    {"op": "add_fill", "trade_id": "t-1", "fill": entry("f1"), "user_id": "ann"},
    {"op": "close_trade", "trade_id": "t-1", "price": "110", "fee": "1", "amount": "0.1", "at": 1},
    {"op": "update_trade", "trade_id": "t-1", "changes": {"strategy": "s"}, "expected_version": 99},
    {"op": "update_trade_pnl", "trade_id": "t-1", "pnl": "5", "status": "completed"},
    {"op": "update_tokens", "user_id": "ann", "tokens": {"USDT": "5"}, "complete": False},
    {"op": "reserve_tokens", "user_id": "ann", "asset": "USDT", "amount": 1, "key": "k", "ttl_s": 60},
    {"op": "settle_tokens", "reservation_id": "ann:default:k", "spent": "1", "received": {"BTC": "1"}},
    {"op": "release_tokens", "reservation_id": "ann:default:k"},
    {"op": "expire_tokens", "user_id": "ann", "account_id": "default"},
]

plausible = st.sampled_from(["ann", "t-1", "BTC/USDT", "USDT", "1", 1, 60, "real", "completed", "2026-01-01"])
rubbish = st.sampled_from(NASTY) | plausible | st.text(max_size=8) | st.floats() | st.integers()
rubbish_in_fields = st.dictionaries(st.sampled_from([*buy(), *entry("f"), "status", "fills"]), rubbish)
anything = (
    rubbish
    | rubbish_in_fields.map(lambda fields: buy() | fields)
    | rubbish_in_fields.map(lambda fields: entry("f1") | fields)
    | st.dictionaries(st.sampled_from([*RESERVE, "key", "USDT"]), rubbish)
)


def calls_of(kind: type) -> list[str]:
    functions = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in functions if not name.startswith("_") and name not in UNFIT]


@pytest.mark.parametrize("kind", [TradePool, PoolClient])
def test_every_argument_of_every_call_is_fuzzed(kind: type):
    forgotten = {}
    for name in calls_of(kind):
        positional, named = GOOD_CALLS[name]
        arguments = list(inspect.signature(getattr(kind, name)).parameters.values())[1 + len(positional) :]
        forgotten[name] = {one.name for one in arguments if one.kind is not one.VAR_KEYWORD} - named.keys()
    assert {name: left for name, left in forgotten.items() if left - UNFIT.keys()} == {}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TradePool]:
    with TradePool.embedded(tmp_path_factory.mktemp("pool"), shard_count=2) as opened:
        opened.add_trade(buy(trade_id="t-1", status="filled"))
        opened.update_available_tokens("ann", {"USDT": 1000})
        yield opened


@pytest.fixture(scope="module")
def client(pool: TradePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolClient]:
    """One whose broker is away: what it takes stays in its spool."""
    nowhere = pool.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    opened = PoolClient.connect(nowhere, spool=tmp_path_factory.mktemp("spool") / "spool")
    yield opened
    opened.close(timeout=0)


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(pool: TradePool) -> object:
    """What moves with every change, and every key there is."""
    return pool.store.last_positions(), sorted(pool.redis.scan_iter(count=1000))


def refused(call: Callable[..., Any], positional: list[Any], named: dict[str, Any]) -> bool:
    """Whether the call refuses its arguments: in one line, and in a way that can be told as JSON."""
    try:
        answer = call(*positional, **named)
        for _ in answer if isinstance(answer, Iterator) else ():
            pass
    except Rejected as refusal:
        told = [json.dumps(refusal.as_dict()), str(refusal)]
    except Exception as error:
        error.add_note(f"{quoted(positional)} {quoted(named)}")
        raise
    else:
        return False
    assert [len(text.encode().splitlines()) for text in told] == [1, 1]
    return True


def with_one_wrong(name: str) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """The good call with each of its arguments, in turn, being each of the nasty values."""
    positional, named = GOOD_CALLS[name]
    for value in NASTY:
        for place in range(len(positional)):
            yield [*positional[:place], value, *positional[place + 1 :]], named
        for keyword in named:
            yield positional, named | {keyword: value}


@pytest.mark.parametrize("name", calls_of(TradePool))
def test_a_call_of_the_pool_with_one_wrong_argument_is_answered_or_refused(pool: TradePool, name: str):
    before = written(pool)
    for positional, named in with_one_wrong(name):
        is_refused = refused(getattr(pool, name), positional, named)
        after = written(pool)
        # Of a batch the good ones are added.
        assert not is_refused or after == before or name == "add_trades", (positional, named)
        before = after


@pytest.mark.parametrize("name", calls_of(PoolClient))
def test_a_call_of_the_client_with_one_wrong_argument_is_answered_or_refused(client: PoolClient, name: str):
    for positional, named in with_one_wrong(name):
        before = client.pending()
        assert not refused(getattr(client, name), positional, named) or client.pending() == before


def test_what_a_client_cannot_confirm_is_refused(client: PoolClient):
    for value in NASTY:
        refused(client.confirm, [value, 0], {})
        refused(client.confirm, [["t-1", value], 0], {})
    for value in (None, "t-1", ["t-1", None], [""], ["\ud800"]):
        assert refused(client.confirm, [value, 0], {})


@pytest.mark.parametrize("message", GOOD_MESSAGES, ids=lambda message: message["op"])
def test_a_message_with_one_wrong_field_is_applied_or_refused(pool: TradePool, message: dict[str, Any]):
    whole = HEAD | message
    for field in whole.keys() - {"op"}:
        for value in NASTY:
            refused(lambda message: apply_message(pool, message), [whole | {field: value}], {})


def apply_message(pool: TradePool, message: dict[str, Any]) -> None:
    """As a worker does with what came through the broker; what has no JSON form cannot come."""
    try:
        travelled = wire.decode(wire.encode(message))
    except TypeError:
        return
    for result in pool.apply([wire.command_from_wire(travelled)]):
        if isinstance(result, Rejected):
            raise result


def draw_and_call(pool: TradePool, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(calls_of(TradePool)))
    positional, named = GOOD_CALLS[name]
    positional = [data.draw(anything) for _ in positional]
    named = {keyword: data.draw(anything) for keyword in named if data.draw(st.booleans())}
    before = written(pool)
    if refused(getattr(pool, name), positional, named) and name != "add_trades":
        assert written(pool) == before


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_call_full_of_rubbish_is_answered_or_refused(pool: TradePool, data: st.DataObject):
    draw_and_call(pool, data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_calls_full_of_rubbish_are_answered_or_refused(pool: TradePool, data: st.DataObject):
    draw_and_call(pool, data)
