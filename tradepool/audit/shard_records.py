"""What was read of one shard's records: checked one by one, and noted for the rules that need several."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from tradepool.audit.report import Finding
from tradepool.audit.rules import ledger_rules, record_rules, trade_rules
from tradepool.audit.rules.file_rules import Sums
from tradepool.audit.rules.record_rules import Seen
from tradepool.audit.rules.relation_rules import order_of
from tradepool.audit.sound_trades import is_sound
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.counters import add_counters, contribution
from tradepool.model.ledger import Ledger, ledger_id, next_expiry
from tradepool.model.trade import Trade
from tradepool.store.keys import Keys
from tradepool.store.plan import claims_of

__all__ = ["Pair", "ShardRecords", "UserClaims"]

# Bound once: every record of a deep audit passes here.
_split, _digest_of, _decode = codec.split, codec.digest_of, codec.decode
_seen = tuple.__new__


class Pair(NamedTuple):
    """Two trades (or one, twice) that seem to have something that only one may have."""

    first: str
    second: str


class UserClaims:
    """What the trades of one user use that no other may: name → trade id."""

    __slots__ = ("fills", "idempotency_keys", "orders")

    def __init__(self) -> None:
        self.idempotency_keys: dict[str, str] = {}
        self.fills: dict[str, str] = {}
        self.orders: dict[str, str] = {}


class ShardRecords:
    """The records of one shard, or of one user in it, as they were read; each by itself is checked at once.

    Memory grows with the shard: a few hundred bytes for each record, and as much for each fill.
    """

    def __init__(self, *, now_us: int, place: tuple[Keys, int] | None = None) -> None:
        """`place` is the shard that is read; None: records are looked up, and are of whichever it is."""
        self._now_us = now_us
        self._place = place
        self.findings: list[Finding] = []
        self.seen: dict[str, Seen] = {}
        """What each readable record says of itself."""
        self.unsound: set[str] = set()
        """Records with a fault of their own: what follows from them is not held against them again."""
        self.users: set[str] = set()
        self.trades: dict[str, str] = {}
        """Live trade → its user."""
        self.created: dict[str, float] = {}
        """Live trade → when it was created, µs, as sorted sets keep it."""
        self.symbols: defaultdict[str, set[str]] = defaultdict(set)
        """Symbol → its live trades."""
        self.open: set[str] = set()
        self.quarantined: set[str] = set()
        """Live trades that are in quarantine."""
        self.expiries: dict[str, int | None] = {}
        """Ledger → when the first of its reservations expires, µs."""
        self.holds: list[tuple[str, str]] = []
        """(ledger, key) of the open reservations that are old enough to be orphans."""
        self.archived: dict[str, Archived] = {}
        self.related: dict[str, str] = {}
        """Trade → the one it names."""
        self.totals: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """User → the fold over his live trades."""
        self.used: defaultdict[str, UserClaims] = defaultdict(UserClaims)
        """User → what his live trades use."""
        self.pairs: set[Pair] = set()
        """Trades that may be duplicates in some way."""

    def sums(self, keys: Keys) -> dict[int, Sums]:
        """Digest and count of the records that were read, by bucket."""
        digests: defaultdict[int, int] = defaultdict(int)
        counts: defaultdict[int, int] = defaultdict(int)
        for record_id, (_, digest) in self.seen.items():
            bucket = keys.bucket_of(record_id)
            digests[bucket] ^= int(digest, 16)
            counts[bucket] += 1
        return {bucket: Sums(f"{digest:016x}", counts[bucket]) for bucket, digest in digests.items()}

    def look_at(self, record_id: str, value: bytes) -> None:
        """One record as it is stored; a scan may repeat one."""
        if record_id in self.seen or record_id in self.unsound:
            return
        try:
            header, body = _split(value)
            is_whole = _digest_of(body) == (digest := header.digest)
            record = _decode(header.kind, body) if is_whole else None
        except Corrupt:
            record = None
        if record is None:
            self.unsound.add(record_id)
            self.findings += record_rules.corrupt_record(record_id, value)
            return
        try:
            self._check(record_id, header, record)
        except (ArithmeticError, ValueError) as problem:
            # What is written as a number need not be one: `NaN` has a digest like any other text.
            self.unsound.add(record_id)
            told = f"it cannot be computed: {problem!r}"
            self.findings += record_rules.corrupt_record(record_id, value, told)
            return
        if record_id not in self.unsound:
            self.seen[record_id] = _seen(Seen, (header.version, digest))

    def _check(self, record_id: str, header: codec.Header, record: codec.Record) -> None:
        if record.user_id not in self.users and self._is_foreign(record_id, record.user_id):
            return
        if isinstance(record, Trade):
            said = (record_id, header.version, header.status)
            if said != (record.trade_id, record.version, record.status.code):
                self.findings += record_rules.record_header(record_id, header, record)
                if record.trade_id != record_id:
                    self.unsound.add(record_id)
                    return
            self._note_trade(record)
            return
        self.findings += record_rules.record_header(record_id, header, record)
        if record_rules.own_id(record) != record_id:
            self.unsound.add(record_id)
            return
        if isinstance(record, Archived):
            self.archived[record.trade_id] = record
            self.users.add(record.user_id)
        else:
            self._note_ledger(record)

    def _is_foreign(self, record_id: str, user_id: str) -> bool:
        """Whether the record is not of this shard, where nobody finds it."""
        if self._place is None:
            return False
        keys, shard = self._place
        home = keys.shard_of_user(user_id)
        if home != shard:
            told = f"it stands in shard {shard:02x}, its user's is {home:02x}"
            self.findings.append(record_rules.record_header.finding(record_id, told))
            self.unsound.add(record_id)
        return home != shard

    def _note_trade(self, trade: Trade) -> None:
        trade_id, user_id = trade.trade_id, trade.user_id
        counted = contribution(trade)
        if not is_sound(trade, self._now_us):
            self.findings += trade_rules.check_trade(trade, now_us=self._now_us)
        add_counters(self.totals[user_id], counted)
        self.trades[trade_id] = user_id
        self.created[trade_id] = float(trade.created_at)
        self.users.add(user_id)
        self.symbols[trade.symbol].add(trade_id)
        if trade.is_open:
            self.open.add(trade_id)
        if trade.quarantine is not None:
            self.quarantined.add(trade_id)
        if trade.related_trade_id is not None:
            self.related[trade_id] = trade.related_trade_id
        self._note_claims(trade, self.used[user_id])

    def _note_claims(self, trade: Trade, used: UserClaims) -> None:
        trade_id, key, fills = trade.trade_id, trade.idempotency_key, trade.fills
        if key is not None:
            self._note(used.idempotency_keys, key, trade_id)
        own = f"{trade_id}:"
        is_claiming = is_ordered = False
        for fill in fills:
            is_claiming = is_claiming or not fill.fill_id.startswith(own)
            is_ordered = is_ordered or bool(fill.order_id)
        if is_claiming:
            for claim in claims_of(trade):
                self._note(used.fills, claim, trade_id)
        if is_ordered:
            for order in order_of(trade):
                self._note(used.orders, order, trade_id)
        if len(fills) > 1 and len({fill.fill_id for fill in fills}) < len(fills):
            self.pairs.add(Pair(trade_id, trade_id))

    def _note(self, owners: dict[str, str], name: str, trade_id: str) -> None:
        owner = owners.setdefault(name, trade_id)
        if owner != trade_id:
            self.pairs.add(Pair(owner, trade_id))

    def _note_ledger(self, ledger: Ledger) -> None:
        self.findings += ledger_rules.check_ledger(ledger, now_us=self._now_us)
        record_id = ledger_id(ledger.user_id, ledger.account_id)
        self.users.add(ledger.user_id)
        self.expiries[record_id] = next_expiry(ledger)
        old = self._now_us - ledger_rules.ORPHAN_AFTER_US
        self.holds += [
            (record_id, key) for key, hold in ledger.reservations.items() if hold.reserved_at <= old
        ]
