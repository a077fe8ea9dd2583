"""Sorted sets, the sets of users, and routes: brought to what follows from the records.

What an entry should be follows from one record, and changes only in a commit that changes that record. So
each is written if the record is still the one that was looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from heapq import nlargest

from tradepool.audit.repair.fixes import CHANGED, Fix, mended, refusal, stated
from tradepool.audit.repair.journaled import Lost
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import ShardState, beside, content_at
from tradepool.audit.report import shown
from tradepool.audit.rules.registry import Repair
from tradepool.batching import batched
from tradepool.errors import Corrupt
from tradepool.model.ids import slot_of_user
from tradepool.store.key_families import family_of
from tradepool.store.mending import Look, Write

__all__ = ["index_fixes", "route_fixes", "user_fixes"]

_BATCH = 1000


def index_fixes(pool: RepairedPool, state: ShardState, unsound: frozenset[str], lost: Lost) -> Iterator[Fix]:
    """Entries of the shard's sorted sets that are missing, misplaced or not to be there.

    Those of `lost` records stay.
    """
    for key in sorted(_indexes(pool, state)):
        try:
            listed = pool.mender.members(key)
        except Corrupt:
            # A key of a wrong type is a fault of its own.
            continue
        wanted = state.entries.get(key, {})
        if key == pool.keys.recent(state.shard):
            newest = nlargest(pool.recent_max, wanted, key=wanted.__getitem__)
            wanted = {member: wanted[member] for member in {*newest, *(wanted.keys() & listed.keys())}}
        for member in sorted({member for member, _ in listed.items() ^ wanted.items()}):
            record_id = _record_of(pool, state.shard, key, member)
            if record_id not in unsound:
                fix = _entry_fix(pool, state.shard, key, member, lost)
                if fix is not None:
                    yield fix


def user_fixes(pool: RepairedPool, state: ShardState, unsound: frozenset[str], lost: Lost) -> Iterator[Fix]:
    """Users with a record who are not among the shard's users, and users without one who are."""
    users = sorted(state.users)
    try:
        known = pool.store.known_users(state.shard, users) if users else []
    except Corrupt:
        return
    for user_id, is_known in zip(users, known, strict=True):
        if not is_known:
            key = pool.keys.users(state.shard)
            yield Fix(
                action=Repair.INDEX,
                subject=user_id,
                detail=f"{key}: nothing → {user_id}",
                act=mended(pool, [], [Write("SADD", key, [user_id])]),
                user_id=user_id,
            )
    if not unsound:
        yield from _ghost_fixes(pool, state, lost)


def _ghost_fixes(pool: RepairedPool, state: ShardState, lost: Lost) -> Iterator[Fix]:
    """Users without a record; whoever gets his first one has something noted in the same commit."""
    ghosts = sorted(set(_listed_users(pool, state.shard)) - state.users)
    if not ghosts or lost.ids():
        return
    key = pool.keys.users(state.shard)
    for user_id in ghosts:
        looks = [Look("GET", pool.keys.changed(state.shard, user_id), [], None)]
        yield Fix(
            action=Repair.INDEX,
            subject=shown(user_id),
            detail=f"{key}: {shown(user_id)} → nothing",
            act=mended(pool, looks, [Write("SREM", key, [user_id])]),
            user_id=user_id,
        )


def route_fixes(pool: RepairedPool, state: ShardState, unsound: frozenset[str]) -> Iterator[Fix]:
    """Ids without a slot that do not lead to their trade's user."""
    for batch in batched(sorted(state.unrouted.keys() - unsound), _BATCH):
        keys = [pool.keys.routes(pool.keys.route_shard(trade_id)) for trade_id in batch]
        try:
            found = pool.mender.ask([("HGET", *place) for place in zip(keys, batch, strict=True)])
        except Corrupt:
            continue
        for trade_id, key, stored in zip(batch, keys, found, strict=True):
            slot = slot_of_user(state.unrouted[trade_id])
            if stored != str(slot).encode():
                yield _route_fix(pool, state, trade_id, key, stored)


def _indexes(pool: RepairedPool, state: ShardState) -> set[str]:
    keys, shard = pool.keys, state.shard
    of_shard = {keys.recent(shard), keys.open_trades(shard), keys.expiries(shard), keys.quarantined(shard)}
    users = state.users | set(_listed_users(pool, shard))
    return of_shard | state.entries.keys() | {keys.user_index(shard, user_id) for user_id in users}


def _listed_users(pool: RepairedPool, shard: int) -> Iterator[str]:
    try:
        yield from pool.store.users(shard)
    except Corrupt:
        return


def _record_of(pool: RepairedPool, shard: int, key: str, member: bytes) -> str | None:
    """The record that a member stands for; None: it is no text, so no record's id."""
    try:
        name = member.decode()
    except UnicodeDecodeError:
        return None
    return pool.keys.trade_of_open_member(name) if key == pool.keys.open_trades(shard) else name


def _entry_fix(pool: RepairedPool, shard: int, key: str, member: bytes, lost: Lost) -> Fix | None:
    """What to write about a member, as everything stands now; None: nothing."""
    record_id = _record_of(pool, shard, key, member)
    value = None if record_id is None else pool.store.read([(shard, record_id)])[0]
    content = None if record_id is None else content_at(pool.keys, shard, record_id, value)
    if record_id is None or (content is None and value is not None):
        wanted = None
        if value is not None:
            return None
    else:
        wanted = beside(pool.keys, shard, record_id, content).entries.get((key, member))
    at = pool.mender.score(key, member)
    if at == wanted or (value is None and record_id is not None and record_id in lost.ids()):
        return None
    looks = [] if record_id is None else [pool.mender.record_look(shard, record_id, value)]
    write = Write("ZREM", key, [member]) if wanted is None else Write("ZADD", key, [repr(wanted), member])
    subject = record_id or member.decode(errors="backslashreplace")
    return Fix(
        action=Repair.INDEX,
        subject=shown(subject),
        detail=f"{key}: {stated(_whole(at))} → {stated(_whole(wanted))}",
        act=mended(pool, looks, [write]),
        user_id=_user_of(pool, key, record_id) if content is None else content.user_id,
    )


def _user_of(pool: RepairedPool, key: str, record_id: str | None) -> str:
    """Whose an entry is that stands for no record; '' where nothing tells."""
    family, rest = family_of(key)
    return rest if family == "u" else pool.keys.user_of_ledger(record_id or "")


def _whole(at: float | None) -> float | int | None:
    return int(at) if at is not None and at.is_integer() else at


def _route_fix(pool: RepairedPool, state: ShardState, trade_id: str, key: str, stored: bytes | None) -> Fix:
    user_id = state.unrouted[trade_id]
    slot = slot_of_user(user_id)
    if _is_anothers(pool, state.shard, trade_id, stored):
        why = f"its id leads to a trade of another user (slot {stored!r}); a person has to decide"
        return refusal(Repair.INDEX, trade_id, why, user_id)
    was = None if stored is None else stored.decode(errors="backslashreplace")
    return Fix(
        action=Repair.INDEX,
        subject=trade_id,
        detail=f"{key}: {stated(was)} → {slot}",
        act=partial(_reroute, pool, state.shard, trade_id, Look("HGET", key, [trade_id], stored), slot),
        user_id=user_id,
    )


def _reroute(pool: RepairedPool, shard: int, trade_id: str, look: Look, slot: int) -> str | None:
    # Record and route may be on two nodes; a record never goes.
    if pool.store.read([(shard, trade_id)])[0] is None:
        return CHANGED
    return mended(pool, [look], [Write("HSET", look.key, [trade_id, str(slot)])])()


def _is_anothers(pool: RepairedPool, shard: int, trade_id: str, stored: bytes | None) -> bool:
    if stored is None or not stored.isdigit():
        return False
    other = pool.keys.shard(int(stored))
    return other != shard and pool.store.read([(other, trade_id)])[0] is not None
