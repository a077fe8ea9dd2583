"""The sums that the store keeps of each shard's buckets, and the position of its last commit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tradepool.audit.repair.fixes import Fix, mended, refusal, stated
from tradepool.audit.repair.journaled import last_positions
from tradepool.audit.repair.records import Soundness
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.rules.registry import Repair
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.keys import BUCKETS
from tradepool.store.mending import Look, Write
from tradepool.store.progress import POSITION_FIELD
from tradepool.store.translation import text_of

__all__ = ["sum_fixes"]

_BUCKET_NAMES = frozenset(f"{bucket:x}".encode() for bucket in range(BUCKETS))
_POSITION = POSITION_FIELD.encode()


def sum_fixes(pool: RepairedPool, shard: int, *, soundness: Soundness) -> Iterator[Fix]:
    """What to write about the sums of a shard whose records are so sound.

    Raises: Corrupt for a key of a wrong type.
    """
    key = pool.keys.digest(shard)
    yield from _position_fix(pool, shard, key)
    yield from _strange_fields(pool, key)
    recounts = pool.mender.recounted(shard, range(BUCKETS))
    if recounts is None:
        yield refusal(Repair.COUNTERS, key, "a record of the shard has no digest")
        return
    for bucket, kept, counted in recounts:
        if kept == counted:
            continue
        if soundness is Soundness.SOUND:
            yield Fix(
                action=Repair.COUNTERS,
                subject=f"shard {shard:02x}",
                detail=f"bucket {bucket:x}: {kept or 'nothing'} → {counted or 'nothing'}",
                act=partial(_recount, pool, shard, bucket),
            )
        elif soundness is Soundness.UNSOUND:
            yield refusal(Repair.COUNTERS, f"shard {shard:02x}", "a record of it has a fault of its own")


def _position_fix(pool: RepairedPool, shard: int, key: str) -> Iterator[Fix]:
    ask = ("HGET", key, POSITION_FIELD)
    (before,) = pool.mender.ask([ask])
    try:
        right = last_positions(pool, [shard])[shard]
        parse_position(right)
    except ValueError:
        # What the journal has published is a fault of its own.
        return
    (stored,) = pool.mender.ask([ask])
    if stored != before or (stored or START_POSITION.encode()) == right.encode():
        return
    was = None if stored is None else bytes(stored)
    yield Fix(
        action=Repair.COUNTERS,
        subject=key,
        detail=f"position: {stated(None if was is None else text_of(was))} → {right}",
        act=mended(pool, [Look("HGET", key, [_POSITION], was)], [Write("HSET", key, [_POSITION, right])]),
    )


def _strange_fields(pool: RepairedPool, key: str) -> Iterator[Fix]:
    for field, value in sorted(pool.mender.fields(key).items()):
        if field != _POSITION and field not in _BUCKET_NAMES:
            yield Fix(
                action=Repair.COUNTERS,
                subject=key,
                detail=f"{field.decode(errors='backslashreplace')}: {text_of(value)} → nothing",
                act=mended(pool, [Look("HGET", key, [field], value)], [Write("HDEL", key, [field])]),
            )


def _recount(pool: RepairedPool, shard: int, bucket: int) -> str | None:
    return None if pool.mender.recount(shard, [bucket]) is not None else "a record has no digest"
