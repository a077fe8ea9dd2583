"""Many threads and processes reserve of one account: no unit twice, and each reservation resolves once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.token_bots import FUNDS, USER, History, Told, history_of, run_bots, told_in
from tests.waiting import eventually
from tradepool import TradePool
from tradepool.files.journal import JOURNAL_NAME
from tradepool.model.codec import unpack_ledger
from tradepool.model.ledger import Ledger, ledger_id
from tradepool.settings import Settings

OWNER = """
import sys, threading
from tradepool import TradePool
with TradePool.embedded(sys.argv[1]) as pool:
    print(pool.settings.redis_url, pool.redis.info("server")["process_id"], flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def folder(server_binary: Path, tmp_path: Path) -> Path:
    return tmp_path / "pool"


def bots(url: str, out: IO[str], *, seed: int, threads: int, steps: int) -> subprocess.Popen[bytes]:
    """Another process of bots, that tells its receipts to `out`."""
    arguments = [sys.executable, "-m", "tests.token_bots", url, str(seed), str(threads), str(steps)]
    return subprocess.Popen(arguments, stdout=out)


class Owner:
    """Another process that has the whole pool embedded."""

    def __init__(self, folder: Path) -> None:
        arguments = [sys.executable, "-c", OWNER, folder]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url, server_pid = self._process.stdout.readline().split()
        self._server = psutil.Process(int(server_pid))

    def kill(self) -> None:
        """End it and its server as a crash of the machine does."""
        if self._process.poll() is None:
            self._process.kill()
            # Its guard may be faster.
            with suppress(psutil.NoSuchProcess):
                self._server.kill()
            self._process.communicate()
        eventually(lambda: not self._server.is_running())


def ledger_of(pool: TradePool) -> Ledger:
    value = pool.store.read([(pool.store.keys.shard_of_user(USER), ledger_id(USER))])[0]
    assert value is not None
    return unpack_ledger(value)


def check(history: History, told: list[Told]) -> None:
    """What the bots were told is what the journal says, and each step of it was allowed."""
    assert len(history.opened) == len(set(history.opened)), "a key stands for one reservation"
    assert history.resolved.keys() <= set(history.opened)
    assert len(history.commands) == len(set(history.commands)) == history.versions
    applied = [one for one in told if one.outcome == "applied"]
    assert {one.command_id for one in applied} <= set(history.commands)
    assert max(Counter(one.command_id for one in applied).values()) == 1
    for one in applied:
        if one.status in ("settled", "released"):
            assert history.resolved[one.key] == one.status
        else:
            assert one.key in history.opened
    once = [(one.key, one.status) for one in applied if one.key not in history.reused]
    assert max(Counter(once).values()) == 1


def test_threads_of_two_processes_that_want_the_same_tokens(folder: Path, tmp_path: Path):
    told: list[Told] = []
    out = tmp_path / "other.told"
    with TradePool.embedded(folder) as pool, out.open("w") as file:
        pool.update_available_tokens(USER, {"USDT": FUNDS})
        other = bots(pool.settings.redis_url, file, seed=0, threads=4, steps=20)
        run_bots(pool, seed=9, threads=8, steps=15, tell=told.append)
        assert other.wait() == 0
        told += told_in(out.read_text())
        pool.expire_reservations()
        left = {one.key for one in pool.get_reservations(USER)}
    history = history_of(folder / JOURNAL_NAME)
    check(history, told)
    assert set(history.opened) - history.resolved.keys() == left
    assert {key for key in history.opened if key.startswith("trade-")} == history.trades
    assert history.reserved_max > FUNDS - 3, "they have quarrelled about the last of it"


def test_an_account_is_rebuilt_from_the_journal_when_the_store_has_lost_it(folder: Path):
    with TradePool.embedded(folder) as pool:
        pool.update_available_tokens(USER, {"USDT": FUNDS, "BTC": 1})
        run_bots(pool, seed=5, threads=4, steps=25, tell=lambda _: None)
        pool.reserve_tokens(USER, "BTC", "0.5", "kept", 60)
        # The last one: whoever reserves gives back what is over.
        pool.reserve_tokens(USER, "BTC", "0.25", "soon over", "0.001")
        before = ledger_of(pool)
    shutil.rmtree(folder / "server")
    with TradePool.embedded(folder) as pool:
        assert ledger_of(pool) == before
        assert pool.expire_reservations() >= 1
        assert [one.key for one in pool.get_reservations(USER) if one.asset == "BTC"] == ["kept"]
        assert pool.check_all_trades(deep=True).ok


@pytest.mark.slow
def test_processes_that_are_killed_while_they_reserve(folder: Path, tmp_path: Path):
    """First some of the bots, then the pool itself with its server, and the store is lost with it."""
    outs = [tmp_path / f"{number}.told" for number in range(6)]
    owner = Owner(folder)
    with ExitStack() as ending:
        ending.callback(owner.kill)
        with TradePool.connect(Settings(redis_url=owner.url)) as pool:
            pool.update_available_tokens(USER, {"USDT": FUNDS})
        running = []
        for number, out in enumerate(outs):
            file = ending.enter_context(out.open("w"))
            running.append(bots(owner.url, file, seed=number, threads=4, steps=5000))
            ending.callback(running[-1].wait)
            ending.callback(running[-1].kill)
        for process, out in zip(running[:3], outs[:3], strict=True):
            eventually(lambda out=out: len(out.read_text()) > 5000)
            process.kill()
        eventually(lambda: len(outs[-1].read_text()) > 20_000)
        owner.kill()
    shutil.rmtree(folder / "server")
    told = [one for out in outs for one in told_in(out.read_text())]
    with TradePool.embedded(folder) as pool:
        run_bots(pool, seed=9, threads=8, steps=100, tell=told.append)
        pool.expire_reservations()
        left = {one.key for one in pool.get_reservations(USER)}
        assert pool.check_all_trades(deep=True).ok
    history = history_of(folder / JOURNAL_NAME)
    check(history, told)
    assert set(history.opened) - history.resolved.keys() == left
    assert {key for key in history.opened if key.startswith("trade-")} == history.trades
