"""A pool with a planted fault, repaired: what must be so before, after and once the server is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.audit_plants import PLANTS, Scene, opened
from tests.faults.simulator.store_contents import actual_contents
from tradepool import TradePool
from tradepool.audit.report import AuditReport
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Repair
from tradepool.files.snapshot_info import SNAPSHOT_NAME
from tradepool.journaling.service import JournalService
from tradepool.server.embedded import EmbeddedServer

__all__ = ["NOT_WRITTEN", "REPAIRED", "audit", "keys_of", "recovered_contents", "scene_on", "slow"]

NOT_WRITTEN = frozenset({Repair.NONE, Repair.ARCHIVE, Repair.QUARANTINE})
REPAIRED = sorted(name for name in PLANTS if RULES[name].repair not in NOT_WRITTEN)
"""Rules whose planted fault a repair takes away."""


def slow(names: Iterable[str]) -> list[Any]:
    """Parameters that run with the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@contextmanager
def scene_on(server: EmbeddedServer, folder: Path, patch: Any) -> Iterator[Scene]:
    """A scene in a pool that owns its journal, as an embedded one does."""
    with opened(server, folder) as (pool, journal):
        pool._services.journal = journal.journal
        yield Scene(pool, journal, patch)


def audit(scene: Scene, *, repair: bool = False) -> AuditReport:
    """A deep audit."""
    return scene.pool.check_all_trades(deep=True, repair=repair, **scene.given)


def keys_of(client: redis.Redis) -> dict[bytes, bytes]:
    """Everything that a repair could write; not what the journal's writer and audits do."""
    journals = (b":outbox", b":journal", b":bell")
    names = [key for key in client.scan_iter("tp:{*") if not key.endswith(journals)]
    return {name: client.dump(name) for name in names}


def recovered_contents(pool: TradePool, journal: JournalService) -> dict[str, Any]:
    """What a server holds that was emptied and recovered from the journal alone."""
    journal.close()
    client = pool.redis
    client.flushall()
    client.script_flush()
    for name in ("trades.json", SNAPSHOT_NAME):
        (pool.settings.data_dir / name).unlink(missing_ok=True)
    with closing(JournalService(pool.settings, client)) as again:
        again.recover()
    return actual_contents(client)
