"""Bringing records forward, from a snapshot and from journal lines, each to its newest version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tradepool.batching import batched
from tradepool.errors import Corrupt, StoreUnavailable, TradePoolError, VersionConflict
from tradepool.files.lines import JournalLine
from tradepool.files.snapshot import StoredRecord
from tradepool.model import codec
from tradepool.model.ids import slot_of_user
from tradepool.model.ledger import Ledger, ledger_id, next_expiry
from tradepool.model.trade import Trade
from tradepool.store.plan import RecordChange, routes_of
from tradepool.store.redis_store import RedisStore

__all__ = ["Replay", "ReplayTarget", "Restoring"]

_ROUTES_PAGE = 1000

_CURE = "prove the journal with 'tradepool verify-log'; if it is whole, empty the store and recover"


class ReplayTarget(Protocol):
    """What a replay writes to. Both raise StoreUnavailable and Corrupt."""

    def read(self, records: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """The stored values of (shard, record id) pairs as written so far; None: no such record."""

    def write(self, shard: int, changes: Sequence[RecordChange]) -> None:
        """Write changes of one shard, one for each record."""


class Restoring:
    """Writes through the commit script: compared, whole batches, so that it may be cut short anywhere."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def read(self, records: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """What the store has of `records`."""
        return self._store.read(records)

    def write(self, shard: int, changes: Sequence[RecordChange]) -> None:
        """Write all `changes` or none, and the routes that lead to them."""
        self._put_routes(routes_of(self._store.keys, changes))
        try:
            self._store.restore(shard, changes)
        except VersionConflict as conflict:
            raise self._explained(shard, changes, conflict) from conflict

    def count_archived(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Count a user's archived trades, unless that was done."""
        self._store.restore_archived_counters(user_id, amounts)

    def put_routes_of(self, shards: Iterable[int]) -> None:
        """Make the trades of `shards` findable again: their routes were on a node that lost them."""
        for shard in shards:
            for page in batched(self._store.scan_records(shard), _ROUTES_PAGE):
                self._put_routes(
                    {
                        record_id: slot_of_user(codec.unpack(value).user_id)
                        for record_id, value in page
                        if codec.read_header(value).kind != codec.LEDGER_KIND
                        and self._store.keys.home_shard(record_id) is None
                    }
                )

    def _explained(
        self, shard: int, changes: Sequence[RecordChange], conflict: VersionConflict
    ) -> TradePoolError:
        """Nobody else writes now. But the server may only now have come to what an earlier recovery sent."""
        stored = self._store.read([(shard, change.record_id) for change in changes])
        if stored != [change.before for change in changes]:
            return StoreUnavailable(f"what was sent to the server before arrives late: {conflict}")
        return Corrupt(f"{conflict}; the journal has an idempotency key or a fill twice")

    def _put_routes(self, wanted: Mapping[str, int]) -> None:
        """Make trades findable whose ids do not carry their shard: id → the slot of whose they are."""
        if not wanted:
            return
        for trade_id, slot in self._store.put_routes(wanted).items():
            if slot != wanted[trade_id]:
                self._store.move_route(trade_id, wanted[trade_id])


class _Step(NamedTuple):
    """One version of a record; `previous` is the digest it was made from, None where nobody knows it."""

    version: int
    digest: str
    previous: str | None
    source: JournalLine | StoredRecord


class Replay:
    """Brings records of a fenced store forward, each to its newest version, never back.

    Versions of a record must come in order. They are gathered per shard and written in batches of
    `batch_max` versions; memory holds one unfinished batch of each shard. `begins_empty` promises that
    nothing has been written yet, so that first versions need not be looked for.
    """

    def __init__(self, target: ReplayTarget, *, batch_max: int, begins_empty: bool = False) -> None:
        self._target = target
        self._batch_max = batch_max
        self._begins_empty = begins_empty
        self._waiting: dict[int, list[tuple[str, _Step]]] = defaultdict(list)

    def records(self, records: Iterable[tuple[int, StoredRecord]]) -> int:
        """Write (shard, record) pairs of a snapshot; their number. Raises: Corrupt, StoreUnavailable."""
        count = 0
        for shard, record in records:
            header = codec.read_header(record.value)
            step = _Step(header.version, header.digest, None, record)
            self._add(shard, _record_id(record.content), step)
            count += 1
        self._write_all()
        self._begins_empty = self._begins_empty and count == 0
        return count

    def lines(self, lines: Iterable[JournalLine]) -> int:
        """Write what journal lines hold; how many lines that were.

        Raises: Corrupt when a line does not continue what the store has; StoreUnavailable.
        """
        count = 0
        for line in lines:
            self._add(line.shard, line.record_id, _Step(line.version, line.digest, line.previous, line))
            count += 1
        self._write_all()
        return count

    def _add(self, shard: int, record_id: str, step: _Step) -> None:
        waiting = self._waiting[shard]
        waiting.append((record_id, step))
        if len(waiting) >= self._batch_max:
            self._write(shard)

    def _write_all(self) -> None:
        for shard in list(self._waiting):
            self._write(shard)

    def _write(self, shard: int) -> None:
        records: dict[str, list[_Step]] = defaultdict(list)
        for record_id, step in self._waiting.pop(shard):
            records[record_id].append(step)
        stored = self._stored(shard, records)
        changes = [
            change
            for record_id, steps in records.items()
            if (change := _change(record_id, steps, stored.get(record_id))) is not None
        ]
        # What an archived trade gives free another one of the batch may claim.
        changes.sort(key=lambda change: change.kind != codec.ARCHIVED_KIND)
        if changes:
            self._target.write(shard, changes)

    def _stored(self, shard: int, records: dict[str, list[_Step]]) -> dict[str, bytes | None]:
        wanted = [
            record_id
            for record_id, steps in records.items()
            if not (self._begins_empty and _is_first(steps[0]))
        ]
        if not wanted:
            return {}
        return dict(zip(wanted, self._target.read([(shard, record_id) for record_id in wanted]), strict=True))


def _is_first(step: _Step) -> bool:
    """Whether there can have been no version of the record before."""
    return step.previous is None or (step.version == 1 and not step.previous)


def _change(record_id: str, steps: list[_Step], stored: bytes | None) -> RecordChange | None:
    """From what is stored to the newest of `steps`; None when the store is there already."""
    version, digest = 0, ""
    if stored is not None:
        header = codec.read_header(stored)
        version, digest = header.version, header.digest
    missing = [step for step in steps if step.version > version]
    if any(step.version == version and step.digest != digest for step in steps):
        raise Corrupt(f"record {record_id!r}: the store's version {version} is not the journal's; {_CURE}")
    if not missing:
        return None
    _check_continues(record_id, version, digest, missing)
    before = None if stored is None else codec.unpack(stored)
    newest = missing[-1].source
    after = _content(newest)
    is_archived = newest.kind == codec.ARCHIVED_KIND
    last = _content(missing[-2].source) if is_archived and len(missing) > 1 else before
    return RecordChange(
        kind=newest.kind,
        record_id=record_id,
        user_id=after.user_id,
        before=stored,
        after=newest.value,
        trade_before=before if isinstance(before, Trade) else None,
        trade_after=after if isinstance(after, Trade) else None,
        trade_archived=last if is_archived and isinstance(last, Trade) else None,
        next_expiry=next_expiry(after) if isinstance(after, Ledger) else None,
        command_id="",
    )


def _check_continues(record_id: str, version: int, digest: str, missing: list[_Step]) -> None:
    for step in missing:
        if step.previous is not None and (step.version, step.previous) != (version + 1, digest):
            raise Corrupt(
                f"record {record_id!r}: version {step.version} in the journal does not follow {version}; "
                f"{_CURE}"
            )
        version, digest = step.version, step.digest


def _content(source: JournalLine | StoredRecord) -> codec.Record:
    if isinstance(source, StoredRecord):
        return source.content
    return codec.decode(source.kind, bytes(source.record))


def _record_id(content: codec.Record) -> str:
    if isinstance(content, Ledger):
        return ledger_id(content.user_id, content.account_id)
    return content.trade_id
