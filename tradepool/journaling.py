"""From the outboxes into the journal: the one writer of `trade_pool.log`, and the watermark it publishes.

    outboxes ─XREAD─▶ append ─▶ fsync ─▶ watermark (if still the writer) ─▶ XTRIM

Whatever arrives while an fsync is under way forms the next group, so the disk's speed sets the size
of groups, not the number of clients. A step that fails anywhere is repeated from what is on disk.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

import msgspec
import redis
import structlog

from tradepool.errors import Fenced, Unavailable
from tradepool.files.journal import Journal
from tradepool.files.lines import JournalEntry
from tradepool.model import codec
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store import fence
from tradepool.store.keys import Keys
from tradepool.store.plan import parse_outbox_item
from tradepool.store.translation import translated

__all__ = ["BLOCK_MS", "EPOCH_FIELD", "JournalWriter"]

BLOCK_MS = 100
"""How long a step waits for something to journal, milliseconds."""
EPOCH_FIELD = "epoch"
"""Field of `Keys.journal`: `<number> <token>` of the writer whose watermark counts."""

_ENTRIES_PER_READ = 4
_GROUP_LINES_MAX = 10_000
"""A group ends once it has that many lines; with one read more it bounds the memory of a step."""
_DRAIN_STEPS_MAX = 1000
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 2.0
_TOKEN_BYTES = 8

# KEYS 1 the journal's hash; ARGV 1 the caller's epoch, then pairs of fields and values.
# Returns 1, or 0 when the epoch is another's. Atomic, so that a writer which has just lost its place
# cannot move the watermark.
_PUBLISH = f"""
if redis.call('HGET', KEYS[1], '{EPOCH_FIELD}') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""

_log = structlog.get_logger(__name__)


class JournalWriter:
    """Writes the outboxes of a store into `journal`. One thread runs it; `journal` is its own.

    `notify` gets the positions (shard → outbox position) that have just become durable, after the
    server has them as well.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        journal: Journal,
        notify: Callable[[Mapping[int, str]], None] | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._journal = journal
        self._notify = notify
        self._epoch: str | None = None
        self._unpublished: dict[int, str] = {}
        self._shard_of = {keys.outbox(shard).encode(): shard for shard in range(keys.shard_count)}

    def take_over(self) -> None:
        """Become the writer whose watermark counts, and publish all of it; any other one stops.

        Only after recovery: the store must hold what the journal holds. Raises: StoreUnavailable.
        """
        with translated():
            before = self._client.hget(self._keys.journal, EPOCH_FIELD)
            number = int(before.split()[0]) + 1 if isinstance(before, bytes) else 1
            # The token tells apart two writers that count from the same number after a server has
            # come back with an older one.
            epoch = f"{number} {secrets.token_hex(_TOKEN_BYTES)}"
            self._client.hset(self._keys.journal, EPOCH_FIELD, epoch)
        self._epoch = epoch
        self._unpublished = dict(self._journal.point.positions)
        self._publish()

    def step(self, block_ms: int | None = BLOCK_MS) -> int:
        """Journal what the outboxes hold; the number of lines written.

        Waits up to `block_ms` for the first of it, with None not at all.

        On return the lines are on disk and published. After an error the next step goes on where the
        journal stands; nothing is lost or written twice.

        Raises: StoreUnavailable, JournalUnavailable; Fenced when another writer has taken over or the
        store has lost this one's place; Corrupt.
        """
        if self._epoch is None:
            raise Fenced("this journal writer has no place yet; take_over comes first")
        self._publish()
        entries, positions = self._collect(block_ms)
        self._journal.append(entries)
        self._journal.commit(positions)
        self._unpublished = positions
        self._publish()
        return len(entries)

    def run(self, stop: Event, recover: Callable[[], object]) -> None:
        """Journal until `stop` is set. `recover` is called first, and whenever the server has restarted.

        Waits out what passes by itself (a server that is away, a full disk) with growing pauses. Once
        stopped it journals what the outboxes still hold, unless that fails.

        Raises: Fenced when another writer has taken over; Corrupt.
        """
        pause_s = _PAUSE_MIN_S
        while not stop.is_set():
            try:
                self._go_on(recover)
                pause_s = _PAUSE_MIN_S
            except Fenced:
                raise
            except Unavailable as problem:
                _log.warning("journal_waits", problem=str(problem), pause_s=pause_s)
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        self._drain()

    def _drain(self) -> None:
        """Others may go on writing, so the steps are counted."""
        with contextlib.suppress(Unavailable):
            for _ in range(_DRAIN_STEPS_MAX):
                if self._epoch is None or self.step(block_ms=None) == 0:
                    return

    def _go_on(self, recover: Callable[[], object]) -> None:
        """One step, after recovery when the server has restarted or lost this writer's place."""
        if self._epoch is None:
            recover()
            self.take_over()
        try:
            idle = self.step() == 0
        except Fenced:
            if self._is_replaced():
                raise
            self._epoch = None
            return
        if idle and not fence.is_open(self._client):
            self._epoch = None

    def _is_replaced(self) -> bool:
        """Whether another writer has this one's place; otherwise the store itself has lost it."""
        with translated():
            taken = self._client.hexists(self._keys.journal, EPOCH_FIELD)
        return bool(taken) and fence.is_open(self._client)

    def _collect(self, block_ms: int | None) -> tuple[list[JournalEntry], dict[int, str]]:
        """What the outboxes hold beyond the journal, up to a full group, and the positions it reaches."""
        entries: list[JournalEntry] = []
        positions: dict[int, str] = {}
        while len(entries) < _GROUP_LINES_MAX:
            longest = self._read(entries, positions, block_ms)
            if longest < _ENTRIES_PER_READ:
                break
            block_ms = None
        return entries, positions

    def _read(self, entries: list[JournalEntry], positions: dict[int, str], block_ms: int | None) -> int:
        """Read every outbox once; the length of the longest answer."""
        reached = self._journal.point.positions | positions
        streams: Any = {key: reached.get(shard, START_POSITION) for key, shard in self._shard_of.items()}
        with translated():
            answer: Any = self._client.xread(streams, count=_ENTRIES_PER_READ, block=block_ms)
        longest = 0
        for key, found in answer:
            shard = self._shard_of[key]
            longest = max(longest, len(found))
            for position, fields in found:
                positions[shard] = position.decode()
                entries.extend(_entry(shard, positions[shard], *item) for item in fields.items())
        return longest

    def _publish(self) -> None:
        """Tell the server, then whoever waits in this process, what has become durable; then trim."""
        if not self._unpublished:
            return
        point = self._journal.point
        fields: list[str] = []
        for shard, position in self._unpublished.items():
            digest = point.digest(shard)
            fields += [self._keys.journal_field(shard), f"{position} {digest.text} {digest.count}"]
        with translated():
            published = self._client.eval(_PUBLISH, 1, self._keys.journal, self._epoch or "", *fields)
        if not published:
            raise Fenced("another journal writer has taken over, or the store lost this one's place")
        if self._notify is not None:
            self._notify(self._unpublished)
        self._trim()
        self._unpublished = {}

    def _trim(self) -> None:
        """Drop from the outboxes what is on disk; exactly, because an entry may hold 200 records."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard, position in self._unpublished.items():
                milliseconds, number = parse_position(position)
                pipeline.xtrim(
                    self._keys.outbox(shard), minid=f"{milliseconds}-{number + 1}", approximate=False
                )
            pipeline.execute()


def _entry(shard: int, position: str, name: bytes, value: bytes) -> JournalEntry:
    item = parse_outbox_item(name, value, position)
    header, body = codec.split(item.value)
    return JournalEntry(
        shard=shard,
        position=position,
        index=item.index,
        kind=header.kind,
        record_id=item.record_id,
        command_id=item.command_id,
        task_id=item.task_id,
        version=header.version,
        digest=header.digest,
        previous=item.digest_before,
        status=header.status,
        record=msgspec.Raw(body),
    )
