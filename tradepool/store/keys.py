"""The names of all keys; the only place that spells one. docs/redis-keys.md says what each holds.

Every key of a shard carries the hash tag `{ss}`, its number in hex, so one script may touch them all
also where the store is a Redis Cluster.
"""

from __future__ import annotations

import binascii
from typing import ClassVar

from tradepool.model.ids import slot_of_id, slot_of_user

__all__ = ["BUCKETS", "MARK_BUCKETS", "Keys"]

BUCKETS = 16
"""Record hashes per shard; also the grain at which digests are compared."""
MARK_BUCKETS = 32
"""Values per shard that the marks of its users are in: one is what reading a user's marks costs."""

_SEPARATOR = "\x1f"


class Keys:
    """Keys of a store of `shard_count` shards. `shard` arguments run from 0 to `shard_count` − 1."""

    # These are read and written together, so they share a hash tag.
    journal: ClassVar[str] = "tp:{pool}:journal"
    journal_bell: ClassVar[str] = "tp:{pool}:bell"
    meta: ClassVar[str] = "tp:{pool}:meta"
    prices: ClassVar[str] = "tp:prices"
    mark_totals: ClassVar[str] = "tp:marks"
    mark_stream: ClassVar[str] = "tp:marks:stream"
    audits: ClassVar[str] = "tp:audits"
    known_critical: ClassVar[str] = "tp:audits:known"
    undelivered_pages: ClassVar[str] = "tp:audits:undelivered"
    book_checks: ClassVar[str] = "tp:book"
    audit_runs: ClassVar[str] = "tp:audit:runs"
    workers: ClassVar[str] = "tp:workers"
    latencies: ClassVar[str] = "tp:latencies"
    any_of_a_shard: ClassVar[str] = "tp:{*"
    """The pattern of all keys that belong to some shard."""

    def __init__(self, shard_count: int) -> None:
        self.shard_count = shard_count
        self._tags = tuple(f"tp:{{{shard:02x}}}:" for shard in range(shard_count))
        self._shard_of_tag = {tag: shard for shard, tag in enumerate(self._tags)}

    @property
    def shards(self) -> range:
        """All shards."""
        return range(self.shard_count)

    def shard(self, slot: int) -> int:
        """The shard of a routing slot."""
        return slot % self.shard_count

    def shard_of_user(self, user_id: str) -> int:
        """The shard that holds everything of the user."""
        return self.shard(slot_of_user(user_id))

    def home_shard(self, trade_id: str) -> int | None:
        """The shard written in a minted trade id; None for an id that needs its route looked up."""
        slot = slot_of_id(trade_id)
        return None if slot is None else self.shard(slot)

    def route_shard(self, trade_id: str) -> int:
        """The shard that keeps the route of an id which carries no slot: spread by the id itself."""
        return self.shard(_crc16(trade_id))

    def bucket_of(self, record_id: str) -> int:
        """The bucket of a record within its shard, 0 to 15."""
        return _crc16(record_id) % BUCKETS

    def records(self, shard: int, bucket: int) -> str:
        """Hash: record id → header and packed body."""
        return f"{self._tags[shard]}r:{bucket:x}"

    def digest(self, shard: int) -> str:
        """Hash: bucket → XOR of its record digests and their count; `position` → the last commit's."""
        return f"{self._tags[shard]}digest"

    def outbox(self, shard: int) -> str:
        """Stream: one entry per commit, until the journal has it."""
        return f"{self._tags[shard]}outbox"

    def user_index(self, shard: int, user_id: str) -> str:
        """Sorted set: the user's trade ids by creation, µs."""
        return f"{self._tags[shard]}u:{user_id}"

    def symbol_index(self, shard: int, symbol: str) -> str:
        """Sorted set: the shard's trade ids of a symbol by creation, µs."""
        return f"{self._tags[shard]}s:{symbol}"

    def open_trades(self, shard: int) -> str:
        """Sorted set of `open_member`s, all scored 0, so in order of user."""
        return f"{self._tags[shard]}open"

    def recent(self, shard: int) -> str:
        """Sorted set: the shard's newest trade ids by creation, µs."""
        return f"{self._tags[shard]}recent"

    def counters(self, shard: int, user_id: str) -> str:
        """Hash: the user's counters and sums in limbs; `rev` → commits that touched the user."""
        return f"{self._tags[shard]}c:{user_id}"

    def archived_counters(self, shard: int, user_id: str) -> str:
        """Hash: the part of `counters` that comes from the user's archived trades, in limbs."""
        return f"{self._tags[shard]}ca:{user_id}"

    def changed(self, shard: int, user_id: str) -> str:
        """String: ids of the user's trades as the last commits changed them; see `changed_ids`."""
        return f"{self._tags[shard]}n:{user_id}"

    def idempotency(self, shard: int, user_id: str) -> str:
        """Hash: idempotency key → trade id."""
        return f"{self._tags[shard]}i:{user_id}"

    def fill_claims(self, shard: int, user_id: str) -> str:
        """Hash: `fill_claim` → trade id."""
        return f"{self._tags[shard]}f:{user_id}"

    def quarantined(self, shard: int) -> str:
        """Sorted set: the shard's trade ids in quarantine by creation, µs."""
        return f"{self._tags[shard]}quarantine"

    def expiries(self, shard: int) -> str:
        """Sorted set: ids of the ledgers with open reservations by when the first of those expires, µs."""
        return f"{self._tags[shard]}expiry"

    def users(self, shard: int) -> str:
        """Set: ids of the shard's users."""
        return f"{self._tags[shard]}users"

    def routes(self, shard: int) -> str:
        """Hash: trade id without a slot → its user's slot; in the shard of `route_shard`."""
        return f"{self._tags[shard]}route"

    def filling(self, shard: int) -> str:
        """String: stands while recovery fills the shard in bulk, so what is there is not to be believed."""
        return f"{self._tags[shard]}filling"

    def shard_of_key(self, key: str) -> int:
        """The shard of a key that `any_of_a_shard` matches; one that the store does not have for others'."""
        return self._shard_of_tag.get(key[: len(self._tags[0])], self.shard_count)

    def mark_bucket(self, slot: int) -> int:
        """The bucket, within their shard, of the marks of users of a slot: 0 to 31."""
        return slot // self.shard_count % MARK_BUCKETS

    def marks(self, shard: int, bucket: int) -> str:
        """String: the latest marks of the users of a `mark_bucket`."""
        return f"{self._tags[shard]}marks:{bucket:02x}"

    @staticmethod
    def journal_field(shard: int) -> str:
        """The shard's field of `journal`."""
        return f"{shard:02x}"

    def journal_fields(self) -> list[str]:
        """`journal_field` of each shard, from shard 0 on."""
        return [self.journal_field(shard) for shard in self.shards]

    @staticmethod
    def audit_run(run_id: str) -> str:
        """Hash: what the workers that do an audit together know of it; expires."""
        return f"tp:audit:run:{run_id}"

    @staticmethod
    def answer(short_command_id: str) -> str:
        """String: how a command ended that changed nothing; expires."""
        return f"tp:answer:{short_command_id}"

    @staticmethod
    def tick(entry: str) -> str:
        """String: which tick of an entry of beat's schedule was taken last, and by which message; expires."""
        return f"tp:tick:{entry}"

    @staticmethod
    def unended_runs(short_task_id: str) -> str:
        """String: how many runs of a message that was delivered again have not ended; expires."""
        return f"tp:runs:{short_task_id}"

    @staticmethod
    def open_member(user_id: str, trade_id: str) -> str:
        """How an open trade stands in the set of open trades."""
        return f"{user_id}{_SEPARATOR}{trade_id}"

    @staticmethod
    def trade_of_open_member(member: str) -> str:
        """The trade id in an `open_member`."""
        return member.rpartition(_SEPARATOR)[2]

    @staticmethod
    def user_of_ledger(record_id: str) -> str:
        """The user in a ledger's record id."""
        return record_id.partition(_SEPARATOR)[0]

    @staticmethod
    def fill_claim(exchange: str, account_id: str, symbol: str, fill_id: str) -> str:
        """How a venue's fill is named among its user's: unique per exchange, account and symbol."""
        return _SEPARATOR.join((exchange, account_id, symbol, fill_id))

    @staticmethod
    def fill_of(claim: str) -> str:
        """The fill id in a `fill_claim`."""
        return claim.rpartition(_SEPARATOR)[2]


def _crc16(text: str) -> int:
    return binascii.crc_hqx(text.encode(), 0)
