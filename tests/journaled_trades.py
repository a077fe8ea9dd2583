"""Journals of very many trades, written without a server: what a recovery at size begins with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.store_changes import START_US, filled, new_trade
from tradepool.files.journal import Journal
from tradepool.files.lines import NewLine
from tradepool.model.archived import archived
from tradepool.model.codec import ARCHIVED_KIND, NO_STATUS, TRADE_KIND, digest_of, encode_trade
from tradepool.model.counters import add_counters, contribution
from tradepool.model.ids import mint_id
from tradepool.model.kinds import Role
from tradepool.model.trade import Trade
from tradepool.store.keys import Keys

__all__ = ["counters_of", "user_of", "write_trades"]

USERS = 1000
_GROUP_LINES = 5000
_PENDING = new_trade("nobody")
_ENTERED = filled(_PENDING)
_CLOSED = filled(_ENTERED, Role.EXIT, fill_id="x", price=110)
_LIVES = (
    # Most are journaled once, as an import leaves them.
    *[(msgspec.structs.replace(_CLOSED, version=1),)] * 7,
    (_PENDING, _ENTERED),
    (_PENDING, _ENTERED, _CLOSED),
    (_PENDING,),
)
"""Each trade goes through one of these, in turns."""


def user_of(number: int) -> str:
    """Whose trade `number` is."""
    return f"user-{number % USERS}"


def counters_of(count: int, user_id: str, *, archived_every: int = 0) -> dict[str, int]:
    """What the user's counters must be after `write_trades` with the same arguments."""
    total: dict[str, int] = {}
    for number in range(count):
        if user_of(number) == user_id:
            add_counters(total, contribution(_life(number, archived_every)[-1]))
    return {name: value for name, value in total.items() if value}


def write_trades(journal: Journal, keys: Keys, count: int, *, archived_every: int = 0) -> None:
    """Journal `count` trades in groups over all shards, and every so manieth's archiving."""
    entries: list[NewLine] = []
    position = 0
    for number in range(count):
        entries += _entries(keys, number, archived_every)
        if len(entries) >= _GROUP_LINES or number == count - 1:
            position += 1
            _commit(journal, entries, f"{position}-0")
            entries = []


def _is_archived(number: int, archived_every: int) -> bool:
    return archived_every > 0 and number % archived_every == 0


def _life(number: int, archived_every: int) -> tuple[Trade, ...]:
    return _LIVES[0] if _is_archived(number, archived_every) else _LIVES[number % len(_LIVES)]


def _commit(journal: Journal, entries: list[NewLine], position: str) -> None:
    positions: dict[int, str] = defaultdict(lambda: position)
    journal.append(entry._replace(position=positions[entry.shard].encode()) for entry in entries)
    journal.commit(positions)


def _entries(keys: Keys, number: int, archived_every: int) -> Iterator[NewLine]:
    at, user_id = START_US + number, user_of(number)
    names: dict[str, Any] = {
        "trade_id": mint_id(user_id, at_us=at, random_bits=number),
        "user_id": user_id,
        "created_at": at,
    }
    shard, previous = keys.shard_of_user(user_id), b""
    for trade in _life(number, archived_every):
        # A venue's fill belongs to one trade.
        fills = tuple(
            msgspec.structs.replace(fill, fill_id=f"{fill.fill_id}-{number}") for fill in trade.fills
        )
        made = msgspec.structs.replace(trade, **names, fills=fills)
        yield (entry := _entry(shard, made, encode_trade(made), TRADE_KIND, previous))
        previous = entry.digest
    if _is_archived(number, archived_every):
        left = archived(made, "2026-11-01")
        yield _entry(shard, made, msgspec.json.encode(left), ARCHIVED_KIND, previous)


def _entry(shard: int, trade: Trade, body: bytes, kind: str, previous: bytes) -> NewLine:
    is_trade = kind == TRADE_KIND
    return NewLine(
        shard=shard,
        position=b"",
        place=0,
        kind=kind.encode(),
        record_id=trade.trade_id.encode(),
        command_id=b"",
        task_id=b"",
        version=trade.version if is_trade else trade.version + 1,
        digest=digest_of(body).encode(),
        previous=previous,
        status=(trade.status.code if is_trade else NO_STATUS).encode(),
        record=body,
    )
