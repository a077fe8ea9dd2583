"""Snapshots of a running pool: the store's records on disk, while bots go on trading."""

from __future__ import annotations

import time
from pathlib import Path

from tradepool.errors import JournalUnavailable
from tradepool.files.journal import Journal
from tradepool.files.snapshot import SnapshotFiles, save_snapshot
from tradepool.files.snapshot_info import SnapshotInfo
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.redis_store import RedisStore

__all__ = ["write_snapshot"]

_POLL_S = 0.01
_SHARD_ATTEMPTS_MAX = 5


def write_snapshot(
    store: RedisStore, journal: Journal, data_dir: Path, *, wait_s: float = 30.0
) -> SnapshotInfo:
    """Write every record of the store to `trades.json` and its companions in `data_dir`; durable on return.

    The journal's place is taken before the scan, so that what changes meanwhile is replayed from
    there. The files replace the old ones only once the journal has everything the scan may have seen:
    a restored snapshot never holds a change that nobody was told about. That needs the journal's
    writer to run, and is waited for up to `wait_s` seconds.

    Raises: JournalUnavailable when the journal does not catch up, the disk fails or trades are being
    archived all the time; StoreUnavailable; PoolLocked when another snapshot is being written.
    """
    generation, point = store.generation(), journal.point

    def write(files: SnapshotFiles) -> dict[int, str]:
        for shard in store.keys.shards:
            _write_shard(store, shard, files)
        covers = _await_journal(journal, store.last_positions(), time.monotonic() + wait_s)
        store.check_generation(generation)
        return covers

    return save_snapshot(data_dir, write, journal=journal.id, point=point)


def _write_shard(store: RedisStore, shard: int, files: SnapshotFiles) -> None:
    """The shard's records, and what its archived ones count for, which must be exactly those written.

    Each archived trade counts, so equal counters before and after mean that none was archived between.
    """
    for _ in range(_SHARD_ATTEMPTS_MAX):
        take_back, before = files.undo(), store.archived_counters_of_shard(shard)
        for _, value in store.scan_once(shard):
            files.write(value)
        if store.archived_counters_of_shard(shard) == before:
            for user_id, counters in before.items():
                files.write_archived_counters(user_id, counters)
            return
        take_back()
    raise JournalUnavailable("no snapshot written: trades are being archived; try again later")


def _await_journal(journal: Journal, newest: list[str], deadline: float) -> dict[int, str]:
    covers = {shard: position for shard, position in enumerate(newest) if position != START_POSITION}
    while True:
        reached = journal.point
        if all(parse_position(reached.position(s)) >= parse_position(p) for s, p in covers.items()):
            return covers
        if time.monotonic() > deadline:
            raise JournalUnavailable("no snapshot written: the journal does not catch up with the store")
        time.sleep(_POLL_S)
