"""What should stand beside the records of a shard, worked out as a commit would that adds each of them."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.rules.record_rules import own_id
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.counters import add_counters, contribution
from tradepool.model.ids import slot_of_id
from tradepool.model.ledger import Ledger, next_expiry
from tradepool.model.trade import Trade
from tradepool.store.arguments import bytes_of
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange, draft_of
from tradepool.store.translation import text_of

__all__ = ["Beside", "ShardState", "beside", "content_at", "content_of"]


class Beside(NamedTuple):
    """What follows from one record."""

    entries: dict[tuple[str, bytes], float]
    """(sorted set, member) → where it stands."""
    claims: dict[tuple[str, bytes], str]
    """(hash, field) → the trade that has it."""


def content_of(value: bytes | None) -> codec.Record | None:
    """What a stored value holds; None for what cannot be read or counted, or is not what its digest says."""
    if value is None:
        return None
    try:
        header, body = codec.split(value)
        content = codec.decode(header.kind, body) if codec.digest_of(body) == header.digest else None
        if isinstance(content, Trade):
            contribution(content)
    except (Corrupt, ArithmeticError, ValueError):
        return None
    return content


def content_at(keys: Keys, shard: int, record_id: str, value: bytes | None) -> codec.Record | None:
    """`content_of` what stands under an id in a shard; None also for another record, or one of elsewhere."""
    content = content_of(value)
    if content is None or own_id(content) != record_id:
        return None
    return content if keys.shard_of_user(content.user_id) == shard else None


def beside(keys: Keys, shard: int, record_id: str, content: codec.Record | None) -> Beside:
    """What follows from a record; nothing from None. The sets of users and routes are left out."""
    found = Beside({}, {})
    if content is None or isinstance(content, Archived):
        return found
    change = RecordChange(
        kind=codec.TRADE_KIND if isinstance(content, Trade) else codec.LEDGER_KIND,
        record_id=record_id,
        user_id=content.user_id,
        before=None,
        after=_NO_RECORD,
        trade_after=content if isinstance(content, Trade) else None,
        next_expiry=next_expiry(content) if isinstance(content, Ledger) else None,
        command_id="",
    )
    records = keys.records(shard, keys.bucket_of(record_id))
    for command in draft_of(keys, shard, [change], recent_max=1).commands():
        pairs = list(zip(command.arguments[::2], command.arguments[1::2], strict=False))
        if command.name == "ZADD":
            found.entries.update({(command.key, bytes_of(m)): float(at) for at, m in pairs})
        elif command.name == "HSET" and command.key != records:
            found.claims.update({(command.key, bytes_of(field)): record_id for field, _ in pairs})
    return found


class ShardState:
    """The records of one shard as they were read, and what should stand beside them.

    Memory grows with the shard: about a kilobyte for each record.
    """

    def __init__(self, pool: RepairedPool, shard: int) -> None:
        self._pool = pool
        self.shard = shard
        self.entries: defaultdict[str, dict[bytes, float]] = defaultdict(dict)
        """Sorted set → member → where it stands."""
        self.claims: defaultdict[str, dict[bytes, list[str]]] = defaultdict(dict)
        """Hash → field → the trades that use it: one, unless something is booked twice."""
        self.users: set[str] = set()
        self.unrouted: dict[str, str] = {}
        """Trade whose id carries no slot → its user."""
        self.live: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """User → the fold over his live trades."""
        self.archived: defaultdict[str, set[str]] = defaultdict(set)
        """User → his archived trades."""
        self.unreadable: set[str] = set()
        self._trades: defaultdict[str, list[str]] = defaultdict(list)

    def read(self) -> None:
        """Read all records. Raises: StoreUnavailable; Corrupt for a hash of a wrong type."""
        keys, seen = self._pool.keys, set[str]()
        for bucket, page in self._pool.store.scan_buckets(self.shard):
            for name, value in page.items():
                record_id = text_of(name)
                if record_id in seen or keys.bucket_of(record_id) != bucket:
                    # A scan may repeat one, and nobody finds what is in another bucket.
                    continue
                seen.add(record_id)
                content = content_at(keys, self.shard, record_id, value)
                if content is None:
                    self.unreadable.add(record_id)
                else:
                    self._note(record_id, content)

    def trades_of(self, user_id: str) -> list[str]:
        """The live trades of a user."""
        return self._trades.get(user_id, [])

    def _note(self, record_id: str, content: codec.Record) -> None:
        user_id = content.user_id
        self.users.add(user_id)
        if not isinstance(content, Ledger) and slot_of_id(record_id) is None:
            self.unrouted[record_id] = user_id
        if isinstance(content, Archived):
            self.archived[user_id].add(record_id)
            return
        if isinstance(content, Trade):
            self._trades[user_id].append(record_id)
            add_counters(self.live[user_id], contribution(content))
        follows = beside(self._pool.keys, self.shard, record_id, content)
        for (key, member), at in follows.entries.items():
            self.entries[key][member] = at
        for (key, field), trade_id in follows.claims.items():
            self.claims[key].setdefault(field, []).append(trade_id)


_NO_RECORD = codec.pack(1, b"{}", codec.TRADE_KIND, codec.NO_STATUS)
