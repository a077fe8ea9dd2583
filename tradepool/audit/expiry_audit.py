"""Ledgers with open reservations, against the index that has them given back when they expire."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tradepool.audit.report import Finding
from tradepool.audit.rules.ledger_rules import Expiry, expiry_extra, expiry_missing
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.ledger import Ledger, next_expiry
from tradepool.store.redis_store import RedisStore

__all__ = ["compare_expiries"]


def compare_expiries(
    store: RedisStore,
    shard: int,
    seen: Mapping[str, int | None],
    *,
    user_id: str | None = None,
    without: Collection[str] = (),
) -> Iterator[Finding]:
    """Every ledger of the shard, or of one user in it, stands in the index where it begins to expire.

    `seen` holds when that is, µs, for the ledgers that were read. What differs is read again, as it may
    have changed since; ledgers in `without` have a fault of their own.
    """
    of_user = store.keys.user_of_ledger
    indexed = {i: at for i, at in store.expiries(shard).items() if user_id in (None, of_user(i))}
    for record_id in sorted((seen.keys() | indexed.keys()) - set(without)):
        if _score(seen.get(record_id)) != indexed.get(record_id):
            yield from _recheck(store, shard, record_id)


def _recheck(store: RedisStore, shard: int, record_id: str) -> Iterator[Finding]:
    value, indexed = store.read_with_expiry(shard, record_id)
    try:
        ledger = None if value is None else codec.unpack(value)
    except Corrupt:
        return  # Whoever reads the records finds that.
    expires = next_expiry(ledger) if isinstance(ledger, Ledger) else None
    expiry = Expiry(record_id, expires, indexed)
    yield from expiry_missing(expiry)
    yield from expiry_extra(expiry)


def _score(at: int | None) -> int | None:
    """As the server keeps it."""
    return None if at is None else int(float(at))
