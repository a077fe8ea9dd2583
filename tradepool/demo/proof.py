"""The demo's proof: every accepted trade is in Redis, journal and snapshot, and audits are clean."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tradepool.audit.report import AuditReport
from tradepool.batching import batched
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.reading import read_lines
from tradepool.files.snapshot_info import TRADES_NAME
from tradepool.pool import TradePool

__all__ = ["Proof", "prove"]

_READ_MAX = 1000


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing where, by trade id; all empty when the books are whole."""

    accepted: int
    missing_in_redis: frozenset[str]
    missing_in_journal: frozenset[str]
    missing_in_snapshot: frozenset[str]
    audit: AuditReport

    @property
    def ok(self) -> bool:
        """Whether nothing is missing anywhere, and the audit compared everything and found nothing."""
        missing = self.missing_in_redis | self.missing_in_journal | self.missing_in_snapshot
        return not missing and self.audit.ok and not self.audit.undecided


def prove(pool: TradePool, trade_ids: Iterable[str]) -> Proof:
    """Look every accepted trade up in all three places, and audit the pool in depth."""
    accepted = frozenset(trade_ids)
    data_dir = pool.settings.data_dir
    journaled = {line.record_id for line in read_lines(data_dir / JOURNAL_NAME)}
    return Proof(
        accepted=len(accepted),
        missing_in_redis=accepted - _in_redis(pool, accepted),
        missing_in_journal=accepted - journaled,
        missing_in_snapshot=accepted - _in_snapshot(data_dir / TRADES_NAME),
        audit=pool.check_all_trades(deep=True),
    )


def _in_redis(pool: TradePool, trade_ids: frozenset[str]) -> set[str]:
    found: set[str] = set()
    for chunk in batched(trade_ids, _READ_MAX):
        shards = pool.store.shards_of_trades(chunk)
        asked = [
            (shard, trade_id) for shard, trade_id in zip(shards, chunk, strict=True) if shard is not None
        ]
        values = pool.store.read(asked)
        found.update(
            trade_id for (_, trade_id), value in zip(asked, values, strict=True) if value is not None
        )
    return found


def _in_snapshot(path: Path) -> set[str]:
    """Read as any other program would read it: the file is plain JSON."""
    return {trade["trade_id"] for trade in json.loads(path.read_bytes())}
