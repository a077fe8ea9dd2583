"""A book that follows the pool's journal, from one place in it on.

The journal has every change of every record, in order, whole and on disk; nothing is trimmed under whoever
reads it, and a server that loses changes or is replaced does not touch it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tradepool.files.lines import JournalLine
from tradepool.files.scanning import Group
from tradepool.files.tailing import Tail
from tradepool.marking.positions import position_in, put
from tradepool.model import codec
from tradepool.model.trade import OPEN_STATUSES
from tradepool.pnl.book import Book
from tradepool.pnl.book.rows import versions_of
from tradepool.pnl.position import Position
from tradepool.store.redis_store import RedisStore

__all__ = ["Following", "ForeignJournalError", "StaleBookError", "Unsettled"]

ASK_EVERY_S = 5.0
"""How often at most the server is asked whether this is still the journal that its changes go to."""
JOURNAL_WAIT_S = 0.5
"""How long a call waits for changes that the server has and the journal not yet, where nobody else did."""

_PAUSE_S = 0.001
_OPEN_CODES = frozenset(status.code for status in OPEN_STATUSES)


class StaleBookError(Exception):
    """The book may hold rows that never came to be; it has to be built anew."""


class ForeignJournalError(Exception):
    """The folder has a journal, but not (or no longer) the one that the store's changes go to."""


class Unsettled(NamedTuple):
    """What a book was read from: a server that may have been ahead of the journal, and may lose that."""

    generation: str
    """Of the server, from before it was read."""
    positions: Mapping[int, str]
    """Shard → its outbox position after that."""


class Following:
    """A book, and the tail of the journal that it follows. One thread at a time.

    Every row has the version of its trade, so a line that is older than what the book was built from changes
    nothing. Until the journal has all that the book was read from (`unsettled`), each call makes sure that
    the server has not been recovered: it may have lost what the book holds and the journal never saw.

    With `waits` a call also takes what the server had before it and the journal has not yet, unless the
    journal takes longer than `JOURNAL_WAIT_S`; then the book is that much behind.
    """

    def __init__(
        self,
        store: RedisStore,
        shards: Sequence[int],
        book: Book,
        tail: Tail,
        *,
        unsettled: Unsettled | None = None,
        waits: bool = False,
    ) -> None:
        self.book = book
        self.tail = tail
        self._store = store
        self._shards = shards
        self._of_shard = frozenset(shards)
        self._unsettled = unsettled
        self._waits = waits
        self._ask_at = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the journal has everything that the book holds."""
        return self._unsettled is None

    def catch_up(self) -> bool:
        """Take what has been journaled since the last call; whether there was anything.

        Raises: StaleBookError, ForeignJournalError; PlaceError when the journal cannot be read on;
        ChecksumMismatch and SequenceGap when it is damaged; JournalUnavailable, StoreUnavailable, Fenced.
        """
        # Asked before the journal is read: what was confirmed by then must be in it.
        confirmed = self._confirmed()
        stored = self._stored() if self._waits else {}
        changed = self.tail.read(self._take)
        if behind := self.tail.behind(confirmed):
            raise ForeignJournalError(
                f"{self.tail.path} lacks changes of {len(behind)} shards that the server says are journaled"
            )
        if stored:
            changed |= self._await(stored)
        if self._unsettled is not None:
            self._settle(self._unsettled)
        return changed

    def has_reached(self, positions: Mapping[int, str]) -> bool:
        """Whether everything up to `positions` (shard → outbox position) has been taken."""
        return not self.tail.behind(positions)

    def _confirmed(self) -> dict[int, str]:
        """Each shard's published position, now and then; else nothing."""
        if time.monotonic() < self._ask_at:
            return {}
        journaled = self._store.journaled(self._shards)
        self._ask_at = time.monotonic() + ASK_EVERY_S
        return {shard: one.position for shard, one in zip(self._shards, journaled, strict=True)}

    def _stored(self) -> dict[int, str]:
        return dict(zip(self._shards, self._store.positions(self._shards), strict=True))

    def _await(self, stored: Mapping[int, str]) -> bool:
        changed, deadline = False, time.monotonic() + JOURNAL_WAIT_S
        while self.tail.behind(stored) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            changed |= self.tail.read(self._take)
        return changed

    def _settle(self, unsettled: Unsettled) -> None:
        is_journaled = self.has_reached(unsettled.positions)
        if self._store.generation() != unsettled.generation:
            raise StaleBookError(
                "the server was recovered before the journal had what the book was read from"
            )
        if is_journaled:
            self._unsettled = None

    def _take(self, groups: Sequence[Group]) -> None:
        """Have the book go from each record's row to what its newest line makes of it."""
        newest: dict[str, JournalLine] = {}
        for group in groups:
            for line in group.entries():
                if line.shard in self._of_shard and line.kind != codec.LEDGER_KIND:
                    newest[line.record_id] = line
        positions: list[Position] = []
        versions: list[int] = []
        gone: dict[str, int] = {}
        for record_id, line in newest.items():
            position = _position_in(line)
            if position is None:
                gone[record_id] = line.version
            else:
                positions.append(position)
                versions.append(line.version)
        if gone:
            self._remove(gone)
        put(self.book, positions, versions)

    def _remove(self, gone: Mapping[str, int]) -> None:
        """Take out trades that have no position at a version, unless the book has them from a later one."""
        held = versions_of(self.book, list(gone))
        self.book.remove(trade_id for trade_id, version in held.items() if version < gone[trade_id])


def _position_in(line: JournalLine) -> Position | None:
    """The position of the trade in a line; None where it has none (any more), or is archived."""
    if line.kind == codec.TRADE_KIND:
        return position_in(line.record) if line.status in _OPEN_CODES else None
    if line.kind == codec.ARCHIVED_KIND:
        return None
    raise codec.unknown_kind(line.kind)
