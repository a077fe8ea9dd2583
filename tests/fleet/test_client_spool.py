"""The client: order, refusals, and that neither its own death nor a lost message loses a trade."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.trades import journaled_versions, new_trade, new_trades
from tests.tidy.source_tree import ROOT
from tests.waiting import eventually
from tradepool.client import PoolClient, confirming
from tradepool.client.confirmation import Confirmation
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.errors import InvalidTrade, PoolLocked, StoreUnavailable
from tradepool.fleet.programs import environment
from tradepool.model.ids import short_id
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

CONFIRM_S = 20.0
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/clients.md").read_text("utf-8"), re.DOTALL)
SAID = (r"\{'[\w-]+': True\}\n", r"100\n(.*\n)*")

BOT = """
import sys
from uuid import uuid4
from tradepool import PoolClient
client = PoolClient.connect(spool=sys.argv[1])
for number in range(1_000_000):
    trade = {"trade_id": f"{uuid4()}", "user_id": "bot", "symbol": "ETH/USDT", "side": "buy",
             "amount": 1, "price": 2000}
    print(client.add_trade(trade), flush=True)
"""


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=True)), ids=["bot", "asyncio"])
def test_the_bots_that_the_document_shows_do_what_it_says(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    example: str,
    said: str,
):
    for name, value in environment(fleet.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/clients.md", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(said, capsys.readouterr().out)
    assert list(tmp_path.glob("*.spool"))


def test_a_bot_learns_that_its_fill_waits_for_a_trade_that_nobody_has_added(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(confirming, "EXPLAIN_EVERY_S", 0.05)
    trade = new_trade(trade_id=f"late-{uuid4()}")
    fill = {"fill_id": "f-1", "role": "entry", "amount": "1", "price": "100"}
    with PoolClient.connect(fleet.settings) as bot, PoolClient.connect(fleet.settings) as other:
        bot.add_fill(trade["trade_id"], fill)
        eventually(lambda: bot.lag().problem)
        assert f"no trade {trade['trade_id']!r}" in bot.lag().problem
        assert "TRADEPOOL_VISIBILITY_TIMEOUT_S" in bot.lag().problem
        other.add_trade(trade)
        assert bot.flush(CONFIRM_S)
        assert (bot.lag().problem, bot.rejections) == ("", [])


def test_a_trade_opened_and_closed_at_once_is_applied_in_order(fleet: Fleet):
    with PoolClient.connect(fleet.settings) as client:
        trade_ids = client.add_trades(new_trades(120))
        for trade_id in trade_ids:
            entry = {"fill_id": f"{trade_id}-e", "role": "entry", "amount": 2, "price": 100}
            client.add_fill(trade_id, entry)
            client.close_trade(trade_id, 110)
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
        assert client.flush(CONFIRM_S)
        assert client.pending() == 0
        assert client.rejections == []
    closed = {trade.trade_id for trade in fleet.pool.get_all_trades() if trade.status == "completed"}
    assert closed >= set(trade_ids)


def test_balances_are_confirmed_like_trades(fleet: Fleet):
    with PoolClient.connect(fleet.settings) as client:
        client.update_available_tokens("saver", {"BTC": "0.5"}, as_of=1_700_000_000)
        client.update_available_tokens("saver", {"BTC": "0.7"}, as_of=1_700_000_001)
        assert client.flush(CONFIRM_S)
    assert str(fleet.pool.get_available_tokens("saver")["BTC"]) == "0.7"


def test_what_no_pool_would_take_is_refused_in_the_caller(fleet: Fleet):
    with PoolClient.connect(fleet.settings) as client:
        with pytest.raises(InvalidTrade, match="amount"):
            client.add_trades([new_trade(), new_trade(amount=float("nan"))])
        with pytest.raises(InvalidTrade, match="price"):
            client.close_trade("some-trade", -1)
        with pytest.raises(InvalidTrade, match="user_id"):
            client.update_trade("some-trade", user_id="another")
        with pytest.raises(InvalidTrade, match="expected_version"):
            client.update_trade("some-trade", expected_version="1", strategy="x")
        with pytest.raises(InvalidTrade, match="fee_currency"):
            client.close_trade("some-trade", 1, fee_currency=5)
        fill = {"fill_id": "f", "role": "entry", "amount": 2, "price": 100}
        for user_id in (5, "u" * 200):
            with pytest.raises(InvalidTrade, match="user_id"):
                client.add_fill("some-trade", fill, user_id=user_id)
        with pytest.raises(InvalidTrade, match="user_id"):
            client.add_trade(new_trade(user_id="u" * 200))
        assert client.pending() == 0


def test_what_only_the_fleet_can_refuse_is_told_afterwards(fleet: Fleet):
    with PoolClient.connect(fleet.settings) as client:
        trade_id = client.add_trade(new_trade())
        client.close_trade(trade_id, 110)
        assert client.flush(CONFIRM_S)
        (rejection,) = client.rejections
        assert (rejection.record_id, rejection.error) == (trade_id, "IllegalTransition")
        assert client.confirm([trade_id], timeout=0) == {trade_id: False}
    assert fleet.pool.get_trade(trade_id).closed == 0


def test_a_minted_id_is_returned_at_once_and_found(fleet: Fleet):
    trade = new_trade()
    del trade["trade_id"]
    with PoolClient.connect(fleet.settings) as client:
        trade_id = client.add_trade(trade)
        assert client.confirm([trade_id], CONFIRM_S) == {trade_id: True}
        assert client.confirm([trade_id, "never-sent"], 0) == {trade_id: True, "never-sent": False}


def test_an_add_repeated_under_its_key_returns_the_same_id(fleet: Fleet):
    trade = new_trade(user_id="ann", idempotency_key=f"key-{uuid4()}")
    del trade["trade_id"]
    with PoolClient.connect(fleet.settings) as client:
        first = client.add_trade(trade)
        assert client.confirm([first], CONFIRM_S) == {first: True}
        assert client.add_trade(trade) == first
        assert client.add_trade({**trade, "user_id": "bob"}) != first
        assert client.flush(CONFIRM_S)
        assert client.rejections == []
    assert fleet.pool.get_trade(first).user_id == "ann"


def test_a_value_that_looks_like_one_of_celerys_harms_no_other_command(fleet: Fleet):
    odd = new_trade(signals={"__type__": "datetime", "__value__": "x"})
    with PoolClient.connect(fleet.settings) as client:
        trade_ids = client.add_trades([new_trade(), odd, new_trade()])
        assert all(client.confirm(trade_ids, CONFIRM_S).values())


def test_an_entry_that_cannot_be_looked_up_holds_up_no_other(fleet: Fleet):
    store_client = connect(fleet.settings)
    store = RedisStore(store_client, Keys(fleet.settings.shard_count), fleet.settings)
    entries = [SpoolEntry(n, f"{uuid4()}", "trades", f"r{n}", 5 if n == 2 else None) for n in range(1, 5)]
    refusal = 'rejected\x1f{"error": "InvalidTrade", "problem": "no"}'
    store.put_answers({short_id(item.command_id): refusal for item in entries})
    finished = Confirmation(store_client, store).check({"trades": [Message(len(entries), entries)]})
    assert [one.entry.seq for one in finished] == [1, 3, 4]
    store_client.close()


def test_a_spool_outlives_the_client_and_a_broker_that_is_away(fleet: Fleet, tmp_path: Path):
    nowhere = fleet.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    spool = tmp_path / "spool"
    client = PoolClient.connect(nowhere, spool=spool)
    trade_ids = client.add_trades(new_trades(5))
    client.close(timeout=0.1)
    with PoolClient.connect(fleet.settings, spool=spool) as successor:
        assert successor.pending() == 5
        assert all(successor.confirm(trade_ids, CONFIRM_S).values())
        assert successor.pending() == 0


def test_without_a_spool_unsent_commands_are_not_lost_silently(fleet: Fleet):
    nowhere = fleet.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    client = PoolClient.connect(nowhere)
    client.add_trade(new_trade())
    with pytest.raises(StoreUnavailable, match="1 commands"):
        client.close(timeout=0.1)


def test_a_full_spool_says_so_and_keeps_nothing_of_the_call(fleet: Fleet, tmp_path: Path):
    nowhere = fleet.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    client = PoolClient.connect(nowhere, spool=tmp_path / "spool", spool_max=3)
    client.add_trades(new_trades(2))
    with pytest.raises(StoreUnavailable, match="spool_max"):
        client.add_trades(new_trades(2))
    assert client.pending() == 2
    client.close(timeout=0)


def test_a_second_bot_on_the_same_spool_is_told(fleet: Fleet, tmp_path: Path):
    with PoolClient.connect(fleet.settings, spool=tmp_path / "spool"), pytest.raises(PoolLocked):
        PoolClient.connect(fleet.settings, spool=tmp_path / "spool")


def test_a_killed_bot_has_lost_nothing_it_was_told_is_kept(fleet: Fleet, tmp_path: Path):
    spool = tmp_path / "spool"
    told = killed_bot(fleet, spool)
    with PoolClient.connect(fleet.settings, spool=spool) as successor:
        assert all(successor.confirm(told, CONFIRM_S).values())
    versions = journaled_versions(fleet.settings)
    assert all(versions[trade_id, 1] == 1 for trade_id in told)


def test_all_threads_of_a_closed_client_have_ended(fleet: Fleet):
    client = PoolClient.connect(fleet.settings)
    client.close()
    client.close()
    eventually(lambda: not any(thread.name.startswith("tradepool-") for thread in threading.enumerate()))
    with pytest.raises(StoreUnavailable):
        client.add_trade(new_trade())


def killed_bot(fleet: Fleet, spool: Path | str) -> list[str]:
    """What a bot was told is kept before it was killed."""
    command = [sys.executable, "-c", BOT, str(spool)]
    bot = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(fleet.settings), text=True)
    try:
        told = [bot.stdout.readline().strip() for _ in range(150)]
    finally:
        bot.send_signal(signal.SIGKILL)
        told += bot.communicate()[0].split()
    return told


@pytest.mark.slow
def test_what_a_killed_bot_left_in_a_shared_folder_is_sent_by_one_that_lives(fleet: Fleet, tmp_path: Path):
    folder = f"{tmp_path / 'spools'}/"
    nowhere = fleet.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with PoolClient.connect(fleet.settings, spool=folder) as living:
        dead = PoolClient.connect(nowhere, spool=folder)
        trade_ids = dead.add_trades(new_trades(700))
        dead.close(timeout=0)
        told = killed_bot(fleet, folder)
        eventually(lambda: all(living.confirm([*trade_ids, *told], timeout=1).values()), 2 * CONFIRM_S)
    versions = journaled_versions(fleet.settings)
    assert {versions[trade_id, 1] for trade_id in [*trade_ids, *told]} == {1}
