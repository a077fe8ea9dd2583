"""Everything a server holds of a pool, and what it should hold according to the journal's lines."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import msgspec
import redis

from tests.faults.simulator.journal_lines import JournalFiles, Line
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.counters import contribution
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.ledger import next_expiry
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store.keys import Keys

__all__ = ["Contents", "actual_contents", "expected_contents"]

Contents = dict[str, Any]
"""Key → content: dicts of fields, dicts of scores, sets."""

RECENT_MAX: int = Settings.model_fields["recent_max"].default

_KEY_OF_SHARD = re.compile(r"tp:\{[0-9a-f]{2}\}:(?!outbox|marks:|n:)")


def actual_contents(client: redis.Redis) -> Contents:
    """What the server's shards hold, key by key; what recovery does not bring back left out."""
    names = [key.decode() for key in client.scan_iter("tp:*", count=1000)]
    names = [name for name in names if _KEY_OF_SHARD.match(name)]
    found = {name: _read(client, name, client.type(name)) for name in names}
    return {name: content for name, content in found.items() if content}


def _read(client: redis.Redis, name: str, kind: bytes) -> Any:
    if kind == b"zset":
        return {member.decode(): score for member, score in client.zrange(name, 0, -1, withscores=True)}
    if kind == b"set":
        return {member.decode() for member in client.smembers(name)}
    if kind != b"hash":
        return client.get(name)
    fields = {field.decode(): value for field, value in client.hgetall(name).items()}
    if ":r:" in name:
        return {record_id: _record(value) for record_id, value in fields.items()}
    if ":c:" in name or ":ca:" in name:
        return _joined(fields)
    return {field: value.decode() for field, value in fields.items()}


def _record(value: bytes) -> tuple[int, str, str, str, bytes]:
    header, body = codec.split(value)
    return header.version, header.digest, header.kind, header.status, body


def _joined(fields: dict[str, bytes]) -> dict[str, int]:
    """Counters out of their limbs, as docs/redis-keys.md says."""
    counters: dict[str, int] = defaultdict(int)
    for field, value in fields.items():
        name = field.rstrip("~")
        counters[name] += int(value) * 10 ** (12 * (len(field) - len(name)))
    return {name: number for name, number in counters.items() if number}


def expected_contents(journal: JournalFiles, keys: Keys, *, recent_max: int = RECENT_MAX) -> Contents:
    """What follows from the newest version of every record in the journal.

    `recent_max` is the pool's setting: a shard's list of recent trades keeps so many.
    """
    expected = _Expected(keys, recent_max)
    for history in journal.history.values():
        expected.add(history)
    return expected.contents(journal)


class _Expected:
    def __init__(self, keys: Keys, recent_max: int) -> None:
        self._keys = keys
        self._recent_max = recent_max
        self._hashes: dict[str, dict[str, Any]] = defaultdict(dict)
        self._users: dict[str, set[str]] = defaultdict(set)
        self._counters: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._digests: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])

    def add(self, history: list[Line]) -> None:
        """One record, with all its versions."""
        line = history[-1]
        bucket = self._keys.bucket_of(line.id)
        stored = (line.v, line.d, line.k, line.st, bytes(line.r))
        self._hashes[self._keys.records(line.s, bucket)][line.id] = stored
        digest = self._digests[line.s, bucket]
        digest[0] ^= int(line.d, 16)
        digest[1] += 1
        user_id = msgspec.json.decode(line.r)["user_id"]
        self._users[self._keys.users(line.s)].add(user_id)
        if line.k == "l":
            self._add_ledger(line)
        else:
            self._add_trade(line.s, history)

    def contents(self, journal: JournalFiles) -> Contents:
        """Everything, with each shard's digests and position."""
        for (shard, bucket), (xor, count) in self._digests.items():
            self._hashes[self._keys.digest(shard)][f"{bucket:x}"] = f"{xor:016x}:{count}"
        for shard, position in journal.positions.items():
            self._hashes[self._keys.digest(shard)]["position"] = position
        for shard in self._keys.shards:
            self._hashes[self._keys.recent(shard)] = self._newest(self._hashes[self._keys.recent(shard)])
        counters = {
            key: {name: number for name, number in numbers.items() if number}
            for key, numbers in self._counters.items()
        }
        return {key: value for key, value in (self._hashes | self._users | counters).items() if value}

    def _newest(self, recent: dict[str, float]) -> dict[str, float]:
        in_order = sorted(recent.items(), key=lambda item: (item[1], item[0]))
        return dict(in_order[-self._recent_max :])

    def _add_ledger(self, line: Line) -> None:
        at = next_expiry(codec.decode(line.k, bytes(line.r)))
        if at is not None:
            self._hashes[self._keys.expiries(line.s)][line.id] = float(at)

    def _add_trade(self, shard: int, history: list[Line]) -> None:
        newest = [codec.decode_trade(bytes(line.r)) for line in history if line.k == "t"][-1]
        if slot_of_id(newest.trade_id) is None:
            route = self._keys.routes(self._keys.route_shard(newest.trade_id))
            self._hashes[route][newest.trade_id] = str(slot_of_user(newest.user_id))
        self._count(self._keys.counters(shard, newest.user_id), newest)
        if history[-1].k == "a":
            assert msgspec.json.decode(history[-1].r, type=Archived).payload == newest.payload
            self._count(self._keys.archived_counters(shard, newest.user_id), newest)
            return
        for key in (
            self._keys.user_index(shard, newest.user_id),
            self._keys.symbol_index(shard, newest.symbol),
            self._keys.recent(shard),
        ):
            self._hashes[key][newest.trade_id] = float(newest.created_at)
        self._claim(shard, newest)

    def _claim(self, shard: int, trade: Trade) -> None:
        if trade.is_open:
            member = self._keys.open_member(trade.user_id, trade.trade_id)
            self._hashes[self._keys.open_trades(shard)][member] = 0.0
        if trade.idempotency_key is not None:
            owners = self._hashes[self._keys.idempotency(shard, trade.user_id)]
            assert owners.setdefault(trade.idempotency_key, trade.trade_id) == trade.trade_id, "two trades"
        claims = self._hashes[self._keys.fill_claims(shard, trade.user_id)]
        for fill in trade.fills:
            if not fill.fill_id.startswith(f"{trade.trade_id}:"):
                parts = (trade.exchange, trade.account_id, trade.symbol, fill.fill_id)
                owner = claims.setdefault("\x1f".join(parts), trade.trade_id)
                assert owner == trade.trade_id, f"fill {fill.fill_id} is booked on two trades"

    def _count(self, key: str, trade: Trade) -> None:
        for name, number in contribution(trade).items():
            self._counters[key][name] += number
