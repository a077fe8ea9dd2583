"""An embedded pool whose server is killed under it goes on by itself, and nothing acknowledged is missing."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import structlog

from tests.loose_trades import buy
from tests.waiting import eventually
from tradepool import TradePool
from tradepool.errors import Contended, TradePoolError, Unavailable
from tradepool.server import revival
from tradepool.server.embedded import EmbeddedServer
from tradepool.server.revival import Revival

KILLS = 3
WRITERS = 3


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(revival, "_PAUSE_MAX_S", 0.2)


class Bot:
    """Adds trades one by one, each until it is acknowledged, and keeps which were."""

    def __init__(self, pool: TradePool, user_id: str) -> None:
        self._pool = pool
        self._user_id = user_id
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                receipt = self._pool.add_trade(buy(user_id=self._user_id, idempotency_key=f"k{number}"))
            except (Unavailable, Contended):
                self._stop.wait(0.02)
                continue
            self.acknowledged.append(receipt.trade_id)
            number += 1

    def stop(self) -> None:
        self._stop.set()
        self.thread.join(60)


def test_a_pool_at_work_survives_its_server_being_killed(server_binary, tmp_path):
    with TradePool.embedded(tmp_path) as pool:
        bots = [Bot(pool, f"user-{number}") for number in range(WRITERS)]
        for bot in bots:
            bot.thread.start()
        for _ in range(KILLS):
            counts = [len(bot.acknowledged) for bot in bots]
            eventually(
                lambda before=counts: all(
                    len(bot.acknowledged) > had + 3 for bot, had in zip(bots, before, strict=True)
                ),
                60,
            )
            os.kill(server_pid(tmp_path), signal.SIGKILL)
        counts = [len(bot.acknowledged) for bot in bots]
        eventually(
            lambda: all(len(bot.acknowledged) > had + 3 for bot, had in zip(bots, counts, strict=True)), 60
        )
        for bot in bots:
            bot.stop()
        for number, bot in enumerate(bots):
            found = list(pool.get_trades_by_user(f"user-{number}", limit=1000).trades)
            assert {trade.trade_id for trade in found} >= set(bot.acknowledged)
            assert len(found) == len(bot.acknowledged) == len(set(bot.acknowledged))
            assert pool.get_user_summary(f"user-{number}").trade_count == len(found)
        assert not pool.check_all_trades(deep=True).findings


def server_pid(folder: Path) -> int:
    eventually((folder / "server" / "server.pid").exists)
    pid = int((folder / "server" / "server.pid").read_text())
    eventually(lambda: psutil.pid_exists(pid))
    return pid


@pytest.mark.parametrize("address", [{}, {"port": 0}])
def test_a_server_that_died_comes_back_at_the_same_address(server_binary, tmp_path, address):
    with EmbeddedServer(tmp_path, **address) as server, Revival(server):
        client, before, url = server.client(), server.pid, server.url
        client.set("key", "value")
        os.kill(before, signal.SIGKILL)
        eventually(lambda: server.pid != before and answers(client))
        assert (client.get("key"), server.url) == (b"value", url)
        client.close()


def answers(client) -> bool:
    with suppress(Exception):
        return bool(client.ping())
    return False


def test_a_server_whose_guard_was_killed_is_not_started_beside_itself(server_binary, tmp_path):
    with EmbeddedServer(tmp_path) as server, Revival(server):
        before = server.pid
        os.kill(server._guard.pid, signal.SIGKILL)
        eventually(lambda: server.pid != before and server.is_running())
        assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE


def test_a_server_that_cannot_start_again_says_so_once(server_binary, tmp_path, monkeypatch):
    monkeypatch.setattr(revival, "_ATTEMPTS_MAX", 3)
    failures: list[TradePoolError] = []
    with EmbeddedServer(tmp_path) as server:
        client = server.client()
        client.set("key", "value")
        client.close()
        (base,) = (tmp_path / "server" / "appendonlydir").glob("*.base.rdb")
        base.write_bytes(b"damaged")
        with structlog.testing.capture_logs() as logs, Revival(server, on_failure=failures.append):
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda: failures)
        assert [line["event"] for line in logs if line["log_level"] == "critical"] == ["server_stays_down"]
        assert "does not start again: the embedded server stopped while starting" in str(failures[0])
        assert not server.is_running()


def test_closing_a_pool_whose_server_is_just_dead_ends_cleanly(server_binary, tmp_path):
    with TradePool.embedded(tmp_path) as pool:
        receipt = pool.add_trade(buy(user_id="ann"))
        os.kill(server_pid(tmp_path), signal.SIGKILL)
    with TradePool.embedded(tmp_path) as again:
        assert again.get_trade(receipt.trade_id).user_id == "ann"
    assert "server-revival" not in {thread.name for thread in threading.enumerate()}
