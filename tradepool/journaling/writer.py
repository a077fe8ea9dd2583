"""From the outboxes into the journal: the one writer of `trade_pool.log`, and the watermark it publishes.

    outboxes ─XREAD─▶ append ─▶ fsync ─▶ watermark (if still the writer) ─▶ XTRIM, with the next XREAD

Whatever arrives while an fsync is under way forms the next group, so the disk's speed sets the size
of groups, not the number of clients. A step that fails anywhere is repeated from what is on disk.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Event

from tradepool.clock import now_us
from tradepool.errors import Corrupt, Fenced, StoreUnavailable, Unavailable
from tradepool.files.journal import Journal
from tradepool.files.lines import NewLine, spelled
from tradepool.latencies import Latencies
from tradepool.logger import Logger
from tradepool.model import codec
from tradepool.model.packing import unpacked
from tradepool.model.positions import parse_position
from tradepool.store import fence
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.outbox import Outbox, OutboxEntry
from tradepool.store.plan import ITEM_SEPARATOR, ITEM_SEPARATORS
from tradepool.store.vitals import JournalLatencies, Vitals
from tradepool.store.watermark import watermark_text

__all__ = ["BLOCK_MS", "JournalWriter", "new_lines"]

BLOCK_MS = 100
"""How long a step waits for something to journal, milliseconds."""

_ENTRIES_PER_READ = 4
_GROUP_LINES_MAX = 10_000
"""A group ends once it has that many lines; with one read more it bounds the memory of a step."""
_DRAIN_STEPS_MAX = 1000
_LATENCIES_EVERY_US = 5_000_000
"""How often what was measured is published: for a look every 15 s this is often enough."""
_SEPARATOR = ITEM_SEPARATOR.encode()
_INDEX = len("ta")
_NOT_PLAIN = bytes({*range(0x20), *b'"\\', *range(0x80, 0x100)} - {*_SEPARATOR})
"""What does not stand in a JSON string as it is, or may not be UTF-8."""
_new_line = tuple.__new__
_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 2.0
_log = Logger(__name__)


class JournalWriter:
    """Writes the outboxes of a store into `journal`. One thread runs it; `journal` is its own.

    `notify` gets the positions (shard → outbox position) that have just become durable, after the
    server has them as well, and the server's generation then.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        journal: Journal,
        notify: Callable[[Mapping[int, str], str], None] | None = None,
    ) -> None:
        self._client = client
        self._outbox = Outbox(client, keys)
        self._journal = journal
        self._notify = notify
        self._has_place = False
        self._unpublished: dict[int, str] = {}
        self._vitals = Vitals(client, keys)
        self._commits = Latencies()
        self._measured_at = 0

    def take_over(self) -> None:
        """Become the writer whose watermark counts, and publish all of it; any other one stops.

        Only after recovery: the store must hold what the journal holds. Raises: StoreUnavailable.
        """
        self._outbox.take_over()
        self._has_place = True
        self._unpublished = dict(self._journal.point.positions)
        self._publish()
        self._outbox.trim()

    def step(self, block_ms: int | None = BLOCK_MS) -> int:
        """Journal what the outboxes hold; the number of lines written.

        Waits up to `block_ms` for the first of it, with None not at all.

        On return the lines are on disk and published. After an error the next step goes on where the
        journal stands; nothing is lost or written twice.

        Raises: StoreUnavailable, JournalUnavailable; Fenced when another writer has taken over or the
        store has lost this one's place; Corrupt.
        """
        if not self._has_place:
            raise Fenced("this journal writer has no place yet; take_over comes first")
        self._publish()
        lines, positions, oldest = self._collect(block_ms)
        self._journal.append(lines)
        self._journal.commit(positions)
        self._unpublished = positions
        self._publish()
        self._measure(oldest)
        return len(lines)

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
                if not self._has_place or self.step(block_ms=None) == 0:
                    return

    def _go_on(self, recover: Callable[[], object]) -> None:
        """One step, after recovery when the server has restarted or lost this writer's place."""
        if not self._has_place:
            recover()
        try:
            if not self._has_place:
                self.take_over()
            idle = self.step() == 0
        except Fenced:
            if self._is_replaced():
                raise
            self._has_place = False
            return
        if idle and not fence.is_open(self._client):
            self._has_place = False

    def _is_replaced(self) -> bool:
        """Whether another writer has this one's place; otherwise the store itself has lost it."""
        return self._outbox.is_taken() and fence.is_open(self._client)

    def _collect(self, block_ms: int | None) -> tuple[list[NewLine], dict[int, str], Iterable[str]]:
        """What the outboxes hold beyond the journal, up to a full group.

        Beside the lines the positions it reaches (by shard), and those that it begins with.
        """
        lines: list[NewLine] = []
        positions: dict[int, str] = {}
        oldest: dict[int, str] = {}
        while len(lines) < _GROUP_LINES_MAX:
            found = self._outbox.read(self._journal.point.positions | positions, _ENTRIES_PER_READ, block_ms)
            for entry in found:
                positions[entry.shard] = entry.position
                oldest.setdefault(entry.shard, entry.position)
                lines += new_lines(entry)
            if _longest(found) < _ENTRIES_PER_READ:
                break
            block_ms = None
        return lines, positions, oldest.values()

    def _publish(self) -> None:
        """Tell the server, then whoever waits in this process, what has become durable."""
        if not self._unpublished:
            return
        point = self._journal.point
        digests = {shard: point.digest(shard) for shard in self._unpublished}
        watermark = {
            shard: watermark_text(position, digests[shard].text, digests[shard].count)
            for shard, position in self._unpublished.items()
        }
        generation = self._outbox.publish(watermark, self._unpublished)
        if self._notify is not None:
            self._notify(self._unpublished, generation)
        self._unpublished = {}

    def _measure(self, oldest: Iterable[str]) -> None:
        """Count how long ago the `oldest` commits of a group, one of each shard, were made.

        By the server's clock and this one's. The others took less, and counting them all would cost more.
        """
        now = now_us()
        for position in oldest:
            self._commits.observe(now / 1_000_000 - parse_position(position)[0] / 1000)
        # A clock that was set back must not silence it until it is there again.
        if not 0 <= now - self._measured_at < _LATENCIES_EVERY_US:
            self._measured_at = now
            measured = JournalLatencies(
                at=now, fsync=self._journal.fsyncs.counts(), commit=self._commits.counts()
            )
            # A server without memory takes no figures; one that is away the next step tells of.
            with contextlib.suppress(StoreUnavailable):
                self._vitals.write_latencies(measured)


def _longest(found: Iterable[OutboxEntry]) -> int:
    """How many entries of one shard there are at most."""
    return max(Counter(entry.shard for entry in found).values(), default=0)


def new_lines(entry: OutboxEntry) -> Iterator[NewLine]:
    """The lines of one commit; what is bytes in the outbox stays bytes into the file.

    The name of an item is the record's kind, `a` (added) or `u` (updated), and the item's index: `ta0`,
    `lu12`. The index keeps the names of an entry apart, for clients that return an entry as a dictionary.

    Raises: Corrupt when something in it is not an outbox item.
    """
    shard, position = entry.shard, entry.position.encode()
    for name, value in entry.items.items():
        try:
            *texts, stored = value.split(_SEPARATOR, ITEM_SEPARATORS)
            header = stored[: codec.HEADER_CHARS]
            start = value[: codec.HEADER_CHARS - len(stored)]
            if start.translate(None, _NOT_PLAIN) != start:
                texts = [spelled(text) for text in texts]
                _check_plain(header)
            record_id, command_id, task_id, previous = texts
            index, version = int(name[_INDEX:]), int(header[codec.VERSION], 16)
        except ValueError as problem:
            raise Corrupt(f"outbox entry {entry.position}: {name!r} is no outbox item") from problem
        yield _new_line(
            NewLine,
            (
                shard,
                position,
                index,
                header[codec.KIND],
                record_id,
                command_id,
                task_id,
                version,
                header[codec.DIGEST],
                previous,
                header[codec.STATUS],
                unpacked(stored, codec.HEADER_CHARS),
            ),
        )


def _check_plain(header: bytes) -> None:
    if header.translate(None, _NOT_PLAIN) != header:
        raise ValueError(header)
