"""The arguments of lua/commit.lua, collected in any order and written out in the script's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.codec import COMPARED_CHARS
from tradepool.model.trade import Trade
from tradepool.store.keys import Keys
from tradepool.store.limbs import split_limbs

__all__ = ["REVISION_FIELD", "Argument", "CommitPlan", "Draft"]

REVISION_FIELD = "rev"
"""Field of a user's counters: how many commits have touched the user."""

Argument = str | bytes | int
T = TypeVar("T")

_CALL_ARGUMENTS_MAX = 4000
"""Arguments of one call in the script, even because fields come in pairs; Lua's unpack fails near 8,000."""
_VERSION_CHARS = 8
_DIGEST_CHARS = 16


class CommitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """KEYS and ARGV of one call of lua/commit.lua."""

    keys: list[str]
    argv: list[Argument]
    checks: tuple[str, ...]
    """What each check protects, in words, in the order in which the script counts them."""


class Draft:
    """What one commit of one shard compares and writes, collected call by call."""

    def __init__(self, keys: Keys, shard: int) -> None:
        self._keys = keys
        self._shard = shard
        self._checks: dict[str, dict[str, _Check]] = defaultdict(dict)
        self._digests: dict[int, _DigestChange] = defaultdict(_DigestChange)
        self._increments: dict[str, dict[str, int]] = defaultdict(dict)
        self._writes: dict[tuple[str, str], list[Argument]] = defaultdict(list)
        self.outbox: list[str | bytes] = []
        """Names and values of the outbox entry; none is written when empty."""

    def record(self, record_id: str, before: bytes | None, after: bytes) -> None:
        """Replace what is stored of a record, if it is still `before` (None: absent)."""
        bucket = self._keys.bucket_of(record_id)
        key = self._keys.records(self._shard, bucket)
        expected = before[:COMPARED_CHARS] if before is not None else b""
        self._checks[key][record_id] = _Check(expected, f"record {record_id}")
        self._digests[bucket].replace(before, after)
        self._writes["HSET", key] += [record_id, after]

    def touch_user(self, user_id: str, *, is_new: bool) -> None:
        """Count one commit for the user, and note the user with a new record."""
        self._increments[self._keys.counters(self._shard, user_id)][REVISION_FIELD] = 1
        if is_new:
            self._writes["SADD", self._keys.users(self._shard)].append(user_id)

    def index_trade(self, trade: Trade) -> None:
        """Enter a new trade in the indexes by time."""
        for key in (
            self._keys.user_index(self._shard, trade.user_id),
            self._keys.symbol_index(self._shard, trade.symbol),
            self._keys.recent(self._shard),
        ):
            self._writes["ZADD", key] += [trade.created_at, trade.trade_id]

    def set_open(self, trade: Trade) -> None:
        """Enter the trade among the open ones, or take it out."""
        key = self._keys.open_trades(self._shard)
        member = self._keys.open_member(trade.user_id, trade.trade_id)
        if trade.is_open:
            self._writes["ZADD", key] += [0, member]
        else:
            self._writes["ZREM", key].append(member)

    def trim_recent(self, length: int) -> None:
        """Keep the `length` newest trades in the recent index, if this commit adds to it."""
        key = self._keys.recent(self._shard)
        if ("ZADD", key) in self._writes:
            self._writes["ZREMRANGEBYRANK", key] += [0, -length - 1]

    def claim_idempotency_key(self, user_id: str, name: str, trade_id: str) -> None:
        """Give an idempotency key, which must be free, to the trade."""
        self._claim(self._keys.idempotency(self._shard, user_id), name, trade_id, "idempotency key")

    def claim_fill(self, user_id: str, claim: str, trade_id: str) -> None:
        """Give a fill claim, which must be free, to the trade."""
        self._claim(self._keys.fill_claims(self._shard, user_id), claim, trade_id, "fill")

    def count(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Add `amounts` to the user's counters."""
        fields = self._increments[self._keys.counters(self._shard, user_id)]
        for name, amount in amounts.items():
            for field, limb in split_limbs(name, amount):
                fields[field] = fields.get(field, 0) + limb

    def plan(self) -> CommitPlan:
        """Everything collected, as the script reads it."""
        numbers = _KeyNumbers()
        argv = [
            *self._check_arguments(numbers),
            *self._digest_arguments(numbers),
            *self._increment_arguments(numbers),
            *self._write_arguments(numbers),
            *self._outbox_arguments(numbers),
        ]
        labels = tuple(check.label for fields in self._checks.values() for check in fields.values())
        return CommitPlan(keys=list(numbers), argv=argv, checks=labels)

    def _claim(self, key: str, field: str, trade_id: str, what: str) -> None:
        if field in self._checks[key]:
            raise Corrupt(f"two trades of one batch claim {what} {field!r}; one of them is {trade_id}")
        self._checks[key][field] = _Check(b"", f"{what} {field!r}")
        self._writes["HSET", key] += [field, trade_id]

    def _check_arguments(self, numbers: _KeyNumbers) -> Iterator[Argument]:
        groups = [
            (key, chunk)
            for key, fields in self._checks.items()
            for chunk in _chunks(list(fields.items()), _CALL_ARGUMENTS_MAX)
        ]
        yield len(groups)
        for key, chunk in groups:
            yield numbers[key]
            yield len(chunk)
            yield from (field for field, _ in chunk)
            yield from (check.expected for _, check in chunk)

    def _digest_arguments(self, numbers: _KeyNumbers) -> Iterator[Argument]:
        yield numbers[self._keys.digest(self._shard)]
        yield len(self._digests)
        for bucket, change in self._digests.items():
            yield f"{bucket:x}"
            yield f"{change.xor >> 32:08x}"
            yield f"{change.xor & 0xFFFFFFFF:08x}"
            yield change.count

    def _increment_arguments(self, numbers: _KeyNumbers) -> Iterator[Argument]:
        yield len(self._increments)
        for key, fields in self._increments.items():
            # Opposite changes of two trades cancel out.
            changed = [(field, limb) for field, limb in fields.items() if limb]
            yield numbers[key]
            yield len(changed)
            for pair in changed:
                yield from pair

    def _write_arguments(self, numbers: _KeyNumbers) -> Iterator[Argument]:
        calls = [
            (command, key, chunk)
            for (command, key), arguments in self._writes.items()
            for chunk in _chunks(arguments, _CALL_ARGUMENTS_MAX)
        ]
        yield len(calls)
        for command, key, chunk in calls:
            yield command
            yield numbers[key]
            yield len(chunk)
            yield from chunk

    def _outbox_arguments(self, numbers: _KeyNumbers) -> Iterator[Argument]:
        if not self.outbox:
            yield 0
            return
        assert len(self.outbox) <= _CALL_ARGUMENTS_MAX
        yield numbers[self._keys.outbox(self._shard)]
        yield len(self.outbox)
        yield from self.outbox


class _Check(msgspec.Struct, frozen=True, gc=False):
    expected: bytes
    label: str


class _DigestChange(msgspec.Struct, gc=False):
    """How the digest of one bucket changes."""

    xor: int = 0
    count: int = 0

    def replace(self, before: bytes | None, after: bytes) -> None:
        self.xor ^= _digest(after)
        if before is None:
            self.count += 1
        else:
            self.xor ^= _digest(before)


class _KeyNumbers(dict[str, int]):
    """KEYS in order of first use; `numbers[key]` is the place of a key, from 1."""

    def __missing__(self, key: str) -> int:
        self[key] = number = len(self) + 1
        return number


def _digest(value: bytes) -> int:
    return int(value[_VERSION_CHARS : _VERSION_CHARS + _DIGEST_CHARS], 16)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
