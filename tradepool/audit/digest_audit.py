"""The digest level: what Redis and the journal say a shard holds, compared in a few bytes.

Both sides keep the XOR of their records' digests and a count, with the outbox position they belong
to. They can be compared where the positions are equal; a shard that moves too fast for that is
compared record by record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from tradepool.audit.at_rest import JOURNAL_WAIT_S
from tradepool.audit.report import Finding
from tradepool.audit.rules import file_rules
from tradepool.audit.rules.file_rules import Sums, Waiting
from tradepool.audit.rules.key_rules import key_type, key_value
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.journaling.writer import new_lines
from tradepool.model.positions import parse_position
from tradepool.store.inspection import OutboxEnd
from tradepool.store.keys import Keys
from tradepool.store.outbox import OutboxEntry
from tradepool.store.progress import ShardDigest
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import JournaledShard, Watermark

__all__ = ["DigestAudit"]

_ATTEMPTS_MAX = 5
_STUCK_WAIT_S = 2.0
_WAITING_MAX = 100
"""Entries of an outbox that are looked at where the journal has not come on."""


class _Both(NamedTuple):
    """What store and journal say of one shard."""

    shard: int
    ours: ShardDigest
    position: str
    journaled: Sums


class DigestAudit:
    """The audit of what is kept of each shard, as of `now_us` (µs): a few round trips.

    After `run`: `findings`; `different` shards, and `restless` ones that never stood still, want a closer
    look; the journal takes nothing of `stuck` ones; the sums of `unreadable` ones cannot be read.
    """

    def __init__(self, store: RedisStore, watermark: Watermark, *, now_us: int) -> None:
        self._store = store
        self._watermark = watermark
        self._now_us = now_us
        self.findings: list[Finding] = []
        self.different: list[int] = []
        self.restless: list[int] = []
        self.stuck: list[int] = []
        self.unreadable: list[int] = []

    def run(self) -> None:
        """Compare every shard's sums with the journal's.

        Raises: JournalUnavailable when the journal does not catch up with Redis in time, and takes nothing of
        what was committed just now.
        """
        shards = list(self._store.keys.shards)
        self._find_unreadable(shards, 1)
        for attempt in range(_ATTEMPTS_MAX):
            ours = self._undecided(self._digests(shards))
            if attempt == 0:
                self._find_contradictions(list(ours))
                ours = {shard: our for shard, our in ours.items() if shard not in self.unreadable}
                self._find_stuck(list(ours))
            going = {shard: our for shard, our in ours.items() if shard not in self.stuck}
            if not going:
                return
            shards = list(self._undecided(self._caught_up(going)))
        self.restless = shards

    def _caught_up(self, going: dict[int, ShardDigest]) -> dict[int, ShardDigest]:
        """Those of the shards that the journal has come on with, once it has."""
        try:
            self._watermark.wait({shard: our.position for shard, our in going.items()}, JOURNAL_WAIT_S)
        except JournalUnavailable:
            if not self._find_unreadable(list(going), _WAITING_MAX):
                raise
            # It stops at the first that it cannot read, with whatever the other shards have.
            self.stuck += [shard for shard, _ in self._behind(list(going)) if shard not in self.stuck]
        return {shard: our for shard, our in going.items() if shard not in self.stuck}

    def _find_unreadable(self, shards: list[int], limit: int) -> bool:
        """Whether there is an entry that no commit writes among the first that wait for the journal."""
        places = [(shard, their.position) for shard, their in self._published(shards).items()]
        found: list[int] = []
        with contextlib.suppress(Corrupt, ValueError):
            for entries in self._store.waiting(places, limit):
                for entry in entries:
                    problem = _unreadable(entry)
                    if problem and entry.shard not in found:
                        self.findings += file_rules.outbox_unreadable(entry.shard, problem)
                        found.append(entry.shard)
        self.stuck += found
        return bool(found)

    def _undecided(self, ours: dict[int, ShardDigest]) -> dict[int, ShardDigest]:
        """Those whose sums the journal does not have at the same position; the others are compared."""
        return {both.shard: both.ours for both in self._both(ours) if not self._is_decided(both)}

    def _is_decided(self, both: _Both) -> bool:
        if both.position != both.ours.position:
            return False
        found = file_rules.digest(both.shard, Sums(both.ours.digest, both.ours.count), both.journaled)
        if found:
            self.findings += found
            self.different.append(both.shard)
        return True

    def _digests(self, shards: list[int]) -> dict[int, ShardDigest]:
        try:
            return dict(zip(shards, self._store.digests(shards), strict=True))
        except (Corrupt, ValueError):
            return dict(self._readable(shards))

    def _readable(self, shards: list[int]) -> Iterator[tuple[int, ShardDigest]]:
        """One by one, those whose sums can be read."""
        for shard in shards:
            try:
                yield shard, self._store.digest(shard)
            except (Corrupt, ValueError) as problem:
                name = self._store.keys.digest(shard)
                wrong = [finding for key in self._store.keys_named([name]) for finding in key_type(key)]
                self.findings += wrong or key_value(name, str(problem))
                self.unreadable.append(shard)

    def _both(self, ours: dict[int, ShardDigest]) -> list[_Both]:
        return [
            _Both(shard, ours[shard], their.position, Sums(their.digest, their.count))
            for shard, their in self._journaled(list(ours)).items()
        ]

    def _published(self, shards: list[int]) -> dict[int, JournaledShard]:
        """`_journaled`, where what cannot be read is told later."""
        with contextlib.suppress(Corrupt, ValueError):
            theirs = dict(zip(shards, self._store.journaled(shards), strict=True))
            for their in theirs.values():
                parse_position(their.position)
            return theirs
        return {}

    def _journaled(self, shards: list[int]) -> dict[int, JournaledShard]:
        """What the journal says of the shards, without those where that cannot be read."""
        if not shards:
            return {}
        try:
            theirs = dict(zip(shards, self._store.journaled(shards), strict=True))
            for their in theirs.values():
                parse_position(their.position)
        except ValueError as problem:
            if len(shards) > 1:
                return {s: their for shard in shards for s, their in self._journaled([shard]).items()}
            (shard,) = shards
            self._contradict(shard, self._store.keys.journal, f"{Keys.journal_field(shard)}: {problem}")
            return {}
        return theirs

    def _contradict(self, shard: int, name: str, problem: str) -> None:
        self.findings += key_value(name, problem)
        self.unreadable.append(shard)

    def _find_contradictions(self, shards: list[int]) -> None:
        """Shards whose positions never were: whoever waited for one would wait in vain.

        The journal's position is published before what stands up to there leaves the outbox, and a commit
        stands in the outbox at the position that it leaves in the sums.
        """
        before = self._journaled(shards)
        ends = self._store.outbox_ends(list(before)) if before else []
        after = self._journaled(list(before))
        for shard, end in zip(before, ends, strict=True):
            their = after.get(shard)
            if their is None or not end.stood_still or their.position != before[shard].position:
                continue
            if end.last not in (None, end.position):
                name = self._store.keys.digest(shard)
                self._contradict(shard, name, f"position {end.position}, its outbox ends at {end.last}")
            elif _is_impossible(their.position, end):
                problem = (
                    f"{Keys.journal_field(shard)}: at {their.position}, the last commit at {end.position}"
                )
                self._contradict(shard, self._store.keys.journal, problem)

    def _find_stuck(self, shards: list[int]) -> None:
        """Shards whose commits the journal has not taken for minutes; nobody waits for these any longer."""
        late = [shard for shard, position in self._behind(shards) if self._judge(shard, position)]
        if not late:
            return
        # The journal's owner may just have come back, and take everything at once.
        with contextlib.suppress(JournalUnavailable):
            self._watermark.wait(dict(self._behind(late)), _STUCK_WAIT_S)
        for shard, position in self._behind(late):
            found = self._judge(shard, position)
            self.findings += found
            self.stuck += [shard] if found else []

    def _judge(self, shard: int, position: str) -> list[Finding]:
        return file_rules.outbox_stuck(Waiting(shard, position), self._now_us)

    def _behind(self, shards: list[int]) -> list[tuple[int, str]]:
        """The first commit of each shard that the journal does not have, where there is one."""
        places = [(shard, their.position) for shard, their in self._journaled(shards).items()]
        first = zip(places, self._store.first_behind(places) if places else (), strict=True)
        return [(shard, position) for (shard, _), position in first if position is not None]


def _unreadable(entry: OutboxEntry) -> str:
    """What the journal's writer would say of the entry; '' if it can be written."""
    try:
        for _ in new_lines(entry):
            pass
    except Corrupt as problem:
        return str(problem)
    return ""


def _is_impossible(journaled: str, end: OutboxEnd) -> bool:
    """Nothing waits, and the journal is not where the last commit is; or it is further than that."""
    ours, theirs = parse_position(end.position), parse_position(journaled)
    return theirs != ours if end.last is None else theirs > ours
