"""Users' summaries: what is a sum from the store's counters, the rest from a fold that is brought up to date.

A user's fold is kept with the revision of the user that it was read at. Before it answers, the store is asked
what has changed since, and only those trades are read again. A trade that was read may be newer than the
revision noted with it; then the next look names it once more, so nothing is ever older than the revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tradepool.archive.reading import Archive
from tradepool.model import codec
from tradepool.model.facts import Fact, fact_of
from tradepool.model.packing import unpacked
from tradepool.model.summary import Summary, check_choice, summary_from_counters
from tradepool.model.trade_filter import TradeFilter
from tradepool.model.user_fold import UserFold
from tradepool.store.redis_store import RedisStore
from tradepool.store.user_cache import UserCache

__all__ = ["Summaries"]

_LOOKS_MAX = 8
"""Looks at a user who keeps changing, before counters and statistics may be some changes apart."""
_READS_MAX = 2
"""Times that all of a user is read, where he changes faster than the store remembers changes."""
_TRADE = codec.TRADE_KIND.encode()


class _Known(msgspec.Struct, kw_only=True):
    """A user as he was read."""

    fold: UserFold
    counters: Mapping[str, int]
    revision: str
    """No later than anything that was read."""
    has_archive: bool
    """Whether archived trades could be read."""
    is_settled: bool = False
    """Whether all of it is of one moment."""


class Summaries:
    """Answers for all users, and keeps the folds of some of them, `trades_max` trades in all.

    Threads share it. Every method raises StoreUnavailable.
    """

    def __init__(self, store: RedisStore, archive: Archive, *, trades_max: int) -> None:
        self._store = store
        self._archive = archive
        self._cache: UserCache[_Known] = UserCache(size_max=trades_max)

    def counted(self, user_id: str, *, source: str | None, currency: str | None) -> Summary:
        """The summary without statistics, in one round trip. Raises: InvalidTrade as `check_choice`."""
        counters = self._store.counters(user_id)
        return summary_from_counters(counters, user_id=user_id, source=source, currency=currency)

    def whole(self, user_id: str, *, source: str | None, currency: str | None) -> Summary:
        """The summary with statistics, of archived trades too where they can be read.

        Counters and statistics are of one moment within the call; for a user who changes all the time, of
        some moments close to each other.

        Raises: InvalidTrade as `check_choice`; with an archive as `Archive`.
        """
        check_choice(source, currency)
        with self._cache.borrow(user_id) as kept:
            kept.value = known = self._look(user_id, kept.value)
            found = summary_from_counters(
                known.counters, user_id=user_id, source=source, currency=currency, fold=known.fold
            )
            # To mix sources doubles it.
            kept.size = known.fold.size
            return found

    def _look(self, user_id: str, known: _Known | None) -> _Known:
        """The user as he is: looks until nothing has changed since the last one."""
        reads = 0
        for _ in range(_LOOKS_MAX):
            before, known = known, self._newer(user_id, known)
            reads += known is not before
            if known.is_settled or reads == _READS_MAX:
                break
        assert known is not None
        return known

    def _newer(self, user_id: str, known: _Known | None) -> _Known:
        """What is known, with what has changed since; settled if nothing has."""
        if known is None or known.has_archive != self._archive.is_here:
            return self._read(user_id)
        changes = self._store.changes_since(user_id, known.revision)
        if changes is None:
            return self._read(user_id)
        known.is_settled = changes.revision == known.revision
        known.revision = changes.revision
        if changes.trade_ids and not self._read_again(user_id, known, changes.trade_ids):
            return self._read(user_id)
        return known

    def _read(self, user_id: str) -> _Known:
        """Everything about the user."""
        revision, has_archive = self._store.revision(user_id), self._archive.is_here
        facts = {fact.trade_id: fact for fact in self._live(user_id)}
        if has_archive:
            # What was seen live is as new or newer.
            for found in self._archive.stream(TradeFilter(user_id=user_id)):
                facts.setdefault(found.trade.trade_id, fact_of(found.body))
        return _Known(
            fold=UserFold(facts.values()),
            counters=self._store.counters(user_id),
            revision=revision,
            has_archive=has_archive,
        )

    def _live(self, user_id: str) -> Iterator[Fact]:
        shard = self._store.keys.shard_of_user(user_id)
        for value in self._store.read_all(shard, self._store.user_trade_ids(user_id)):
            if value[codec.KIND] == _TRADE:
                yield _fact_in(value)

    def _read_again(self, user_id: str, known: _Known, trade_ids: Sequence[str]) -> bool:
        """Bring these trades up to date; False where only reading everything can.

        A trade that was archived stays as it was counted. One that had changed before is looked for with all
        others: that takes hardly longer than to find it.
        """
        shard, facts, dropped = self._store.keys.shard_of_user(user_id), [], []
        values = self._store.read([(shard, trade_id) for trade_id in trade_ids])
        for trade_id, value in zip(trade_ids, values, strict=True):
            if value is not None and value[codec.KIND] == _TRADE:
                facts.append(_fact_in(value))
            elif value is None or not known.has_archive:
                dropped.append(trade_id)
            elif (fact := known.fold.get(trade_id)) is None or fact.version + 1 != _version(value):
                return False
        known.counters = self._store.counters(user_id)
        known.fold.change(facts, dropped=dropped)
        return True


def _version(value: bytes) -> int:
    return codec.read_header(value).version


def _fact_in(value: bytes) -> Fact:
    return fact_of(unpacked(value, codec.HEADER_CHARS))
