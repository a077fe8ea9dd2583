"""One shard, record by record: Redis against the journal, and every record against the rules.

Nothing is locked, so the order of the reads makes the cut consistent. The journal is read first and
Redis after it: Redis may be ahead, but never behind. What is ahead is settled by waiting for the
journal and reading it again. A new trade is in its indexes by the same commit, so indexes are read
after the records for what is missing, and doubts about them are read again record by record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from tradepool.audit import rules
from tradepool.audit.expiry_audit import compare_expiries
from tradepool.audit.report import Finding, Severity
from tradepool.errors import Corrupt
from tradepool.files.point import Place
from tradepool.files.reading import Latest, Newest, read_lines
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.counters import add_counters, contribution
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.ledger import ledger_id, next_expiry
from tradepool.model.trade import Trade
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["ShardAudit"]

_JOURNAL_WAIT_S = 30.0
_ATTEMPTS_MAX = 10


class _Seen(NamedTuple):
    """What one stored record says of itself."""

    version: int
    digest: str


class ShardAudit:
    """The audit of one shard; `findings`, `records` (how many were read) and `undecided` are the result.

    `archived` holds what is left of archived trades, by id: the archive itself is not looked into.
    """

    def __init__(self, store: RedisStore, watermark: Watermark, journal: Path, shard: int) -> None:
        self._store = store
        self._watermark = watermark
        self._journal = journal
        self._shard = shard
        self._users: set[str] = set()
        self._seen: dict[str, _Seen] = {}
        self._trades: dict[str, str] = {}
        self._open: set[str] = set()
        self._expiries: dict[str, int | None] = {}
        self.archived: dict[str, Archived] = {}
        self._totals: dict[str, dict[str, int]] = defaultdict(dict)
        self.findings: list[Finding] = []
        self.undecided: list[str] = []

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._seen)

    def run(self, journaled: Newest) -> None:
        """Compare everything of the shard with what the journal held a moment ago."""
        before = self._store.revisions(self._store.users(self._shard))
        self._users.update(before)
        for record_id, value in self._store.scan_records(self._shard):
            self._look_at(record_id, value)
        self._compare_journal(journaled.shards.get(self._shard, {}), journaled.end)
        self.findings += compare_expiries(self._store, self._shard, self._expiries)
        self._compare_indexes()
        self._compare_counters(before)

    def run_user(self, user_id: str, *, with_journal: bool) -> None:
        """Compare what belongs to one user."""
        journaled = self._journaled_of(user_id) if with_journal else {}
        before = self._store.revisions([user_id])
        self._users.add(user_id)
        record_ids = sorted({*self._store.user_trade_ids(user_id), ledger_id(user_id), *journaled})
        values = self._store.read([(self._shard, record_id) for record_id in record_ids])
        for record_id, value in zip(record_ids, values, strict=True):
            if value is not None:
                self._look_at(record_id, value)
        if with_journal:
            self._compare_journal(journaled, None)
        self.findings += compare_expiries(self._store, self._shard, self._expiries, user_id=user_id)
        self._compare_indexes()
        self._compare_counters(before)

    def _journaled_of(self, user_id: str) -> dict[str, Latest]:
        """The newest journaled versions of the user's records."""
        mark = b'"user_id":' + msgspec.json.encode(user_id)
        return {
            line.record_id: Latest(line.version, line.digest, line.position)
            for line in read_lines(self._journal)
            if line.shard == self._shard and mark in bytes(line.record)
        }

    def _look_at(self, record_id: str, value: bytes) -> None:
        """One record by itself: its digest, its JSON, the rules for trades. A scan may repeat a record."""
        if record_id in self._seen:
            return
        try:
            header, body = codec.split(value)
            self._seen[record_id] = _Seen(header.version, header.digest)
            if codec.digest_of(body) != header.digest:
                self._find(
                    "corrupt_record", Severity.CRITICAL, record_id, "its JSON does not match its digest"
                )
                return
            self._look_into(codec.decode(header.kind, body))
        except Corrupt as problem:
            self._find("corrupt_record", Severity.CRITICAL, record_id, str(problem))

    def _look_into(self, record: codec.Record) -> None:
        match record:
            case Trade():
                self._look_at_trade(record)
            case Archived():
                self._look_at_archived(record)
            case _:
                self._expiries[ledger_id(record.user_id, record.account_id)] = next_expiry(record)
                self.findings += rules.check_ledger(record)

    def _look_at_trade(self, trade: Trade) -> None:
        self._trades[trade.trade_id] = trade.user_id
        self._users.add(trade.user_id)
        if trade.is_open:
            self._open.add(trade.trade_id)
        add_counters(self._totals[trade.user_id], contribution(trade))
        self.findings += rules.check_trade(trade)

    def _look_at_archived(self, left: Archived) -> None:
        self.archived[left.trade_id] = left
        self._users.add(left.user_id)

    def _compare_journal(self, journaled: Mapping[str, Latest], end: Place | None) -> None:
        """Against the newest versions up to `end` of the journal; None: up to its beginning."""
        ahead: dict[str, _Seen] = {}
        for record_id in journaled.keys() | self._seen.keys():
            latest, seen = journaled.get(record_id), self._seen.get(record_id)
            if seen is None:
                self._find("missing_in_redis", Severity.CRITICAL, record_id, "the journal has it")
            elif latest is None or seen.version > latest.version:
                ahead[record_id] = seen
            elif seen.version < latest.version:
                detail = f"Redis has version {seen.version}, the journal {latest.version}"
                self._find("stale_in_redis", Severity.CRITICAL, record_id, detail)
            elif seen.digest != latest.digest:
                detail = f"version {seen.version} is another one in the journal"
                self._find("different_in_redis", Severity.CRITICAL, record_id, detail)
        if ahead:
            self._settle(ahead, end)

    def _settle(self, ahead: dict[str, _Seen], end: Place | None) -> None:
        """What Redis had and the journal had not yet must be there once the journal has caught up."""
        self._watermark.wait({self._shard: self._store.last_position(self._shard)}, _JOURNAL_WAIT_S)
        journaled = {
            (line.record_id, line.version, line.digest)
            for line in read_lines(self._journal, since=end)
            if line.shard == self._shard and line.record_id in ahead
        }
        for record_id, seen in ahead.items():
            if (record_id, *seen) not in journaled:
                self._find("missing_in_journal", Severity.CRITICAL, record_id, f"version {seen.version}")

    def _compare_indexes(self) -> None:
        """Every record read is in the indexes where it belongs."""
        self._compare_routes()
        listed, listed_open = self._listed()
        for trade_id in self._trades.keys() - listed:
            if self._kind_now(trade_id) != codec.ARCHIVED_KIND:
                self._find("index_missing", Severity.CRITICAL, trade_id, "not in its user's index")
        for trade_id in (self._open ^ listed_open) & self._trades.keys():
            self._recheck_open(trade_id)
        for trade_id in (listed | listed_open) - self._trades.keys():
            self._recheck_listed(trade_id)

    def _recheck_listed(self, trade_id: str) -> None:
        """A trade listed but not read: it may have come, or been archived, between scan and listing."""
        kind = self._kind_now(trade_id)
        if kind is None:
            self._find("index_extra", Severity.WARNING, trade_id, "indexed, but there is no such trade")
        elif kind == codec.ARCHIVED_KIND and any(trade_id in listed for listed in self._listed()):
            self._find("index_extra", Severity.WARNING, trade_id, "indexed, but it is archived")

    def _kind_now(self, record_id: str) -> str | None:
        value = self._store.read([(self._shard, record_id)])[0]
        return None if value is None else codec.read_header(value).kind

    def _compare_routes(self) -> None:
        """A trade whose id carries no slot can be found by it."""
        unrouted = sorted(trade_id for trade_id in self._trades if slot_of_id(trade_id) is None)
        for trade_id, slot in zip(unrouted, self._store.routes(unrouted) if unrouted else [], strict=True):
            if slot != slot_of_user(self._trades[trade_id]):
                self._find(
                    "route", Severity.CRITICAL, trade_id, f"its id leads to slot {slot}, not to its user's"
                )

    def _listed(self) -> tuple[set[str], set[str]]:
        """The trades in the users' indexes, and those listed as open."""
        listed: set[str] = set()
        listed_open: set[str] = set()
        for user_id in self._users:
            listed.update(self._store.user_trade_ids(user_id))
            listed_open.update(self._store.open_ids_of_user(user_id))
        return listed, listed_open

    def _recheck_open(self, trade_id: str) -> None:
        """The trade may have opened or closed between scan and listing; this reads both at one moment."""
        value, is_listed = self._store.read_with_open(self._shard, self._trades[trade_id], trade_id)
        record = None if value is None else codec.unpack(value)
        if record is not None and (isinstance(record, Trade) and record.is_open) != is_listed:
            detail = "listed as open, but final" if is_listed else "open, but not listed as such"
            self._find("open_set", Severity.CRITICAL, trade_id, detail)

    def _compare_counters(self, before: Mapping[str, int]) -> None:
        """Counters against the fold; a user who has changed since `before` is read again by himself."""
        counted = {user_id: self._counted(user_id) for user_id in self._users}
        after = self._store.revisions(counted)
        for user_id, counters in counted.items():
            if after[user_id] == before.get(user_id):
                self._check_counters(user_id, *counters, self._totals[user_id])
            else:
                self._compare_user(user_id)

    def _compare_user(self, user_id: str) -> None:
        for _ in range(_ATTEMPTS_MAX):
            before = self._store.revisions([user_id])
            counted, totals = self._counted(user_id), self._fold(user_id)
            if self._store.revisions([user_id]) == before:
                self._check_counters(user_id, *counted, totals)
                return
        self.undecided.append(f"the counters of user {user_id}")

    def _counted(self, user_id: str) -> tuple[dict[str, int], dict[str, int]]:
        """The user's counters, and the part of them that archived trades make up."""
        return self._store.counters(user_id), self._store.archived_counters(user_id)

    def _check_counters(
        self,
        user_id: str,
        counters: Mapping[str, int],
        archived: Mapping[str, int],
        live: Mapping[str, int],
    ) -> None:
        """What archived and live trades come to together is what was counted over their lives."""
        fold = dict(archived)
        add_counters(fold, live)
        self.findings += rules.check_counters(user_id, counters, fold)

    def _fold(self, user_id: str) -> dict[str, int]:
        totals: dict[str, int] = {}
        trade_ids = self._store.user_trade_ids(user_id)
        for value in self._store.read([(self._shard, trade_id) for trade_id in trade_ids]):
            record = None if value is None else codec.unpack(value)
            if isinstance(record, Trade):
                add_counters(totals, contribution(record))
        return totals

    def _find(self, rule: str, severity: Severity, subject: str, detail: str) -> None:
        self.findings.append(Finding(rule=rule, severity=severity, subject=subject, detail=detail))
