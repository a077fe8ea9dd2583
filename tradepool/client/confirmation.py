"""Which commands the pool has in its journal, and which it refused, learned by reading the store.

A command is in the store when its record names it among the applied ones, or when it has left an
answer. It is journaled when the journal has passed the position that the shard's outbox had after
that. Should a server lose its newest commits and be recovered in between, positions start over from
the journal's, so what was learned under another generation of the store is forgotten and read again.

Most looks find that nothing has moved, and cost one exchange; what to look up then, `inquiry` says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tradepool.client.applied_ids import applied_ids, names
from tradepool.client.inquiry import Inquiry
from tradepool.client.look import Look, Position, take_look
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.errors import Misconfigured, Unavailable
from tradepool.logger import Logger
from tradepool.model.ids import short_id
from tradepool.model.positions import parse_position
from tradepool.store.answers import refusal_in
from tradepool.store.connection import Client
from tradepool.store.redis_store import RedisStore

__all__ = ["Confirmation", "Finished", "Rejection"]

log = Logger(__name__)

SWEEP_EVERY_S = 5.0
SWEPT_MAX = 100
"""So many commands are looked up again that often whatever has moved, should a sign have been missed."""


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
    is_stale: bool


class Confirmation:
    """What is known of commands under way. For one thread; all calls raise StoreUnavailable."""

    def __init__(self, client: Client, store: RedisStore) -> None:
        self._client = client
        self._store = store
        self._inquiries: dict[str, Inquiry] = {}
        self._look: Look | None = None
        """The last one."""
        self._swept_at_s = time.monotonic()
        self._applied: dict[int, _Applied] = {}
        self._routes: dict[str, int] = {}
        """Shards of trades under way whose ids do not carry them; void after a recovery, like all of this."""
        self._seen: dict[str, tuple[int, Position]] = {}
        """Trades found by `is_journaled`: their shard, and where it stood then."""
        self._seen_in: str | None = None
        """The generation that `_seen` belongs to."""

    def window(self, queue: str) -> int:
        """How many of the oldest messages on `queue` the next `check` means to look at."""
        return self._inquiry(queue).window

    def check(self, under_way: Mapping[str, Sequence[Message]]) -> list[Finished]:
        """Those commands of messages under way, by queue oldest first, that have finished, in bot order."""
        look, before = take_look(self._client, self._store.keys), self._look
        has_moved = look != before
        if before is None or look.generation != before.generation:
            self._forget_all()
            self._store.generation()
        self._look = look
        self._sweep()
        refused = [
            finished
            for queue, messages in under_way.items()
            for finished in self._look_up(self._inquiry(queue), messages, look, has_moved=has_moved)
        ]
        done = sorted(refused + self._take_journaled(look), key=lambda finished: finished.entry.seq)
        self._forget(done)
        return done

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
        look = take_look(self._client, self._store.keys)
        if self._store.generation() != generation:
            return dict.fromkeys(trade_ids, False)
        return {trade_id: self._has_passed(trade_id, look) for trade_id in trade_ids}

    def has(self, trade_id: str) -> bool:
        """Whether the trade is in the store, journaled or not."""
        (shard,) = self._store.shards_of_trades([trade_id])
        return shard is not None and self._store.read([(shard, trade_id)]) != [None]

    def _look_for(self, trade_ids: Sequence[str]) -> None:
        """Note where the shards of those of `trade_ids` stand that are in the store."""
        placed = zip(trade_ids, self._store.shards_of_trades(trade_ids), strict=True)
        known = [(shard, trade_id) for trade_id, shard in placed if shard is not None]
        values = self._store.read(known)
        # After the reads: whatever they saw stands at or before these positions.
        positions = self._positions({shard for shard, _ in known})
        for (shard, trade_id), value in zip(known, values, strict=True):
            if value is not None:
                self._seen[trade_id] = (shard, positions[shard])

    def _has_passed(self, trade_id: str, look: Look) -> bool:
        if trade_id not in self._seen:
            return False
        shard, position = self._seen[trade_id]
        return position <= look.position(shard)

    def _look_up(
        self, inquiry: Inquiry, messages: Sequence[Message], look: Look, *, has_moved: bool
    ) -> list[Finished]:
        """Note what the store has applied of one queue's messages; the refused ones come back.

        What is found of a message has the rest of it looked up as well.
        """
        refused: list[Finished] = []
        found: set[int] = set()
        for _ in range(2):
            chosen = inquiry.choose(messages, self._applied.keys() | found, look)
            refused += self._note_each(inquiry, chosen, look)
            now_found = {entry.seq for entry in chosen if entry.seq in self._applied}
            now_found.update(one.entry.seq for one in refused)
            if now_found <= found:
                break
            found |= now_found
        if found or has_moved:
            inquiry.adapt(messages, found)
        return refused

    def _note_each(self, inquiry: Inquiry, entries: Sequence[SpoolEntry], look: Look) -> list[Finished]:
        """Like `_note_applied`; an entry that cannot be looked up holds up none but itself."""
        if not entries:
            return []
        try:
            return self._note_applied(inquiry, entries, look)
        except (Unavailable, Misconfigured):
            raise
        except Exception as problem:  # noqa: BLE001 - one bad entry must not stop its neighbours
            if len(entries) == 1:
                log.error("cannot confirm a command", command_id=entries[0].command_id, problem=repr(problem))  # noqa: TRY400 - comes again
                inquiry.note(entries, look)
                return []
        half = len(entries) // 2
        parts = entries[:half], entries[half:]
        return [finished for part in parts for finished in self._note_each(inquiry, part, look)]

    def _note_applied(self, inquiry: Inquiry, entries: Sequence[SpoolEntry], look: Look) -> list[Finished]:
        """Remember what the store has applied; the refused ones come back.

        Nothing is believed of a server that was recovered after `look` or, having lost its newest commits,
        still waits for that. Raises: Fenced while it waits.
        """
        shards = self._shards(entries)
        applied = self._find_applied(entries, shards)
        left = [entry for entry in entries if entry.seq not in applied]
        asked = [entry for entry in left if inquiry.may_have_answered(entry, look)]
        answers = self._store.answers([short_id(entry.command_id) for entry in asked])
        answered = {e.seq: answer for e, answer in zip(asked, answers, strict=True) if answer is not None}
        ended = [entry for entry in entries if entry.seq in applied or entry.seq in answered]
        # After the reads: whatever they saw stands at or before these positions.
        positions = self._positions({shard for e in ended if (shard := shards[e.seq]) is not None})
        if ended and self._store.generation() != look.generation:
            return []
        refused = []
        for entry in ended:
            shard, answer = shards[entry.seq], answered.get(entry.seq)
            # A command that was refused once may have been sent again by an operator, and applied.
            if (reason := refusal_in(answer)) is not None:
                rejection = Rejection(command_id=entry.command_id, record_id=entry.record_id, **reason)
                refused.append(Finished(entry, rejection))
            elif shard is not None:
                self._applied[entry.seq] = _Applied(entry, shard, positions[shard], answer == "stale")
        inquiry.note([entry for entry in left if entry.seq not in answered], look)
        return refused

    def _find_applied(self, entries: Sequence[SpoolEntry], shards: Mapping[int, int | None]) -> set[int]:
        """The `seq` of those whose records name them among the commands that were applied."""
        placed = {e.seq: (shard, e.record_id) for e in entries if (shard := shards[e.seq]) is not None}
        records = list(dict.fromkeys(placed.values()))
        remembered = dict(zip(records, map(applied_ids, self._store.read(records)), strict=True))
        return {
            entry.seq
            for entry in entries
            if entry.seq in placed and names(remembered[placed[entry.seq]], short_id(entry.command_id))
        }

    def _shards(self, entries: Sequence[SpoolEntry]) -> dict[int, int | None]:
        """The shard of each entry by its `seq`; None where its trade was never routed."""
        unknown = [e.record_id for e in entries if self._shard_of(e) is None]
        routed = zip(unknown, self._store.shards_of_trades(unknown), strict=True)
        self._routes.update((trade_id, shard) for trade_id, shard in routed if shard is not None)
        return {entry.seq: self._shard_of(entry) for entry in entries}

    def _shard_of(self, entry: SpoolEntry) -> int | None:
        keys = self._store.keys
        if entry.user_id is not None:
            return keys.shard_of_user(entry.user_id)
        home = keys.home_shard(entry.record_id)
        return self._routes.get(entry.record_id) if home is None else home

    def _take_journaled(self, look: Look) -> list[Finished]:
        shards = {noted.shard for noted in self._applied.values()}
        reached = {shard: look.position(shard) for shard in shards}
        done = [noted for noted in self._applied.values() if noted.position <= reached[noted.shard]]
        return [Finished(noted.entry, None, noted.is_stale) for noted in done]

    def _forget(self, done: Sequence[Finished]) -> None:
        for finished in done:
            self._applied.pop(finished.entry.seq, None)
            self._routes.pop(finished.entry.record_id, None)
            self._inquiry(finished.entry.queue).forget([finished.entry.seq])

    def _forget_all(self) -> None:
        """The server was recovered: what was learned before may be gone."""
        self._applied.clear()
        self._routes.clear()
        for inquiry in self._inquiries.values():
            inquiry.forget_looks()

    def _sweep(self) -> None:
        now_s = time.monotonic()
        if now_s - self._swept_at_s >= SWEEP_EVERY_S:
            self._swept_at_s = now_s
            # A server that has restarted, and waits for its recovery, shows nothing else by which to tell.
            self._store.generation()
            for inquiry in self._inquiries.values():
                inquiry.forget_looks(SWEPT_MAX)

    def _inquiry(self, queue: str) -> Inquiry:
        return self._inquiries.setdefault(queue, Inquiry(self._shard_of))

    def _positions(self, shards: set[int]) -> dict[int, Position]:
        places = sorted(shards)
        return dict(zip(places, map(parse_position, self._store.positions(places)), strict=True))
