"""What the journal has of some records: the newest version of each, and whether they follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from tradepool.audit.at_rest import JOURNAL_WAIT_S
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.errors import JournalUnavailable
from tradepool.files.lines import JournalLine
from tradepool.files.reading import read_groups
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.translation import text_of

__all__ = ["Journaled", "Lost", "await_journal", "last_positions", "newest_records"]

_PAGE = 500


class Journaled(msgspec.Struct, kw_only=True):
    """The newest journaled version of a record."""

    shard: int
    line: JournalLine
    is_chain: bool
    """Whether each version follows the one before it; recovery refuses the record otherwise."""


def last_positions(pool: RepairedPool, shards: Iterable[int]) -> dict[int, str]:
    """The position of each shard's last commit, by its outbox, or (where nothing waits in there) the journal.

    Raises: ValueError where the journal's cannot be read; StoreUnavailable, Corrupt.
    """
    wanted = sorted(set(shards))
    outboxes = [("XREVRANGE", pool.keys.outbox(shard), "+", "-", "COUNT", 1) for shard in wanted]
    waiting = dict(zip(wanted, pool.mender.ask(outboxes), strict=True))
    # In this order: what has left the outbox by now is in the journal.
    journaled = dict(zip(wanted, pool.store.journaled(wanted), strict=True))
    return {
        shard: text_of(waiting[shard][0][0]) if waiting[shard] else journaled[shard].position
        for shard in wanted
    }


def await_journal(pool: RepairedPool, shards: Iterable[int]) -> dict[int, str]:
    """Wait until the journal has what the shards hold; the positions that it has then.

    Raises: JournalUnavailable, also where a position cannot be read; StoreUnavailable, Corrupt.
    """
    wanted = sorted(set(shards))
    try:
        # The sums may say less than the outbox: both may be what is to be repaired.
        positions = last_positions(pool, wanted)
        for shard, position in zip(wanted, pool.store.positions(wanted), strict=True):
            positions[shard] = max(positions[shard], position, key=parse_position)
        pool.watermark.wait(positions, JOURNAL_WAIT_S)
    except ValueError as problem:
        raise JournalUnavailable(f"a position cannot be read: {problem}") from problem
    return positions


def newest_records(
    pool: RepairedPool, shards: Iterable[int], is_wanted: Callable[[JournalLine], bool]
) -> dict[str, Journaled]:
    """By record id, of all lines that are wanted, once the journal has what `shards` hold; reads all of it.

    Raises: as `await_journal` and `read_groups`; JournalUnavailable where the files do not have what was
    published: they are another journal's, or an old copy.
    """
    found: dict[str, Journaled] = {}
    for line in _lines(pool, shards):
        if is_wanted(line):
            before = found.get(line.record_id)
            found[line.record_id] = Journaled(shard=line.shard, line=line, is_chain=_follows(line, before))
    return found


class Lost:
    """The records that the journal has of some shards, and the store has not; looked for when first asked.

    Nothing is taken away for want of such a record: it was not deleted, it is to be put back.
    """

    def __init__(self, pool: RepairedPool, shards: Iterable[int]) -> None:
        self._pool = pool
        self._shards = frozenset(shards)
        self._ids: frozenset[str] | None = None

    def ids(self) -> frozenset[str]:
        """Their ids; reads the whole journal once, in memory bounded but for the ids.

        Raises: as `newest_records`.
        """
        if self._ids is None:
            self._ids = frozenset(self._found())
        return self._ids

    def _found(self) -> Iterator[str]:
        waiting: dict[str, int] = {}
        for line in _lines(self._pool, self._shards):
            if line.shard in self._shards:
                waiting[line.record_id] = line.shard
            if len(waiting) >= _PAGE:
                yield from _absent(self._pool, waiting)
                waiting.clear()
        yield from _absent(self._pool, waiting)


def _absent(pool: RepairedPool, places: Mapping[str, int]) -> list[str]:
    values = pool.store.read([(shard, record_id) for record_id, shard in places.items()])
    return [record_id for record_id, value in zip(places, values, strict=True) if value is None]


def _lines(pool: RepairedPool, shards: Iterable[int]) -> Iterator[JournalLine]:
    """All of the journal, once it has what `shards` hold."""
    positions = await_journal(pool, shards)
    reached: dict[int, str] = {}
    for group in read_groups(pool.journal):
        reached.update(group.commit.positions)
        yield from group.entries()
    _check_reached(pool, positions, reached)


def _check_reached(pool: RepairedPool, positions: Mapping[int, str], reached: Mapping[int, str]) -> None:
    for shard, position in positions.items():
        if parse_position(reached.get(shard, START_POSITION)) < parse_position(position):
            raise JournalUnavailable(
                f"{pool.journal} ends before {position} of shard {shard:02x}, which was journaled: "
                "is it an old copy? Repair where the journal's owner keeps it"
            )


def _follows(line: JournalLine, before: Journaled | None) -> bool:
    if before is None:
        return line.version == 1 and not line.previous
    return before.is_chain and (line.version, line.previous) == (before.line.version + 1, before.line.digest)
