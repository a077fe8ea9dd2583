"""Idempotency keys and venue fills: claimed for the trades that use them, and for no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tradepool.audit.repair.fixes import Fix, mended, stated
from tradepool.audit.repair.journaled import Lost
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import ShardState, beside, content_at
from tradepool.audit.report import shown
from tradepool.audit.rules.registry import Repair
from tradepool.errors import Corrupt
from tradepool.store.key_families import user_of
from tradepool.store.mending import Look, Write

__all__ = ["claim_fixes"]

_Held = tuple[bytes | None, bool]
"""A trade's record, and whether it uses the claim."""


def claim_fixes(pool: RepairedPool, state: ShardState, unsound: frozenset[str], lost: Lost) -> Iterator[Fix]:
    """Claims of the shard's users that are missing, or for a trade that does not use them.

    Those of `lost` trades stay.
    """
    keys, shard = pool.keys, state.shard
    hashes = {of(shard, user) for user in state.users for of in (keys.idempotency, keys.fill_claims)}
    for key in sorted(hashes):
        try:
            held = pool.mender.fields(key)
        except Corrupt:
            continue
        used = state.claims.get(key, {})
        for field in sorted(held.keys() | used.keys()):
            holder = held.get(field, b"").decode(errors="backslashreplace")
            users = used.get(field, [])
            if holder not in users and unsound.isdisjoint({holder, *users}):
                fix = _claim_fix(pool, _Claim(shard, key, field), users[0] if users else None, lost)
                if fix is not None:
                    yield fix


class _Claim(NamedTuple):
    """Where a claim stands."""

    shard: int
    key: str
    field: bytes


def _claim_fix(pool: RepairedPool, claim: _Claim, user: str | None, lost: Lost) -> Fix | None:
    """What to write about a claim, as everything stands now; None: nothing."""
    shard, key, field = claim
    (stored,) = pool.mender.ask([("HGET", key, field)])
    holder = None if stored is None else stored.decode(errors="backslashreplace")
    looks = [Look("HGET", key, [field], stored)]
    if holder is not None:
        value, uses = _held(pool, shard, key, field, holder)
        looks.append(pool.mender.record_look(shard, holder, value))
        if uses or (value is None and holder in lost.ids()):
            return None
    if user is not None:
        value, uses = _held(pool, shard, key, field, user)
        looks.append(pool.mender.record_look(shard, user, value))
        user = user if uses else None
    if user is None and holder is None:
        return None
    write = Write("HDEL", key, [field]) if user is None else Write("HSET", key, [field, user])
    name = shown(field.decode(errors="backslashreplace"))
    return Fix(
        action=Repair.INDEX,
        subject=user or holder or "",
        detail=f"{key} {name}: {stated(holder)} → {stated(user)}",
        act=mended(pool, looks, [write]),
        user_id=user_of(key),
    )


def _held(pool: RepairedPool, shard: int, key: str, field: bytes, trade_id: str) -> _Held:
    value = pool.store.read([(shard, trade_id)])[0]
    content = content_at(pool.keys, shard, trade_id, value)
    if content is None and value is not None:
        # What cannot be read may use anything.
        return value, True
    return value, (key, field) in beside(pool.keys, shard, trade_id, content).claims
