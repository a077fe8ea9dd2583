"""The demo from the first program to the proof, a phase after the other, shown while it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Protocol

from rich.live import Live

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.client import PoolClient
from tradepool.clock import now_us
from tradepool.demo.display import DemoResult, Reading, render
from tradepool.demo.journal_count import JournalCount
from tradepool.demo.proof import prove
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.snapshot_info import load_snapshot
from tradepool.fleet.health import read_health
from tradepool.fleet.state import Watcher
from tradepool.fleet.supervisor import Supervisor
from tradepool.pool import TradePool

__all__ = ["Stage", "Traders"]

_FINISH_S = 8.0
"""Kept of the demo's time for what is under way, the snapshot, the proof and stopping."""
_TRADING_S_MIN = 5.0
_READY_TIMEOUT_S = 90.0
_COMPILE_TIMEOUT_S = 120.0
_FINISH_TIMEOUT_S = 120.0
_SNAPSHOT_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.25


class Traders(Protocol):
    """Whoever sends trades: bots, or a file."""

    @property
    def users(self) -> Sequence[str]:
        """Whose trades they are."""
        ...

    @property
    def trade_ids(self) -> Sequence[str]:
        """The trades that the client has accepted so far."""
        ...

    @property
    def refused(self) -> Sequence[str]:
        """What nobody would accept, and why."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to send."""
        ...

    def start(self) -> None:
        """Begin to send."""
        ...

    def stop(self) -> None:
        """Come to an end."""
        ...


class Stage:
    """Plays the demo once on a fleet that has just been started."""

    def __init__(
        self, pool: TradePool, client: PoolClient, traders: Traders, supervisor: Supervisor, live: Live
    ) -> None:
        self._pool = pool
        self._client = client
        self._traders = traders
        self._supervisor = supervisor
        self._live = live
        self._sender = ChangeSender(pool.settings)
        self._watcher = Watcher(pool.settings)
        self._journal = JournalCount(pool.settings.data_dir / JOURNAL_NAME)
        self._started = time.monotonic()
        self._looked = (self._started, self._journal.look())

    def play(self, seconds: float) -> DemoResult:
        """Trade until it takes about `seconds` in all, wait for the last change, and prove the books whole.

        Raises: StoreUnavailable, JournalUnavailable, Corrupt.
        """
        self._show_until("starting the fleet", self._is_ready, _READY_TIMEOUT_S)
        # The first demo on a machine would else be over before its book was marked once.
        self._show_until("compiling the marks, once on a machine", self._is_marked, _COMPILE_TIMEOUT_S)
        # A folder that is used again holds the changes of earlier demos.
        found = self._journal.look()
        trading_from = time.monotonic()
        until = max(self._started + seconds - _FINISH_S, trading_from + _TRADING_S_MIN)
        self._traders.start()
        self._show_until("trading", self._is_played, until - time.monotonic())
        self._traders.stop()
        self._show_until("finishing", lambda: self._client.pending() == 0, _FINISH_TIMEOUT_S)
        trading_s = time.monotonic() - trading_from
        asked_at = now_us()
        self._sender.call(wire.QUEUE_FILES, wire.WRITE_SNAPSHOT, [])
        self._show_until("snapshot", lambda: self._snapshot_since(asked_at), _SNAPSHOT_TIMEOUT_S)
        return DemoResult(
            proof=prove(self._pool, self._traders.trade_ids),
            journaled=self._journal.look() - found,
            trading_s=trading_s,
            unconfirmed=self._client.pending(),
            rejected=tuple(f"{r.record_id}: {r.field} {r.problem}" for r in self._client.rejections),
            refused=tuple(self._traders.refused),
            users={user: pnl for user in self._traders.users if (pnl := _realised(self._pool, user))},
        )

    def _is_ready(self) -> bool:
        """Whether the store takes writes and every program has come up."""
        return not read_health(self._watcher).is_fenced and all(self._running().values())

    def _is_played(self) -> bool:
        """Whether all is sent, and beat has had the pool audited at least once."""
        return self._traders.is_done and self._pool.get_last_audit() is not None

    def _is_marked(self) -> bool:
        """Whether beat has had the pool marked at least once."""
        return self._pool.get_mark_totals() is not None

    def _snapshot_since(self, at_us: int) -> bool:
        info = load_snapshot(self._pool.settings.data_dir)
        return info is not None and info.at >= at_us

    def _show_until(self, phase: str, is_over: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_over() and time.monotonic() < deadline:
            self._show(phase)
            time.sleep(_LOOK_EVERY_S)

    def _show(self, phase: str) -> None:
        settings = self._pool.settings
        secret = settings.flower_basic_auth
        reading = Reading(
            phase=phase,
            elapsed_s=time.monotonic() - self._started,
            accepted=len(self._traders.trade_ids),
            pending=self._client.pending(),
            journaled_per_s=self._rate(),
            health=read_health(self._watcher),
            programs=self._running(),
            flower=f"http://{settings.flower_host}:{settings.flower_port}"
            + (f"   login {secret.get_secret_value()}" if secret else ""),
        )
        self._live.update(render(reading), refresh=True)

    def _rate(self) -> float:
        """Changes journaled per second since the look before."""
        now, changes = time.monotonic(), self._journal.look()
        before, counted = self._looked
        self._looked = (now, changes)
        return (changes - counted) / max(now - before, _LOOK_EVERY_S)

    def _running(self) -> dict[str, bool]:
        return {program.name: program.pid is not None for program in self._supervisor.status()}


def _realised(pool: TradePool, user_id: str) -> dict[str, Decimal]:
    blocks = pool.get_user_summary(user_id, source="all").by_currency
    return {currency: block.pnl for currency, block in blocks.items()}
