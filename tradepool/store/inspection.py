"""What only an audit asks of the store: how its keys are, and what stands in them beside the records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from tradepool.batching import batched
from tradepool.model.positions import START_POSITION
from tradepool.store.asking import Command, ask_all
from tradepool.store.changed_ids import CUT_CHARS, SEPARATOR, ids_in
from tradepool.store.connection import Client
from tradepool.store.key_families import type_of, user_of
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.limbs import join_limbs
from tradepool.store.outbox import OutboxEntry
from tradepool.store.progress import POSITION_FIELD
from tradepool.store.shard_count import SHARD_COUNT_FIELD
from tradepool.store.translation import text_of, texts_of, translated

__all__ = ["Claims", "Inspection", "Lifetime", "OutboxEnd", "StoredKey"]

_PAGE = 1000
_NO_TIME_LIMIT = -1
_DIGITS = re.compile("[0-9]{16}")
_NUMBER = re.compile(r"-?[0-9]+")
_GLOB = re.compile(r"([\\*?\[\]])")


class StoredKey(NamedTuple):
    """A key that must not go away by itself, or that nobody knows."""

    name: str
    shard: int
    expected: str
    """The type that it should have; "" for a key that is none of the pool's."""
    found: str
    """The type that it has."""
    has_time_limit: bool
    user_id: str | None
    """Whose it is; None: it concerns the whole shard."""


class Claims(NamedTuple):
    """What is claimed by the trades of a user: name → trade id."""

    idempotency_keys: dict[str, str]
    fills: dict[str, str]


class Lifetime(NamedTuple):
    """A user's counters, and those of his archived trades; what of it is no number."""

    counters: dict[str, int]
    archived: dict[str, int]
    unreadable: str


class OutboxEnd(NamedTuple):
    """The last entry of a shard's outbox (None: it is empty) and the last commit by the shard's sums."""

    last: str | None
    position: str
    stood_still: bool
    """Whether both are of one moment."""


class Inspection:
    """The part of the store that audits ask. All methods raise StoreUnavailable, Corrupt for a wrong type."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def stored_keys(self) -> Iterator[StoredKey]:
        """Every key of every shard that must not go away, and every key with such a name that is none of the
        pool's; in no order and in bounded memory.
        """
        names: Iterable[Any] = self._client.scan_iter(match=self.keys.any_of_a_shard, count=_PAGE)
        with translated():
            for page in batched(map(text_of, names), _PAGE):
                yield from self.keys_named(page)

    def keys_of_user(self, user_id: str) -> list[StoredKey]:
        """Those of them that hold something of the user."""
        shard, keys = self.keys.shard_of_user(user_id), self.keys
        of_user = (
            keys.user_index,
            keys.counters,
            keys.archived_counters,
            keys.changed,
            keys.idempotency,
            keys.fill_claims,
        )
        of_shard = (
            keys.digest,
            keys.outbox,
            keys.open_trades,
            keys.expiries,
            keys.users,
            keys.recent,
            keys.quarantined,
        )
        names = [name(shard, user_id) for name in of_user] + [name(shard) for name in of_shard]
        return self.keys_named([*names, *(keys.records(shard, bucket) for bucket in range(BUCKETS))])

    def keys_named(self, names: Iterable[str]) -> list[StoredKey]:
        """Those of the named keys that are there, and must not go away or are unknown."""
        known = [(name, type_of(self.keys, name)) for name in names]
        wanted = [(name, kind) for name, kind in known if kind is not None]
        questions = [command for name, _ in wanted for command in (("TYPE", name), ("PTTL", name))]
        with translated():
            answers = ask_all(self._client, questions)
        states = zip(wanted, map(text_of, answers[::2]), answers[1::2], strict=True)
        return [
            StoredKey(
                name, self.keys.shard_of_key(name), expected, found, ttl_ms != _NO_TIME_LIMIT, user_of(name)
            )
            for (name, expected), found, ttl_ms in states
            if found != "none"
        ]

    def stored_shard_count(self) -> str | None:
        """How many shards the store says that it was made with."""
        with translated():
            found = self._client.hget(Keys.meta, SHARD_COUNT_FIELD)
        return None if found is None else text_of(found)

    def members(self, indexes: Sequence[str]) -> list[dict[str, float]]:
        """Member → score of each sorted set, read in pages; what moves meanwhile may be left out."""
        found: list[dict[str, float]] = [{} for _ in indexes]
        waiting = list(range(len(indexes)))
        first = 0
        while waiting:
            last = first + _PAGE - 1
            with translated():
                commands = [("ZRANGE", indexes[place], first, last, "WITHSCORES") for place in waiting]
                pages = list(map(_scores, ask_all(self._client, commands)))
            for place, page in zip(waiting, pages, strict=True):
                found[place].update(page)
            waiting = [place for place, page in zip(waiting, pages, strict=True) if len(page) == _PAGE]
            first += _PAGE
        return found

    def score(self, index: str, member: str) -> float | None:
        """Where the member stands in the sorted set; None: it is not in there."""
        with translated():
            (score,) = ask_all(self._client, [("ZSCORE", index, member)])
        return None if score is None else float(score)

    def count_since(self, index: str, at: float) -> int:
        """How many stand in the sorted set at `at` or behind it."""
        with translated():
            (count,) = ask_all(self._client, [("ZCOUNT", index, at, "+inf")])
        return int(count)

    def noted_changes(self, user_ids: Sequence[str]) -> list[tuple[str, ...] | None]:
        """The ids that stand in each user's string of changed trades; None: it cannot be read.

        The first of a string that was cut is a part of one, and left out.
        """
        names = [self.keys.changed(self.keys.shard_of_user(user), user) for user in user_ids]
        with translated():
            return [_noted(text) for text in ask_all(self._client, [("GET", name) for name in names])]

    def outbox_ends(self, shards: Sequence[int]) -> list[OutboxEnd]:
        """How the outbox of each shard ends, and what the shard's sums say of that."""
        commands: list[Command] = []
        for shard in shards:
            sums = ("HGET", self.keys.digest(shard), POSITION_FIELD)
            commands += [sums, ("XREVRANGE", self.keys.outbox(shard), "+", "-", "COUNT", 1), sums]
        with translated():
            answers = iter(ask_all(self._client, commands))
        found = zip(answers, answers, answers, strict=True)
        return [
            OutboxEnd(
                text_of(entries[0][0]) if entries else None, text_of(after or START_POSITION), before == after
            )
            for before, entries, after in found
        ]

    def known_users(self, shard: int, user_ids: Sequence[str]) -> list[bool]:
        """Whether each is among the users of the shard."""
        key = self.keys.users(shard)
        with translated():
            return [bool(found) for found in ask_all(self._client, [("SISMEMBER", key, u) for u in user_ids])]

    def claims(self, user_ids: Sequence[str]) -> list[Claims]:
        """Every idempotency key and venue fill of each user's live trades."""
        keys, shard_of = self.keys, self.keys.shard_of_user
        found = self._hashes([keys.idempotency(shard_of(user), user) for user in user_ids])
        fills = self._hashes([keys.fill_claims(shard_of(user), user) for user in user_ids])
        return [Claims(*pair) for pair in zip(found, fills, strict=True)]

    def lifetimes(self, user_ids: Sequence[str]) -> list[Lifetime]:
        """What is counted of each user, and the part of it that archived trades make up; zeros left out.

        A number that cannot be read is `Lifetime.unreadable`.
        """
        keys, shard_of = self.keys, self.keys.shard_of_user
        counted = self._hashes([keys.counters(shard_of(user), user) for user in user_ids])
        archived = self._hashes([keys.archived_counters(shard_of(user), user) for user in user_ids])
        return [_lifetime(*pair) for pair in zip(counted, archived, strict=True)]

    def _hashes(self, names: Sequence[str]) -> list[dict[str, str]]:
        with translated():
            return [_pairs(fields) for fields in ask_all(self._client, [("HGETALL", name) for name in names])]

    def ledger_ids(self, user_id: str) -> list[str]:
        """Record ids of the ledgers of all accounts of the user: the server looks through his shard's ids."""
        shard = self.keys.shard_of_user(user_id)
        pattern = _GLOB.sub(r"\\\1", f"{user_id}\x1f") + "*"
        cursors = dict.fromkeys((self.keys.records(shard, bucket) for bucket in range(BUCKETS)), 0)
        found: set[str] = set()
        while cursors:
            commands: list[Command] = [
                ("HSCAN", key, cursor, "MATCH", pattern, "COUNT", _PAGE) for key, cursor in cursors.items()
            ]
            with translated():
                pages = ask_all(self._client, commands)
            found.update(text_of(record_id) for _, fields in pages for record_id in fields[::2])
            cursors = {
                key: int(cursor) for key, (cursor, _) in zip(cursors, pages, strict=True) if int(cursor)
            }
        return sorted(found)

    def waiting(self, positions: Sequence[tuple[int, str]], limit: int) -> list[list[OutboxEntry]]:
        """The first `limit` entries of each shard's outbox behind a position."""
        with translated():
            answers = ask_all(
                self._client,
                [
                    ("XRANGE", self.keys.outbox(shard), f"({position}", "+", "COUNT", limit)
                    for shard, position in positions
                ],
            )
        return [
            [
                OutboxEntry(shard, text_of(name), dict(zip(flat[::2], flat[1::2], strict=True)))
                for name, flat in entries
            ]
            for (shard, _), entries in zip(positions, answers, strict=True)
        ]

    def first_behind(self, positions: Sequence[tuple[int, str]]) -> list[str | None]:
        """The first entry of each shard's outbox behind a position; None: there is none."""
        with translated():
            answers = ask_all(
                self._client,
                [
                    ("XRANGE", self.keys.outbox(shard), f"({position}", "+", "COUNT", 1)
                    for shard, position in positions
                ],
            )
        return [text_of(answer[0][0]) if answer else None for answer in answers]


def _scores(page: Any) -> dict[str, float]:
    """A page of a sorted set, in whichever form the client answers."""
    flat = chain.from_iterable(page) if page and isinstance(page[0], list) else page
    pairs = list(flat)
    return dict(zip(texts_of(pairs[::2]), map(float, pairs[1::2]), strict=True))


def _noted(text: bytes | str | None) -> tuple[str, ...] | None:
    if text is None:
        return ()
    shown = text_of(text)
    cut, kept = shown[:CUT_CHARS], shown[CUT_CHARS:]
    if not _DIGITS.fullmatch(cut):
        return None
    return ids_in(kept.partition(SEPARATOR)[2] if int(cut) else kept)


def _lifetime(counters: dict[str, str], archived: dict[str, str]) -> Lifetime:
    both = [*counters.items(), *archived.items()]
    unreadable = next((f"{name}: {text!r}" for name, text in both if not _NUMBER.fullmatch(text)), "")
    if unreadable:
        return Lifetime({}, {}, unreadable)
    return Lifetime(_joined(counters), _joined(archived), "")


def _joined(fields: dict[str, str]) -> dict[str, int]:
    return join_limbs({name: int(text) for name, text in fields.items()})


def _pairs(fields: Any) -> dict[str, str]:
    """A hash's fields, in whichever form the client answers."""
    flat = chain.from_iterable(fields.items()) if isinstance(fields, dict) else fields
    texts = texts_of(list(flat))
    return dict(zip(texts[::2], texts[1::2], strict=True))
