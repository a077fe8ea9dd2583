"""Writing journaled versions and snapshot records into a store that may lack them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tradepool.errors import Corrupt
from tradepool.files.lines import JournalLine
from tradepool.files.snapshot import StoredRecord
from tradepool.model import codec
from tradepool.model.ids import slot_of_user
from tradepool.model.ledger import Ledger, ledger_id
from tradepool.model.trade import Trade
from tradepool.store.plan import RecordChange
from tradepool.store.redis_store import RedisStore

__all__ = ["Replay"]


class _Version(NamedTuple):
    """What to write unless the store has it; `previous` is the digest it was made from, if known."""

    version: int
    digest: str
    previous: str | None
    value: bytes


class Replay:
    """Brings records of a fenced store forward, each to its newest version, never back.

    Versions of a record must come in order. They are gathered per shard and written in batches of up
    to `batch_max`; memory holds one unfinished batch of each shard.
    """

    def __init__(self, store: RedisStore, *, batch_max: int) -> None:
        self._store = store
        self._batch_max = batch_max
        self._waiting: dict[int, list[tuple[str, _Version]]] = defaultdict(list)

    def records(self, records: Iterable[StoredRecord]) -> int:
        """Write what a snapshot holds; how many records that were. Raises: Corrupt, StoreUnavailable."""
        count = 0
        for value, content in records:
            header = codec.read_header(value)
            shard = self._store.keys.shard_of_user(content.user_id)
            self._add(shard, _record_id(content), _Version(header.version, header.digest, None, value))
            count += 1
        self._write_all()
        return count

    def lines(self, lines: Iterable[JournalLine]) -> int:
        """Write what journal lines hold; how many lines that were.

        Raises: Corrupt when a line does not continue what the store has; StoreUnavailable.
        """
        count = 0
        for line in lines:
            version = _Version(line.version, line.digest, line.previous, line.value)
            self._add(line.shard, line.record_id, version)
            count += 1
        self._write_all()
        return count

    def _add(self, shard: int, record_id: str, version: _Version) -> None:
        waiting = self._waiting[shard]
        waiting.append((record_id, version))
        if len(waiting) >= self._batch_max:
            self._write(shard)

    def _write_all(self) -> None:
        for shard in list(self._waiting):
            self._write(shard)

    def _write(self, shard: int) -> None:
        versions: dict[str, list[_Version]] = defaultdict(list)
        for record_id, version in self._waiting.pop(shard):
            versions[record_id].append(version)
        stored = self._store.read([(shard, record_id) for record_id in versions])
        changes = [
            change
            for (record_id, steps), value in zip(versions.items(), stored, strict=True)
            if (change := _change(record_id, steps, value)) is not None
        ]
        if changes:
            self._put_routes(changes)
            self._store.restore(shard, changes)

    def _put_routes(self, changes: Iterable[RecordChange]) -> None:
        """Make trades findable whose ids do not carry their shard; the journal knows whose they are."""
        wanted = {
            change.record_id: slot_of_user(change.user_id)
            for change in changes
            if change.kind == codec.TRADE_KIND and self._store.keys.home_shard(change.record_id) is None
        }
        if not wanted:
            return
        for trade_id, slot in self._store.put_routes(wanted).items():
            if slot != wanted[trade_id]:
                self._store.move_route(trade_id, wanted[trade_id])


def _change(record_id: str, steps: list[_Version], stored: bytes | None) -> RecordChange | None:
    """From what is stored to the newest of `steps`; None when the store is there already."""
    version, digest = 0, ""
    if stored is not None:
        header = codec.read_header(stored)
        version, digest = header.version, header.digest
    missing = [step for step in steps if step.version > version]
    if any(step.version == version and step.digest != digest for step in steps):
        raise Corrupt(f"record {record_id!r}: the store's version {version} is not the journal's")
    if not missing:
        return None
    _check_continues(record_id, version, digest, missing)
    after = missing[-1].value
    content, before = _content(after), None if stored is None else _content(stored)
    return RecordChange(
        kind=codec.read_header(after).kind,
        record_id=record_id,
        user_id=content.user_id,
        before=stored,
        after=after,
        trade_before=before if isinstance(before, Trade) else None,
        trade_after=content if isinstance(content, Trade) else None,
        command_id="",
    )


def _check_continues(record_id: str, version: int, digest: str, missing: list[_Version]) -> None:
    for step in missing:
        if step.previous is not None and (step.version, step.previous) != (version + 1, digest):
            raise Corrupt(
                f"record {record_id!r}: version {step.version} in the journal does not follow {version}"
            )
        version, digest = step.version, step.digest


def _content(value: bytes) -> Trade | Ledger:
    if codec.read_header(value).kind == codec.TRADE_KIND:
        return codec.unpack_trade(value)
    return codec.unpack_ledger(value)


def _record_id(content: Trade | Ledger) -> str:
    if isinstance(content, Trade):
        return content.trade_id
    return ledger_id(content.user_id, content.account_id)
