"""Waiting for the journal: how far it has fsynced each shard's outbox, and whom that wakes.

The journal publishes its positions in one hash. However many threads of a process wait, one thread
reads it, only while somebody waits and only what is waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from tradepool.errors import JournalUnavailable, TradePoolError
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["POLL_S", "JournaledShard", "Watermark", "parse_watermark", "read_watermark", "watermark_text"]

POLL_S = 0.001
"""How often the journal's hash is read while somebody waits."""

_POLL_FAILED_S = 0.1
_STILL_AFTER_S = 0.1
_POLL_STILL_S = 0.025
"""How often it is read once it has not moved for `_STILL_AFTER_S`: the journal is away, or its disk is slow,
and a core is worth more than some milliseconds then."""
_LINGER_S = 1.0
"""How long the poller stays for the next one who waits, so that not every commit starts a thread."""
_NOWHERE = (0, 0)


class JournaledShard(msgspec.Struct, frozen=True):
    """What the journal's writer has published about a shard."""

    position: str
    """The newest outbox position that is on disk."""
    digest: str
    """XOR of the digests of its records, 16 hex."""
    count: int
    """How many records that are."""


_NOTHING = JournaledShard(START_POSITION, "0" * 16, 0)


def parse_watermark(value: bytes | str | None) -> JournaledShard:
    """One shard's field of `Keys.journal`; None, where nothing was published, is a shard without records."""
    if value is None:
        return _NOTHING
    text = value.decode() if isinstance(value, bytes) else value
    position, digest, count = text.split(" ")
    return JournaledShard(position, digest, int(count))


def watermark_text(position: str, digest: str, count: int) -> str:
    """What `parse_watermark` reads."""
    return f"{position} {digest} {count}"


def read_watermark(client: Client, keys: Keys, shards: Sequence[int]) -> list[JournaledShard]:
    """What has been published about each of `shards`, of one moment. Raises: StoreUnavailable."""
    with translated():
        values = client.hmget(keys.journal, [keys.journal_field(shard) for shard in shards])
    return [parse_watermark(value) for value in values]


class Watermark:
    """The journal's positions as one process knows them. Threads share an instance.

    With `poll_s` None nothing is read, and every position has to come through `notify`: for a process
    that runs the journal itself.
    """

    def __init__(self, client: Client, keys: Keys, poll_s: float | None = POLL_S) -> None:
        self._client = client
        self._keys = keys
        self._poll_s = poll_s
        lock = threading.RLock()
        self._moved_at_s = 0.0
        """When it moved last, or somebody began to wait for it."""
        self._changed = threading.Condition(lock)
        self._asked = threading.Condition(lock)
        self._reached: dict[int, tuple[int, int]] = {}
        self._waiters: list[Mapping[int, tuple[int, int]]] = []
        self._poller: threading.Thread | None = None
        self._problem: TradePoolError | None = None
        self._stopped: TradePoolError | None = None

    def wait(self, positions: Mapping[int, str], timeout_s: float) -> None:
        """Return once the journal has fsynced every shard up to its position (shard → outbox position).

        Raises: JournalUnavailable when that takes longer than `timeout_s`, or the journal of this process
        has stopped; the changes may still be journaled later.
        """
        wanted = {shard: parse_position(position) for shard, position in positions.items()}
        with self._changed:
            self._waiters.append(wanted)
            try:
                self._wake_poller(wanted)
                self._changed.wait_for(lambda: self._stopped or self._has_reached(wanted), timeout_s)
                if not self._has_reached(wanted):
                    raise self._too_late(wanted, timeout_s) from self._stopped or self._problem
            finally:
                self._waiters.remove(wanted)

    def stop(self, why: TradePoolError) -> None:
        """Tell whoever waits, now or later, that nothing more will be journaled by this process, and why."""
        with self._changed:
            self._stopped = why
            self._changed.notify_all()

    def notify(self, positions: Mapping[int, str]) -> None:
        """Take over positions (shard → outbox position) that have just been fsynced."""
        with self._changed:
            for shard, position in positions.items():
                reached = parse_position(position)
                if reached > self._reached.get(shard, _NOWHERE):
                    self._reached[shard] = reached
                    self._moved_at_s = time.monotonic()
            self._changed.notify_all()

    def _has_reached(self, wanted: Mapping[int, tuple[int, int]]) -> bool:
        return all(self._reached.get(shard, _NOWHERE) >= position for shard, position in wanted.items())

    def _wake_poller(self, wanted: Mapping[int, tuple[int, int]]) -> None:
        """Have one poller while somebody waits; a fork has none, whatever its parent had."""
        if self._poll_s is None or self._has_reached(wanted):
            return
        self._moved_at_s = time.monotonic()
        self._asked.notify()
        if self._poller is None or not self._poller.is_alive():
            self._problem = None
            self._poller = threading.Thread(target=self._poll, name="watermark", daemon=True)
            self._poller.start()

    def _poll(self) -> None:
        assert self._poll_s is not None
        while shards := self._awaited():
            try:
                journaled = read_watermark(self._client, self._keys, shards)
                self.notify({shard: j.position for shard, j in zip(shards, journaled, strict=True)})
                self._problem = None
                is_still = time.monotonic() - self._moved_at_s > _STILL_AFTER_S
                time.sleep(max(self._poll_s, _POLL_STILL_S) if is_still else self._poll_s)
            except TradePoolError as problem:
                self._problem = problem
                time.sleep(_POLL_FAILED_S)

    def _awaited(self) -> list[int]:
        """The shards that somebody waits for, now or soon.

        None of them: then the poller is forgotten in that moment, and ends.
        """
        with self._changed:
            shards = self._asked.wait_for(self._behind, _LINGER_S)
            if not shards:
                self._poller = None
            return shards

    def _behind(self) -> list[int]:
        """The shards that have not come as far as somebody waits for them to come."""
        return sorted(
            {
                shard
                for wanted in self._waiters
                for shard, position in wanted.items()
                if self._reached.get(shard, _NOWHERE) < position
            }
        )

    def _too_late(self, wanted: Mapping[int, tuple[int, int]], timeout_s: float) -> JournalUnavailable:
        if self._stopped is not None:
            return JournalUnavailable(f"the journal has stopped: {self._stopped}")
        behind = [s for s, position in wanted.items() if self._reached.get(s, _NOWHERE) < position]
        why = f": {self._problem}" if self._problem else ""
        shards = ", ".join(f"{shard:02x}" for shard in behind[:3])
        return JournalUnavailable(
            f"the journal did not confirm {len(behind)} shards ({shards}) within {timeout_s:g} s{why}"
        )
