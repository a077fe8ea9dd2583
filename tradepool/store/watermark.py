"""Waiting for the journal: how far it has fsynced each shard's outbox, and whom that wakes.

The journal publishes its positions in one hash. However many threads of a process wait, one thread
reads it, and only while somebody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import redis

from tradepool.errors import JournalUnavailable, TradePoolError
from tradepool.model.positions import parse_position
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["POLL_S", "Watermark", "parse_watermark"]

POLL_S = 0.001
"""How often the journal's hash is read while somebody waits."""

_POLL_FAILED_S = 0.1
_LINGER_S = 1.0
"""How long the poller stays for the next one who waits, so that not every commit starts a thread."""
_NOWHERE = (0, 0)


def parse_watermark(value: bytes | str) -> tuple[str, str, int]:
    """One shard's field of `Keys.journal`: position, digest of all journaled records, their count."""
    text = value.decode() if isinstance(value, bytes) else value
    position, digest, count = text.split(" ")
    return position, digest, int(count)


class Watermark:
    """The journal's positions as one process knows them. Threads share an instance.

    With `poll_s` None nothing is read, and every position has to come through `notify`: for a process
    that runs the journal itself.
    """

    def __init__(self, client: redis.Redis, keys: Keys, poll_s: float | None = POLL_S) -> None:
        self._client = client
        self._keys = keys
        self._poll_s = poll_s
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._asked = threading.Condition(lock)
        self._reached: dict[int, tuple[int, int]] = {}
        self._waiting = 0
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
            self._waiting += 1
            try:
                self._wake_poller(wanted)
                self._changed.wait_for(lambda: self._stopped or self._has_reached(wanted), timeout_s)
                if not self._has_reached(wanted):
                    raise self._too_late(wanted, timeout_s) from self._stopped or self._problem
            finally:
                self._waiting -= 1

    def stop(self, why: TradePoolError) -> None:
        """Tell whoever waits, now or later, that nothing more will be journaled by this process, and why."""
        with self._changed:
            self._stopped = why
            self._changed.notify_all()

    def notify(self, positions: Mapping[int, str]) -> None:
        """Take over positions (shard → outbox position) that have just been fsynced."""
        with self._changed:
            for shard, position in positions.items():
                self._reached[shard] = max(parse_position(position), self._reached.get(shard, _NOWHERE))
            self._changed.notify_all()

    def _has_reached(self, wanted: Mapping[int, tuple[int, int]]) -> bool:
        return all(self._reached.get(shard, _NOWHERE) >= position for shard, position in wanted.items())

    def _wake_poller(self, wanted: Mapping[int, tuple[int, int]]) -> None:
        """Have one poller while somebody waits; a fork has none, whatever its parent had."""
        if self._poll_s is None or self._has_reached(wanted):
            return
        self._asked.notify()
        if self._poller is None or not self._poller.is_alive():
            self._problem = None
            self._poller = threading.Thread(target=self._poll, name="watermark", daemon=True)
            self._poller.start()

    def _poll(self) -> None:
        assert self._poll_s is not None
        while self._is_wanted():
            try:
                self.notify(self._read())
                self._problem = None
                time.sleep(self._poll_s)
            except TradePoolError as problem:
                self._problem = problem
                time.sleep(_POLL_FAILED_S)

    def _is_wanted(self) -> bool:
        """Whether anybody waits, now or soon; if not, the poller is forgotten in that moment, and ends."""
        with self._changed:
            if not self._asked.wait_for(lambda: self._waiting > 0, _LINGER_S):
                self._poller = None
                return False
            return True

    def _read(self) -> dict[int, str]:
        fields = self._keys.journal_fields()
        with translated():
            values = self._client.hmget(self._keys.journal, fields)
        return {
            shard: parse_watermark(value)[0] for shard, value in enumerate(values) if isinstance(value, bytes)
        }

    def _too_late(self, wanted: Mapping[int, tuple[int, int]], timeout_s: float) -> JournalUnavailable:
        if self._stopped is not None:
            return JournalUnavailable(f"the journal has stopped: {self._stopped}")
        behind = [s for s, position in wanted.items() if self._reached.get(s, _NOWHERE) < position]
        why = f": {self._problem}" if self._problem else ""
        shards = ", ".join(f"{shard:02x}" for shard in behind[:3])
        return JournalUnavailable(
            f"the journal did not confirm {len(behind)} shards ({shards}) within {timeout_s:g} s{why}"
        )
