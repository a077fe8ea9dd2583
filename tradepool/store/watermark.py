"""Waiting for the journal: how far it has fsynced each shard's outbox, and whom that wakes.

The journal publishes its positions in one hash and rings a bell with it, a stream of one entry. However
many threads of a process wait, one of them listens for the bell and reads the hash for all; when it has
what it waits for another one goes on. So nobody polls, no thread stands between, and a thread that waits
alone is woken by the server itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tradepool.errors import JournalUnavailable, TradePoolError
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = ["JournaledShard", "Watermark", "parse_watermark", "read_watermark", "watermark_text"]

_LISTEN_MS = 25
"""How long somebody listens before the hash is read all the same: a writer of another release has no bell."""
_PAUSE_FAILED_S = 0.1
_NOWHERE = (0, 0)
_NOTHING_HEARD = START_POSITION


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

    With `listens` False nothing is read, and every position has to come through `notify`: for a process
    that runs the journal itself.
    """

    def __init__(self, client: Client, keys: Keys, *, listens: bool = True) -> None:
        self._client = client
        self._keys = keys
        self._listens = listens
        self._look: tuple[Command, Command] = (
            ("HMGET", keys.journal, *keys.journal_fields()),
            # Behind the positions: what moved them was of no later generation.
            ("HGET", keys.meta, GENERATION_FIELD),
        )
        self._lock = threading.Lock()
        self._reached: dict[int, tuple[int, int]] = {}
        self._generation = ""
        """The one in which positions were heard last."""
        self._waiters: dict[_Waiter, None] = {}
        self._listener: threading.Thread | None = None
        self._heard = _NOTHING_HEARD
        """Where the bell's stream stood when it was last heard."""
        self._read: list[Any] = []
        """The hash as it was read last."""
        self._problem: TradePoolError | None = None
        self._stopped: TradePoolError | None = None

    def wait(self, positions: Mapping[int, str], timeout_s: float) -> str:
        """Return once the journal has fsynced every shard up to its position (shard → outbox position).

        The answer is the generation of the server that was heard of last, which may be an earlier one than
        that of `positions`, where nobody has listened since. A server that hangs is waited for as long as
        the client's own timeouts say.

        Raises: JournalUnavailable when that takes longer than `timeout_s`, or the journal of this process
        has stopped; the changes may still be journaled later.
        """
        waiter = _Waiter(positions)
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            if waiter.has_come(self._reached):
                return self._generation
            self._waiters[waiter] = None
        try:
            while not self._has_come(waiter, deadline_s, timeout_s):
                self._listen(deadline_s)
            return self._generation
        finally:
            with self._lock:
                del self._waiters[waiter]
                self._wake_another()

    def stop(self, why: TradePoolError) -> None:
        """Tell whoever waits, now or later, that nothing more will be journaled by this process, and why."""
        with self._lock:
            self._stopped = why
            for waiter in self._waiters:
                waiter.bell.set()

    def notify(self, positions: Mapping[int, str], generation: str) -> None:
        """Take over positions (shard → outbox position) that are fsynced, on a server of `generation`.

        All of them, where it is another generation than before: what was heard in that one is forgotten, for
        it may have been another pool's.
        """
        with self._lock:
            if generation != self._generation:
                self._reached.clear()
            self._generation = generation
            for shard, position in positions.items():
                reached = parse_position(position)
                if reached > self._reached.get(shard, _NOWHERE):
                    self._reached[shard] = reached
            for waiter in self._waiters:
                if waiter.has_come(self._reached):
                    waiter.bell.set()

    def forget(self, generation: str) -> None:
        """Forget what was heard in `generation`, if it was the last one: it is over."""
        with self._lock:
            if generation == self._generation:
                self._reached.clear()
                self._read = []

    def _has_come(self, waiter: _Waiter, deadline_s: float, timeout_s: float) -> bool:
        """True once what `waiter` waits for is reached; False when it is for this thread to listen.

        Raises: JournalUnavailable.
        """
        while True:
            with self._lock:
                waiter.bell.clear()
                if waiter.has_come(self._reached):
                    return True
                left_s = deadline_s - time.monotonic()
                if self._stopped is not None or left_s <= 0:
                    raise self._too_late(waiter, timeout_s) from self._stopped or self._problem
                if self._listens and not self._is_listened():
                    self._listener = threading.current_thread()
                    return False
            waiter.bell.wait(left_s)

    def _is_listened(self) -> bool:
        """Whether a thread listens; a fork has none, whatever its parent had."""
        return self._listener is not None and self._listener.is_alive()

    def _wake_another(self) -> None:
        """Have somebody listen, if somebody waits and nobody does."""
        if self._listens and not self._is_listened():
            for waiter in self._waiters:
                waiter.bell.set()
                break

    def _listen(self, deadline_s: float) -> None:
        """Wait for the bell, not for long, and take over what the journal has published by then."""
        listen: Command = ("XREAD", "BLOCK", _LISTEN_MS, "STREAMS", self._keys.journal_bell, self._heard)
        try:
            with translated():
                rung, values, found = ask_all(self._client, (listen, *self._look), at=self._keys.journal)
            generation = text_of(found or b"")
            if generation != self._generation:
                # Another server may have another stream, and a clock that is behind.
                self._heard = _NOTHING_HEARD
            elif rung:
                self._heard = text_of(rung[0][1][-1][0])
            self._problem = None
            self._take(values, generation)
        except TradePoolError as problem:
            self._problem = problem
            time.sleep(max(0.0, min(_PAUSE_FAILED_S, deadline_s - time.monotonic())))
        finally:
            self._listener = None

    def _take(self, values: list[Any], generation: str) -> None:
        """`notify` of the shards whose field has changed since it was last read."""
        known = self._read if self._read and generation == self._generation else [None] * len(values)
        self._read = values
        moved = {shard: value for shard, value in enumerate(values) if value != known[shard]}
        self.notify({shard: parse_watermark(v).position for shard, v in moved.items()}, generation)

    def _too_late(self, waiter: _Waiter, timeout_s: float) -> JournalUnavailable:
        if self._stopped is not None:
            return JournalUnavailable(f"the journal has stopped: {self._stopped}")
        behind = [s for s, position in waiter.wanted.items() if self._reached.get(s, _NOWHERE) < position]
        why = f": {self._problem}" if self._problem else ""
        shards = ", ".join(f"{shard:02x}" for shard in behind[:3])
        return JournalUnavailable(
            f"the journal did not confirm {len(behind)} shards ({shards}) within {timeout_s:g} s{why}"
        )


class _Waiter:
    """A thread that waits, for what, and how it is woken."""

    def __init__(self, positions: Mapping[int, str]) -> None:
        self.wanted = {shard: parse_position(position) for shard, position in positions.items()}
        self.bell = threading.Event()

    def has_come(self, reached: Mapping[int, tuple[int, int]]) -> bool:
        return all(reached.get(shard, _NOWHERE) >= position for shard, position in self.wanted.items())
