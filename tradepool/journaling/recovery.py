"""Bringing a server back to what the journal holds, and only then letting writers in.

A server that restarted, was replaced by its replica or is empty may lack the last changes. It has lost
the commit script too, so its fence is closed. Recovery replays what is missing, from the snapshot when
the server is empty and from the journal, and opens the fence. What it cannot explain it refuses.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from redis.cluster import RedisCluster

from tradepool.clock import now_us
from tradepool.errors import Corrupt, Fenced, JournalAhead, SequenceGap
from tradepool.files.journal import Journal
from tradepool.files.point import JournalPoint
from tradepool.files.reading import points_back, read_lines
from tradepool.files.snapshot_info import (
    SNAPSHOT_NAME,
    SnapshotInfo,
    finish_snapshot,
    is_whole,
    load_snapshot,
)
from tradepool.journaling.refilling import Refill, refill
from tradepool.journaling.replay import Replay, Restoring
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.settings import Settings
from tradepool.store import fence
from tradepool.store.connection import Client, unbroken
from tradepool.store.filling import clear_marks
from tradepool.store.keys import Keys
from tradepool.store.progress import JOURNAL_FIELD
from tradepool.store.redis_store import RedisStore
from tradepool.store.shard_count import SHARD_COUNT_FIELD, check_shard_count
from tradepool.store.translation import translated
from tradepool.store.watermark import read_watermark

__all__ = ["RecoveryReport", "recover"]

_CREATED_FIELD = "created"

_BEGIN_EMPTY = "or empty the store and move the folder away to begin an empty pool"

Positions = Mapping[int, str]


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery did: journal lines read for it, records taken from the snapshot, time.

    `opened` is False when the fence was open already and there was nothing to do; `processes` says how
    many worked on it.
    """

    replayed: int = 0
    from_snapshot: int = 0
    opened: bool = False
    processes: int = 1
    seconds: float = 0.0


def recover(client: Client, keys: Keys, journal: Journal, settings: Settings) -> RecoveryReport:
    """Bring the store up to `journal` and open its fence; harmless when that is done already.

    The caller holds the journal open, so nobody else recovers from it, and writers are fenced off. It
    may be repeated after any failure: what was replayed before is recognised by version.

    Raises: StoreUnavailable, also when the server crashes meanwhile; Fenced when another recovery has begun;
    JournalUnavailable; ResourceUnavailable when no process can be started; Misconfigured when the store has
    another shard count; Corrupt, SequenceGap or JournalAhead when store and files cannot belong together.
    Then the fence stays as it was.
    """
    started = time.monotonic()
    # What was seen of one process says nothing about the next one, which may have lost more.
    with unbroken(client) as server:
        try:
            report = _recovered(server, RedisStore(server, keys, settings), journal, settings)
        except (Fenced, Corrupt):
            # Those who fill have connections of their own: what they met may be another process.
            with translated():
                server.script_exists("")
            raise
    return msgspec.structs.replace(report, seconds=time.monotonic() - started)


def _recovered(client: Client, store: RedisStore, journal: Journal, settings: Settings) -> RecoveryReport:
    keys, journaled = store.keys, journal.point
    reached = dict(enumerate(store.last_positions()))
    is_open = fence.is_open(client)
    is_empty = _is_empty(reached) or _lost_only_the_pools_hashes(store, client, journal, reached)
    _check_belongs(client, keys, journal, _Found(is_open=is_open, is_empty=is_empty))
    _check_nothing_lost(client, keys, journal)
    behind = _behind(journal, reached)
    if is_open and behind:
        raise JournalAhead(
            f"the store is open but lacks changes that {journal.path} holds, in {len(behind)} shards; "
            "was it emptied under its writers? Stop them, restart the server and recover"
        )
    if is_open:
        fence.add_missing_scripts(client)
        return RecoveryReport()
    journal.cut_unconfirmed()
    fence.void_generation(client)
    report = _bring_up(client, store, journal, reached, settings)
    for shard in behind:
        _check_digest(store, shard, journaled)
        store.advance_outbox(shard, journaled.position(shard))
    clear_marks(client, keys)
    fence.open_fence(client)
    return msgspec.structs.replace(report, opened=True)


def _bring_up(
    client: Client, store: RedisStore, journal: Journal, reached: Positions, settings: Settings
) -> RecoveryReport:
    """Write what shards lack that have `reached` only an earlier position."""
    behind = _behind(journal, reached)
    empty = {s for s, p in behind.items() if p == START_POSITION}
    snapshot = _snapshot_of(journal) if empty or _is_empty(reached) else None
    report = RecoveryReport()
    if empty:
        done = refill(client, settings, _refill_of(journal, empty, snapshot))
        report = RecoveryReport(
            replayed=done.replayed, from_snapshot=done.from_snapshot, processes=done.processes
        )
    if older := {s: p for s, p in behind.items() if s not in empty}:
        replayed = report.replayed + _catch_up(store, journal, older, settings)
        report = msgspec.structs.replace(report, replayed=replayed)
    if isinstance(client, RedisCluster):
        # A route may have been lost whose trade was not: they are on different nodes.
        Restoring(store).put_routes_of(reached.keys() - empty)
    return report


class _Found(msgspec.Struct, frozen=True):
    """The state in which recovery finds a server."""

    is_open: bool
    is_empty: bool


def _check_belongs(client: Client, keys: Keys, journal: Journal, found: _Found) -> None:
    """The store is this journal's, or becomes it: an empty one, where that is no surprise."""
    check_shard_count(client, keys.shard_count)
    with translated():
        stored: Any = client.hgetall(keys.meta)
    meta = {field.decode(): value.decode() for field, value in stored.items()}
    bound = meta.get(JOURNAL_FIELD)
    if bound == journal.id:
        return
    if bound is not None and not found.is_empty:
        raise Corrupt(
            f"the store belongs to journal {bound}, {journal.path} is journal {journal.id}: "
            f"put the right log back, {_BEGIN_EMPTY}"
        )
    if journal.point.positions and (found.is_open or not found.is_empty):
        raise JournalAhead(
            f"the store was emptied under its writers, or is not the one of {journal.path}; "
            "stop the writers, empty it and restart the server: recovery then refills it"
        )
    _bind(client, keys, journal)


def _lost_only_the_pools_hashes(
    store: RedisStore, client: Client, journal: Journal, reached: Positions
) -> bool:
    """Whether a node of a cluster came back empty, the one with the hashes of the whole pool, and the
    shards on the other nodes are the journal's.

    Raises: Corrupt when a shard stands where the journal does and holds something else.
    """
    with translated():
        # Writers may have counted answers there since.
        if not isinstance(client, RedisCluster) or client.hexists(store.keys.meta, JOURNAL_FIELD):
            return False
    point, waiting = journal.point, store.outbox_lengths()
    for shard, position in reached.items():
        if position == point.position(shard):
            _check_digest(store, shard, point)
    # Ahead of the journal is only a shard whose newest commits wait for it.
    return all(waiting[s] or not _before(point.position(s), p) for s, p in reached.items())


def _bind(client: Client, keys: Keys, journal: Journal) -> None:
    with translated():
        client.hset(
            keys.meta,
            mapping={
                SHARD_COUNT_FIELD: keys.shard_count,
                JOURNAL_FIELD: journal.id,
                _CREATED_FIELD: now_us(),
            },
        )


def _check_nothing_lost(client: Client, keys: Keys, journal: Journal) -> None:
    """Whatever was confirmed must be in the log: a published position beyond its end means a lost log."""
    point = journal.point
    for shard, journaled in enumerate(read_watermark(client, keys, keys.shards)):
        confirmed = journaled.position
        if _before(point.position(shard), confirmed):
            raise SequenceGap(
                f"{journal.path} ends at {point.position(shard)} of shard {shard:02x}, but {confirmed} was "
                f"confirmed: lines are missing; restore it from a backup, {_BEGIN_EMPTY}"
            )


def _refill_of(journal: Journal, shards: Collection[int], snapshot: SnapshotInfo | None) -> Refill:
    """What to fill; a snapshot saves reading all of the journal, if its files are whole."""
    is_usable = snapshot is not None and is_whole(journal.path.parent, snapshot)
    return Refill(
        journal=journal.path,
        records={shard: journal.point.digest(shard).count for shard in shards},
        snapshot=snapshot.point if snapshot is not None and is_usable else None,
        until=journal.point,
    )


def _catch_up(store: RedisStore, journal: Journal, behind: Positions, settings: Settings) -> int:
    """Replay what shards that are `behind` (shard → the store's position) lack; how many lines that were."""
    return Replay(Restoring(store), batch_max=settings.batch_max).lines(
        line
        for line in read_lines(journal.path, since=_start(journal, behind), until=journal.point)
        if line.shard in behind and _before(behind[line.shard], line.position)
    )


def _start(journal: Journal, behind: Positions) -> JournalPoint | None:
    """From where the journal has to be read; None for all of it."""
    for point in points_back(journal.path):
        if not any(_before(p, point.position(s)) for s, p in behind.items()):
            return point
    return None


def _snapshot_of(journal: Journal) -> SnapshotInfo | None:
    """The journal's snapshot, if there is one. Raises: Corrupt, SequenceGap when it is not this journal's."""
    folder = journal.path.parent
    finish_snapshot(folder)
    snapshot = load_snapshot(folder)
    if snapshot is None:
        return None
    if snapshot.journal != journal.id:
        raise Corrupt(
            f"{folder / SNAPSHOT_NAME} belongs to journal {snapshot.journal}, {journal.path} is journal "
            f"{journal.id}; put the right log back, or remove the snapshot"
        )
    point = journal.point
    if any(_before(point.position(s), p) for s, p in snapshot.covers.items()):
        raise SequenceGap(
            f"{journal.path} ends before its snapshot does: lines are missing; restore it from a backup"
        )
    return snapshot


def _check_digest(store: RedisStore, shard: int, point: JournalPoint) -> None:
    found, expected = store.digest(shard), point.digest(shard)
    if (found.digest, found.count) != (expected.text, expected.count):
        raise Corrupt(
            f"shard {shard:02x} holds {found.count} records ({found.digest}), the journal at the same "
            f"place {expected.count} ({expected.text}); stop the writers, empty the store and recover again"
        )


def _behind(journal: Journal, reached: Positions) -> Positions:
    """The shards whose store has not `reached` the journal's position, and where each is."""
    return {s: p for s, p in reached.items() if _before(p, journal.point.position(s))}


def _is_empty(positions: Positions) -> bool:
    return all(position == START_POSITION for position in positions.values())


def _before(one: str, other: str) -> bool:
    return parse_position(one) < parse_position(other)
