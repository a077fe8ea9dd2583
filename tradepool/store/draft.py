"""The arguments of lua/commit.lua, collected in any order and written out in the script's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.codec import COMPARED_CHARS
from tradepool.model.trade import Trade
from tradepool.store.arguments import Argument, DigestChange, HashFields, Places, chunks, digest_arguments
from tradepool.store.changed_ids import appended
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.keys import Keys
from tradepool.store.limbs import split_limbs

__all__ = ["CommitPlan", "Draft", "OutboxField", "PlainCommand"]

_VALUES_FROM = 2
"""The first argument after the plan, counted from 1 as the script does."""
_encode = msgspec.msgpack.Encoder().encode


class CommitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """KEYS and ARGV of one call of lua/commit.lua."""

    keys: list[str]
    argv: list[Argument]
    compared: list[tuple[str, Sequence[str]]]
    """Kinds and names of what is compared, in the order in which the script counts."""

    @property
    def checks(self) -> list[str]:
        """What each check protects, in words."""
        return [f"{kind} {name!r}" for kind, names in self.compared for name in names]


class PlainCommand(NamedTuple):
    """One command as a client sends it."""

    name: str
    key: str
    arguments: Sequence[Argument]
    absent: int | None
    """How many new fields the server must count; None: whatever it answers."""


class OutboxField(NamedTuple):
    """One field of the outbox entry; the script appends the stored value to `prefix`."""

    name: str
    prefix: str
    value: bytes


class Draft:
    """What one commit of one shard compares and writes, collected call by call."""

    def __init__(self, keys: Keys, shard: int) -> None:
        self._keys = keys
        self._shard = shard
        self._records: dict[int, HashFields] = defaultdict(lambda: HashFields("record"))
        self._claims: dict[str, dict[str, _Claim]] = defaultdict(dict)
        self._releases: dict[str, dict[str, str]] = defaultdict(dict)
        self._digests: dict[int, DigestChange] = defaultdict(DigestChange)
        self._touched: dict[str, list[str]] = defaultdict(list)
        self._counted: dict[str, dict[str, int]] = defaultdict(dict)
        self._archived: dict[str, dict[str, int]] = defaultdict(dict)
        self._new_users: dict[str, None] = {}
        self._by_user: dict[str, list[Argument]] = defaultdict(list)
        self._by_symbol: dict[str, list[Argument]] = defaultdict(list)
        self._recent: list[Argument] = []
        self._opened: list[Argument] = []
        self._expiring: list[Argument] = []
        self._quarantined: list[Argument] = []
        self._removals: dict[str, list[Argument]] = defaultdict(list)
        self._recent_max: int | None = None
        self.outbox: list[OutboxField] = []
        """The outbox entry; none is written when empty."""
        self.generation: str | None = None
        """The only generation of the server in which it may be written; None: the script does not ask."""

    def record(self, record_id: str, before: bytes | None, after: bytes, *, digest_before: str) -> None:
        """Replace what is stored of a record, if it is still `before` (None: absent).

        `digest_before` goes out of the sums of its bucket; '': it is not in there.
        """
        bucket = self._keys.bucket_of(record_id)
        self._records[bucket].add(record_id, before[:COMPARED_CHARS] if before is not None else b"", after)
        self._digests[bucket].replace(digest_before, after)

    def touch_user(self, user_id: str, *, is_new: bool) -> None:
        """Count one commit for the user, and note the user with a new record."""
        self._touched[user_id]
        if is_new:
            self._new_users[user_id] = None

    def note_changed(self, user_id: str, trade_id: str) -> None:
        """Have a trade of the user among those that this commit changes."""
        self._touched[user_id].append(trade_id)

    def set_expiry(self, ledger_id: str, at: int | None) -> None:
        """Enter the ledger where it is found from `at` on, µs; or take it out (None)."""
        if at is None:
            self._removals[self._keys.expiries(self._shard)].append(ledger_id)
        else:
            self._expiring += (str(at), ledger_id)

    def index_trade(self, trade: Trade) -> None:
        """Enter a new trade in the indexes by time."""
        entry = (str(trade.created_at), trade.trade_id)
        self._by_user[trade.user_id] += entry
        self._by_symbol[trade.symbol] += entry
        self._recent += entry

    def forget_trade(self, trade: Trade) -> None:
        """Take a trade out of all indexes."""
        for key in (
            self._keys.user_index(self._shard, trade.user_id),
            self._keys.symbol_index(self._shard, trade.symbol),
            self._keys.recent(self._shard),
        ):
            self._removals[key].append(trade.trade_id)
        if trade.is_open:
            self._close(trade)
        if trade.quarantine is not None:
            self._removals[self._keys.quarantined(self._shard)].append(trade.trade_id)

    def set_quarantined(self, trade: Trade) -> None:
        """Enter the trade among those in quarantine, or take it out."""
        if trade.quarantine is not None:
            self._quarantined += (str(trade.created_at), trade.trade_id)
        else:
            self._removals[self._keys.quarantined(self._shard)].append(trade.trade_id)

    def set_open(self, trade: Trade) -> None:
        """Enter the trade among the open ones, or take it out."""
        if trade.is_open:
            self._opened += ("0", self._keys.open_member(trade.user_id, trade.trade_id))
        else:
            self._close(trade)

    def trim_recent(self, length: int) -> None:
        """Keep the `length` newest trades in the recent index, if this commit adds to it."""
        self._recent_max = length

    def claim_idempotency_key(self, user_id: str, name: str, trade_id: str) -> None:
        """Give an idempotency key, which must be free, to the trade."""
        self._claim(self._keys.idempotency(self._shard, user_id), name, trade_id, "idempotency key")

    def claim_fill(self, user_id: str, claim: str, trade_id: str) -> None:
        """Give a fill claim, which must be free, to the trade."""
        self._claim(self._keys.fill_claims(self._shard, user_id), claim, trade_id, "fill")

    def release_idempotency_key(self, user_id: str, name: str, trade_id: str) -> None:
        """Take an idempotency key from the trade, so that another may claim it."""
        self._releases[self._keys.idempotency(self._shard, user_id)][name] = trade_id

    def release_fill(self, user_id: str, claim: str, trade_id: str) -> None:
        """Take a fill claim from the trade, so that another may claim it."""
        self._releases[self._keys.fill_claims(self._shard, user_id)][claim] = trade_id

    def count(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Add `amounts` to the user's counters."""
        _add(self._counted[user_id], amounts)

    def count_archived(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Add `amounts` to the part of the user's counters that archived trades make up."""
        _add(self._archived[user_id], amounts)

    def commands(self) -> Iterator[PlainCommand]:
        """What is to be written of records, indexes and claims, for a store that nobody else writes to.

        In any order. Nothing is compared; instead a command says how many fields it must find absent.
        `digests` and `increments` have the rest.
        """
        yield from self._plain_writes()
        for key, fields in self._hashes():
            pairs = [text for pair in zip(fields.names, fields.values, strict=True) for text in pair]
            yield PlainCommand("HSET", key, pairs, fields.expected.count(b""))

    def digests(self) -> dict[int, tuple[int, int]]:
        """Bucket → what to XOR into its digest, and the records added to it."""
        return {bucket: (change.xor, change.count) for bucket, change in self._digests.items()}

    def increments(self) -> Mapping[str, Mapping[str, int]]:
        """Key → field → what to add."""
        increments: dict[str, dict[str, int]] = {}
        counters, archived = self._keys.counters, self._keys.archived_counters
        for key_of, users in ((counters, self._counted), (archived, self._archived)):
            for user_id, amounts in users.items():
                limbs = [limb for item in amounts.items() for limb in split_limbs(*item)]
                increments[key_of(self._shard, user_id)] = dict(limbs)
        return increments

    def plan(self) -> CommitPlan:
        """Everything collected, as the script reads it."""
        keys, values = Places(1), Places(_VALUES_FROM)
        hashes = [(key, chunk) for key, fields in self._hashes() for chunk in fields.parts()]
        steps = (
            [fields.arguments(keys[key], values) for key, fields in hashes],
            digest_arguments(keys[self._keys.digest(self._shard)], self._digests),
            self._touched_arguments(keys),
            [
                (keys[key], [text for field, limb in fields.items() for text in (field, str(limb))])
                for key, fields in self.increments().items()
            ],
            [
                (write.name, keys[write.key], chunk)
                for write in self._plain_writes()
                for chunk in chunks(write.arguments)
            ],
            self._outbox_arguments(keys, values),
            None if self.generation is None else (keys[Keys.meta], GENERATION_FIELD, self.generation),
        )
        return CommitPlan(
            keys=list(keys),
            argv=[_encode(steps), *values],
            compared=[(fields.kind, fields.names) for _, fields in hashes],
        )

    def _close(self, trade: Trade) -> None:
        member = self._keys.open_member(trade.user_id, trade.trade_id)
        self._removals[self._keys.open_trades(self._shard)].append(member)

    def _claim(self, key: str, field: str, trade_id: str, what: str) -> None:
        if field in self._claims[key]:
            raise Corrupt(f"two trades of one batch claim {what} {field!r}; one of them is {trade_id}")
        # What this commit takes from one trade it may give to another.
        owner = self._releases[key].pop(field, "")
        self._claims[key][field] = _Claim(what, owner, trade_id)

    def _hashes(self) -> Iterator[tuple[str, HashFields]]:
        """Every hash of which fields are compared and then set."""
        for bucket, records in self._records.items():
            yield self._keys.records(self._shard, bucket), records
        for key, claims in self._claims.items():
            fields = HashFields(next(iter(claims.values())).kind)
            for name, claim in claims.items():
                fields.add(name, claim.owner.encode(), claim.trade_id.encode())
            yield key, fields

    def _plain_writes(self) -> Iterator[PlainCommand]:
        """Every other write but increments, digests and the outbox."""
        keys, shard = self._keys, self._shard
        for key, released in self._releases.items():
            if released:
                yield PlainCommand("HDEL", key, list(released), None)
        for key, members in self._removals.items():
            yield PlainCommand("ZREM", key, members, None)
        for key, entries in self._entered():
            if entries:
                yield PlainCommand("ZADD", key, entries, None)
        if self._new_users:
            yield PlainCommand("SADD", keys.users(shard), list(self._new_users), None)
        if self._recent and self._recent_max is not None:
            last = str(-self._recent_max - 1)
            yield PlainCommand("ZREMRANGEBYRANK", keys.recent(shard), ["0", last], None)

    def _entered(self) -> Iterator[tuple[str, Sequence[Argument]]]:
        """Sorted sets, and what enters each: scores and members in turn."""
        keys, shard = self._keys, self._shard
        yield from ((keys.user_index(shard, user_id), entries) for user_id, entries in self._by_user.items())
        yield from (
            (keys.symbol_index(shard, symbol), entries) for symbol, entries in self._by_symbol.items()
        )
        yield keys.open_trades(shard), self._opened
        yield keys.expiries(shard), self._expiring
        yield keys.quarantined(shard), self._quarantined
        yield keys.recent(shard), self._recent

    def _touched_arguments(self, keys: Places) -> tuple[Any, ...]:
        # What recovery writes belongs to no revision that anybody knows.
        touched = self._touched if self.outbox else {}
        names = [keys[self._keys.changed(self._shard, user_id)] for user_id in touched]
        return names, [appended(trade_ids) for trade_ids in touched.values()]

    def _outbox_arguments(self, keys: Places, values: Places) -> tuple[Any, ...] | None:
        if not self.outbox:
            return None
        names, prefixes, stored = zip(*self.outbox, strict=True)
        return keys[self._keys.outbox(self._shard)], names, prefixes, [values[value] for value in stored]


class _Claim(NamedTuple):
    kind: str
    owner: str
    trade_id: str


def _add(total: dict[str, int], amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount
