"""A fleet that is watched, and everything that can go wrong with it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Any

import msgspec
import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.nodes import LocalProcess
from tests.fleet.trades import new_trade
from tests.store_changes import change
from tests.waiting import eventually
from tradepool import wire
from tradepool.archive.folder import ARCHIVE_NAME, ArchiveFolder
from tradepool.audit.parts.part import Run
from tradepool.audit.parts.run_board import RunBoard
from tradepool.audit.rules.registry import Level
from tradepool.clock import now_us
from tradepool.fleet.programs import environment
from tradepool.journaling.service import JournalService
from tradepool.model import codec
from tradepool.pool import TradePool
from tradepool.settings import Durability
from tradepool.store.connection import connect

__all__ = ["Troubles", "queries_of"]

HOUR_US = 3_600_000_000
SLOW_SYNC_S = 1.2
TICKS = 51


class Troubles:
    """Makes the causes of alerts in a fleet with workers for all queues, and beat."""

    def __init__(self, fleet: Fleet, resources: ExitStack) -> None:
        self.fleet = fleet
        self.settings = fleet.settings
        self.redis = fleet.pool.redis
        # A pool whose calls do not wait for the journal: it will be away.
        hasty = fleet.settings.model_copy(update={"durability": Durability.REDIS})
        self.pool = resources.enter_context(TradePool.connect(hasty))
        self.files = fleet.start("files")
        self.trades = fleet.start("trades,tokens,audit", threads=4)
        self.gpu = fleet.start("gpu", "-P", "solo", "--disable-prefetch")
        self.beat = LocalProcess(
            "beat",
            [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--loglevel", "INFO", "--pidfile="],
            environment(self.settings),
            self.settings.data_dir / "beat.log",
        )
        resources.callback(self.beat.stop)
        for node in fleet.nodes:
            node.wait_ready()

    def trade(self) -> None:
        """Open two positions, and give both symbols a price."""
        for symbol in ("BTC/USDT", "ETH/USDT"):
            self.pool.add_trade(new_trade(symbol=symbol, status="filled"))
        self.pool.set_prices({"BTC/USDT": "101", "ETH/USDT": "102"})

    def refuse_a_message(self) -> None:
        self.fleet.call("trades.add_trade", {"trade_id": "nonsense"})

    def spoil_records(self) -> None:
        """One record is not the journal's any more, another says that it was opened before it was made."""
        keys, pool = self.pool.store.keys, self.pool
        one, other, *_ = pool.get_open_trades()
        forged = msgspec.structs.replace(one, strategy="forged")
        shard = keys.shard_of_user(one.user_id)
        records = keys.records(shard, keys.bucket_of(one.trade_id))
        self.redis.hset(records, one.trade_id, codec.pack_trade(forged))
        early = msgspec.structs.replace(
            other, version=other.version + 1, opened_at=other.created_at - HOUR_US
        )
        pool.store.commit(keys.shard_of_user(other.user_id), [change(other, early)])
        report = self.fleet.pool.check_all_trades(deep=True)
        assert not report.ok

    def quarantine_a_trade(self) -> None:
        trade = self.pool.add_trade(new_trade(symbol="ETH/USDT"))
        self.pool.quarantine(trade.trade_id, "a test")

    def lose_a_page(self) -> None:
        self.pool.store.note_undelivered_page("audit-1", "nobody listens")

    def differ_in_the_book(self) -> None:
        self.pool.store.write_book_check(0, 1, msgspec.json.encode({"different": 3, "rows": 5}))

    def abandon_an_audit(self) -> None:
        """It began two hours ago, and nobody has done a part of it since."""
        run = Run(
            run_id="stuck", level=Level.DEEP, started_at=now_us() - 2 * HOUR_US, generation="g", forecast=9
        )
        RunBoard(self.pool.store, lambda: run.started_at).begin(run)

    def leave_archiving_unfinished(self) -> None:
        """A run was killed three hours ago; the day before it, one had ended well."""
        archive = ArchiveFolder(self.settings.data_dir / ARCHIVE_NAME)
        archive.path.mkdir(exist_ok=True)
        part = archive.next_part("2026-11-15")
        part.touch()
        archive.mark_unsettled(part)
        then_s = (now_us() - 3 * HOUR_US) / 1_000_000
        os.utime(archive.path / "unsettled", (then_s, then_s))

    def fill_the_disk(self, patch: pytest.MonkeyPatch) -> None:
        """As the exporter sees it: a test must not fill the disk that others use."""
        look = os.statvfs
        full = {"f_bavail": 1}
        patch.setattr(os, "statvfs", lambda path: _Disk(look(path), full))

    def break_the_disk(self, patch: pytest.MonkeyPatch) -> None:
        """As the exporter sees it."""

        def broken(path: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        patch.setattr(os, "statvfs", broken)

    def fill_the_memory(self) -> None:
        used = int(self.redis.info("memory")["used_memory"])
        self.redis.config_set("maxmemory", int(used / 0.9))

    def stop_the_files_worker(self) -> None:
        """Then somebody commits, and a task waits for the journal."""
        self.files.process.kill("SIGTERM")
        self.pool.add_trade(new_trade(symbol="ETH/USDT"))
        self.fleet.call("trades.add_trade", new_trade(symbol="ETH/USDT"))
        eventually(lambda: self.redis.zcard("unacked_index") > 0)

    def kill_all_others(self) -> None:
        for process in (self.trades.process, self.gpu.process, self.beat):
            process.kill("SIGKILL")

    def send_what_nobody_takes(self) -> None:
        an_hour_ago = {"sent_at": now_us() - HOUR_US}
        foreign = self.fleet.foreign
        foreign.send_task("tasks.tokens.expire_reservations", queue="tokens", headers=an_hour_ago)
        foreign.send_task("tasks.audit.check_all_trades", queue="audit", headers=an_hour_ago)
        for _ in range(TICKS):
            self.fleet.sender.call(wire.QUEUE_GPU, "tasks.pnl.mark_to_market", [])

    def mark_late_at_bad_prices(self) -> None:
        """At prices of ten seconds ago, of which one is old and one is none."""
        self.redis.delete(self.pool.store.keys.prices)
        self.pool.set_prices({"BTC/USDT": "101"}, at=(now_us() - HOUR_US) / 1_000_000)
        self.pool.mark_to_market(at=now_us() / 1_000_000 - 10)

    @contextmanager
    def slow_disk(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """The journal goes on in this process, and each sync takes more than a second."""
        sync, never = os.fdatasync, Event()

        def slow(fd: int) -> None:
            never.wait(SLOW_SYNC_S)
            sync(fd)

        patch.setattr(os, "fdatasync", slow)
        with (
            closing(connect(self.settings)) as client,
            closing(JournalService(self.settings, client)) as journal,
        ):
            journal.recover()
            journal.start()
            yield

    def trade_once(self) -> None:
        self.pool.add_trade(new_trade(symbol="ETH/USDT"))

    def restart_the_server(self) -> None:
        """Nobody recovers it."""
        self.fleet.restart_server(signal.SIGTERM)

    def forget_the_schedule(self) -> None:
        self.redis.delete("redbeat::schedule")

    def forget_all_audits(self) -> None:
        """Of a pool that was made the day before yesterday."""
        store = self.pool.store
        store.drop_audits(store.kept_audits())
        self.redis.hset(store.keys.meta, "created", now_us() - 48 * HOUR_US)


class _Disk:
    """What statvfs says, but for some of it."""

    def __init__(self, real: os.statvfs_result, changed: dict[str, int]) -> None:
        self._real = real
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        return self._changed.get(name, getattr(self._real, name))


def queries_of(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Title of a panel and expression, for every query of a dashboard."""
    shown = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    drawn = [("annotations", each["expr"]) for each in dashboard["annotations"]["list"]]
    return [*shown, *drawn]
