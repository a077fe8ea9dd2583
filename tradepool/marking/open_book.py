"""The book of the pool's open trades, kept in step with the pool."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from tradepool.errors import JournalUnavailable
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.segments import active_header
from tradepool.files.tailing import PlaceError, Tail
from tradepool.logger import Logger
from tradepool.marking.following import Following, ForeignJournalError, StaleBookError, Unsettled
from tradepool.marking.positions import put_open
from tradepool.marking.rereading import Rereading
from tradepool.marking.saved_book import Contents, SavedBook, UnusableError
from tradepool.pnl.book import Book
from tradepool.settings import Durability, Settings
from tradepool.store.redis_store import RedisStore

__all__ = ["OpenBook"]

_BUILDS_MAX = 3
_RETRY_S = 60.0
"""After how long a journal is looked at again that was not the pool's."""
_log = Logger(__name__)


class _Refused(NamedTuple):
    """A journal that cannot be followed: the file's number (None: there was no file), and until when."""

    inode: int | None
    until: float


class OpenBook:
    """The open trades of some shards as a `Book`, of part `part` of `parts`. One thread at a time.

    It follows the pool's journal where `settings.data_dir` has it. A start takes the saved book and what the
    journal has had since, or, where that cannot be, reads the open trades from the store once. Without the
    journal (another machine) the shards that have changed are read again at each call.

    What was acknowledged with `durability = journal`, by any process, is in the book after the next
    `catch_up`. With `durability = redis` here, `catch_up` waits for the journal to have what the server has,
    for half a second at most (`following.JOURNAL_WAIT_S`); what other processes write with `redis` durability
    may come as late as the journal has it, which is usually milliseconds.
    """

    def __init__(
        self, store: RedisStore, shards: Sequence[int], settings: Settings, part: int = 0, parts: int = 1
    ) -> None:
        self.store = store
        self.shards = shards
        self.part = part
        self.parts = parts
        self._path = settings.data_dir / JOURNAL_NAME
        self._saved = SavedBook(settings.data_dir, part, parts)
        self._waits = settings.durability is Durability.REDIS
        self._following: Following | None = None
        self._rereading: Rereading | None = None
        self._refused: _Refused | None = None
        self._nothing = Book()

    @property
    def book(self) -> Book:
        """The book as of the last `catch_up`; another object after it had to be built anew."""
        source = self._following or self._rereading
        return self._nothing if source is None else source.book

    def catch_up(self) -> bool:
        """Take what the pool has changed since the last call; whether there was anything.

        Raises: ChecksumMismatch and SequenceGap when the journal is damaged; JournalUnavailable,
        StoreUnavailable, Fenced when it cannot be said what is open: the book is not to be marked then.
        """
        for _ in range(_BUILDS_MAX):
            source, is_new = self._source()
            try:
                return source.catch_up() or is_new
            except (PlaceError, StaleBookError) as why:
                _log.warning("book_given_up", reason=str(why))
                self._following = None
            except ForeignJournalError as why:
                self._following = None
                self._refuse(str(why))
        raise JournalUnavailable(
            f"{self._path} changed under the book {_BUILDS_MAX} times in a row; try the same again"
        )

    def has_reached(self, positions: Mapping[int, str]) -> bool:
        """Whether everything up to `positions` (shard → outbox position) is in the book."""
        source = self._following or self._rereading
        return source is not None and source.has_reached(positions)

    def save(self, lock: AbstractContextManager[object] | None = None) -> bool:
        """Save the book for the next process to start from; durable on return. Whether that could be done.

        It cannot before the first `catch_up`, without a journal or while that lacks some of what the book
        holds, and while another process is saving.

        `lock` is held while the book is read, not while the disk is waited for.

        Raises: ResourceUnavailable when the disk is full or the folder cannot be written.
        """
        if self._settled() is None:
            return False
        return self._saved.save(self._settled, self._contents, nullcontext() if lock is None else lock)

    def discard(self) -> None:
        """Let the next `catch_up` build the book from the store. Raises: ResourceUnavailable."""
        self._saved.discard()
        self._following = self._rereading = self._refused = None

    def _settled(self) -> Following | None:
        following = self._following
        return following if following is not None and following.is_settled else None

    def _contents(self, journal_id: str) -> Contents:
        return Contents(journal_id, self.store.keys.shard_count, list(self.shards))

    def _source(self) -> tuple[Following | Rereading, bool]:
        """What the book is kept by, and whether it has just been built."""
        if self._following is not None:
            return self._following, False
        if self._rereading is not None and self._is_still_refused():
            return self._rereading, False
        tail = self._tail()
        if tail is not None:
            self._following = self._started(tail)
            self._rereading = self._refused = None
            return self._following, True
        if self._rereading is None:
            self._rereading = Rereading(self.store, self.shards)
        return self._rereading, False

    def _tail(self) -> Tail | None:
        """The end of the pool's journal; None where it is not here."""
        # While the server waits for its recovery it may name another journal, or none.
        self.store.generation()
        journaled = self.store.journaled(self.shards)
        if self._inode() is None:
            self._refused = _Refused(None, math.inf)
            return None
        header, _ = active_header(self._path)
        if header.id != (wanted := self.store.journal_id()):
            self._refuse(f"{self._path} is journal {header.id}, the store's is {wanted}")
            return None
        tail = Tail.at_end(self._path)
        confirmed = {shard: one.position for shard, one in zip(self.shards, journaled, strict=True)}
        if behind := tail.behind(confirmed):
            self._refuse(f"{self._path} lacks changes of {len(behind)} shards that are journaled")
            return None
        return tail

    def _refuse(self, reason: str) -> None:
        _log.warning("book_without_journal", reason=reason, cure="marks read changed shards of the store")
        self._refused = _Refused(self._inode(), time.monotonic() + _RETRY_S)

    def _is_still_refused(self) -> bool:
        refused = self._refused
        return refused is not None and refused.inode == self._inode() and time.monotonic() < refused.until

    def _inode(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except OSError:
            return None

    def _started(self, end: Tail) -> Following:
        """A book that follows the journal: the saved one, or one read from the store."""
        started = time.monotonic()
        reason = ""
        try:
            book, tail = self._saved.load(self._path, self._contents(end.journal_id))
            tail.check()
            following = Following(self.store, self.shards, book, tail, waits=self._waits)
        except (UnusableError, PlaceError) as why:
            reason = str(why)
            following = self._read(end)
        _log.info(
            "book_built",
            read_from="store" if reason else "file",
            reason=reason,
            rows=len(following.book),
            seconds=time.monotonic() - started,
        )
        return following

    def _read(self, end: Tail) -> Following:
        """A book of what the store has, which follows the journal from a place before that was read."""
        generation = self.store.generation()
        book = Book()
        for shard in self.shards:
            put_open(book, self.store, shard)
        book.compact()
        positions = dict(zip(self.shards, self.store.positions(self.shards), strict=True))
        unsettled = Unsettled(generation, positions)
        return Following(self.store, self.shards, book, end, unsettled=unsettled, waits=self._waits)
