"""Which commands the pool has in its journal, and which it refused, learned by reading the store.

A command is in the store when its record names it among the applied ones, or when it has left an
answer. It is journaled when the journal has passed the position that the shard's outbox had after
that. Should a server lose its newest commits and be recovered in between, positions start over from
the journal's, so what was learned under another generation of the store is forgotten and read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tradepool.client.spool import SpoolEntry
from tradepool.errors import Corrupt, Misconfigured, Unavailable
from tradepool.logger import Logger
from tradepool.model.codec import unpack
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.positions import parse_position
from tradepool.store.answers import refusal_in
from tradepool.store.connection import Client
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.redis_store import RedisStore
from tradepool.store.translation import translated
from tradepool.store.watermark import parse_watermark

__all__ = ["Confirmation", "Finished", "Rejection"]

log = Logger(__name__)

Position = tuple[int, int]
_NOWHERE: Position = (0, 0)


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A command that the fleet refused; it is parked there as a dead letter."""

    command_id: str
    record_id: str
    """The trade's id, or `user_id` and `account_id` of a token balance."""
    error: str
    problem: str
    field: str = ""
    value: str = ""
    cure: str = ""


class Finished(NamedTuple):
    """A command that needs no more care: journaled, or refused, or `stale`: it came too late for anything."""

    entry: SpoolEntry
    rejection: Rejection | None
    is_stale: bool = False


class _Applied(NamedTuple):
    entry: SpoolEntry
    shard: int
    position: Position
    generation: bytes | None
    is_stale: bool


class _Found(NamedTuple):
    """Where an entry's record is, whether the store has applied the entry, and its answer if any."""

    entry: SpoolEntry
    shard: int | None
    applied: bool
    answer: str | None


class Confirmation:
    """What is known of commands under way. For one thread; all calls raise StoreUnavailable."""

    def __init__(self, client: Client, store: RedisStore) -> None:
        self._client = client
        self._store = store
        self._applied: dict[int, _Applied] = {}
        self._seen: dict[str, tuple[int, Position]] = {}
        """Trades found by `is_journaled`: their shard, and where it stood then."""
        self._seen_in: str | None = None
        """The generation that `_seen` belongs to."""

    def check(self, entries: Sequence[SpoolEntry]) -> list[Finished]:
        """Those that have finished, of `entries` and of what earlier calls found applied."""
        fresh = [entry for entry in entries if entry.seq not in self._applied]
        refused = self._note_each(fresh) if fresh else []
        return refused + self._take_journaled()

    def is_journaled(self, trade_ids: Sequence[str]) -> dict[str, bool]:
        """Whether each trade is in the store, and the journal has passed where its shard stood then.

        Then is when a call first saw the trade there, not now: while others keep committing to the
        shard, the journal never has its newest commit. What was seen before the server was recovered
        counts no more, for it may be gone.

        Raises: Fenced while the server waits for its recovery.
        """
        generation = self._store.generation()
        if generation != self._seen_in:
            self._seen, self._seen_in = {}, generation
        self._look_for([trade_id for trade_id in trade_ids if trade_id not in self._seen])
        _, reached = self._watermark()
        if self._store.generation() != generation:
            return dict.fromkeys(trade_ids, False)
        return {trade_id: self._has_passed(trade_id, reached) for trade_id in trade_ids}

    def _look_for(self, trade_ids: Sequence[str]) -> None:
        """Note where the shards of those of `trade_ids` stand that are in the store."""
        if not trade_ids:
            return
        placed = zip(trade_ids, self._store.shards_of_trades(trade_ids), strict=True)
        known = [(shard, trade_id) for trade_id, shard in placed if shard is not None]
        values = self._store.read(known)
        # After the reads: whatever they saw stands at or before these positions.
        positions = self._store.last_positions()
        for (shard, trade_id), value in zip(known, values, strict=True):
            if value is not None:
                self._seen[trade_id] = (shard, parse_position(positions[shard]))

    def _has_passed(self, trade_id: str, reached: Mapping[int, Position]) -> bool:
        if trade_id not in self._seen:
            return False
        shard, position = self._seen[trade_id]
        return position <= reached.get(shard, _NOWHERE)

    def _note_each(self, entries: Sequence[SpoolEntry]) -> list[Finished]:
        """Like `_note_applied`; an entry that cannot be looked up holds up none but itself."""
        try:
            return self._note_applied(entries)
        except (Unavailable, Misconfigured):
            raise
        except Exception as problem:  # noqa: BLE001 - one bad entry must not stop its neighbours
            if len(entries) == 1:
                log.error("cannot confirm a command", command_id=entries[0].command_id, problem=repr(problem))  # noqa: TRY400 - comes again each round
                return []
        half = len(entries) // 2
        return self._note_each(entries[:half]) + self._note_each(entries[half:])

    def _note_applied(self, entries: Sequence[SpoolEntry]) -> list[Finished]:
        """Remember what the store has applied; the refused ones come back.

        Nothing is believed of a server that was recovered meanwhile or, having lost its newest commits,
        still waits for that. Raises: Fenced while it waits.
        """
        before = self._store.generation()
        found = self._find(entries)
        # After the reads: whatever they saw stands at or before these positions.
        positions = self._store.last_positions()
        generation, _ = self._watermark()
        if self._store.generation() != before:
            return []
        refused = []
        for entry, shard, applied, answer in found:
            # A command that was refused once may have been sent again by an operator, and applied.
            if (reason := refusal_in(answer)) is not None and not applied:
                rejection = Rejection(command_id=entry.command_id, record_id=entry.record_id, **reason)
                refused.append(Finished(entry, rejection))
            elif shard is not None and (applied or answer is not None):
                position = parse_position(positions[shard])
                is_stale = answer == "stale" and not applied
                self._applied[entry.seq] = _Applied(entry, shard, position, generation, is_stale)
        return refused

    def _find(self, entries: Sequence[SpoolEntry]) -> list[_Found]:
        shards = self._shards(entries)
        placed = {(shard, e.record_id) for e, shard in zip(entries, shards, strict=True) if shard is not None}
        records = sorted(placed)
        applied = dict(zip(records, map(_applied_ids, self._store.read(records)), strict=True))
        short_ids = [short_id(entry.command_id) for entry in entries]
        answers = self._store.answers(short_ids)
        return [
            _Found(e, shard, shard is not None and short in applied[shard, e.record_id], answer)
            for e, shard, short, answer in zip(entries, shards, short_ids, answers, strict=True)
        ]

    def _shards(self, entries: Sequence[SpoolEntry]) -> list[int | None]:
        by_trade = self._store.shards_of_trades([e.record_id for e in entries if e.user_id is None])
        routed = iter(by_trade)
        keys = self._store.keys
        return [next(routed) if e.user_id is None else keys.shard_of_user(e.user_id) for e in entries]

    def _take_journaled(self) -> list[Finished]:
        if not self._applied:
            return []
        generation, reached = self._watermark()
        stale = [seq for seq, noted in self._applied.items() if noted.generation != generation]
        self._forget(stale)
        done = [n for n in self._applied.values() if n.position <= reached.get(n.shard, _NOWHERE)]
        self._forget(noted.entry.seq for noted in done)
        return [Finished(noted.entry, None, noted.is_stale) for noted in done]

    def _forget(self, seqs: Iterable[int]) -> None:
        for seq in list(seqs):
            del self._applied[seq]

    def _watermark(self) -> tuple[bytes | None, dict[int, Position]]:
        """The store's generation, and how far the journal has come in each shard, of one moment."""
        keys = self._store.keys
        with translated():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(keys.meta, GENERATION_FIELD)
            pipeline.hmget(keys.journal, keys.journal_fields())
            generation, values = pipeline.execute()
        reached = {shard: parse_position(parse_watermark(v).position) for shard, v in enumerate(values)}
        return generation, reached


def _applied_ids(value: bytes | None) -> set[str]:
    """The short ids of the commands that a record remembers; none of one that cannot be read."""
    if value is None:
        return set()
    try:
        record = unpack(value)
    except Corrupt as problem:
        log.error("cannot read a record", problem=str(problem))  # noqa: TRY400 - an audit finds the place
        return set()
    ids = record.applied
    return {ids[i : i + SHORT_ID_CHARS] for i in range(0, len(ids), SHORT_ID_CHARS)}
