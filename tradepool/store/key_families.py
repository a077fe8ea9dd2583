"""What a key's name says of it: the type that it should have, whose it is, or that it is not the pool's."""

from __future__ import annotations

from types import MappingProxyType

from tradepool.store.keys import BUCKETS, MARK_BUCKETS, Keys

__all__ = ["family_of", "symbol_of", "type_of", "user_of"]

_TYPES = MappingProxyType(
    dict.fromkeys(("r", "digest", "c", "ca", "i", "f", "route"), "hash")
    | dict.fromkeys(("u", "s", "open", "recent", "expiry", "quarantine"), "zset")
    | {"outbox": "stream", "users": "set", "n": "string"}
)
"""Family of a shard's keys → the type they have."""
_OF_THE_POOL = frozenset({Keys.journal, Keys.meta})
"""Without these nobody may write: the whole pool would wait for its recovery."""
_OF_USERS = frozenset({"u", "c", "ca", "n", "i", "f"})
_OF_SYMBOLS = "s"
_PASSING = frozenset({"filling", "marks"})
"""Families that may go: nothing is lost with them."""
_BUCKETS = MappingProxyType(
    {
        "r": frozenset(f"{bucket:x}" for bucket in range(BUCKETS)),
        "marks": frozenset(f"{bucket:02x}" for bucket in range(MARK_BUCKETS)),
    }
)
_ONE_OF_A_SHARD = frozenset({""})
_UNKNOWN = ""


def type_of(keys: Keys, name: str) -> str | None:
    """The type of a key that must not go away; None for one that may, "" for one that is not the pool's."""
    if name in _OF_THE_POOL:
        return "hash"
    if name == Keys.journal_bell:
        return None
    family, rest = family_of(name)
    if not _is_ours(keys, keys.shard_of_key(name), family, rest):
        return _UNKNOWN
    return None if family in _PASSING else _TYPES.get(family, _UNKNOWN)


def user_of(name: str) -> str | None:
    """The user in a key's name, for a family that has one."""
    family, user_id = family_of(name)
    return user_id if family in _OF_USERS else None


def symbol_of(name: str) -> str | None:
    """The symbol in a key's name, for the family that has one."""
    family, symbol = family_of(name)
    return symbol if family == _OF_SYMBOLS else None


def family_of(name: str) -> tuple[str, str]:
    """A key's family within its shard, and what follows: a user, a symbol, a bucket."""
    family, _, rest = name.partition("}:")[2].partition(":")
    return family, rest


def _is_ours(keys: Keys, shard: int, family: str, rest: str) -> bool:
    if shard not in keys.shards:
        return False
    if family in _OF_USERS:
        return keys.shard_of_user(rest) == shard
    if family == _OF_SYMBOLS:
        return bool(rest)
    return rest in _BUCKETS.get(family, _ONE_OF_A_SHARD)
