"""Indexes, the open set, routes and claims of a shard against the records that were read.

What differs may have changed between the reads, so each difference is looked at again at one moment before
a rule judges it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from tradepool.audit.at_rest import at_rest
from tradepool.audit.recent_trades import never_pushed_out
from tradepool.audit.report import Finding
from tradepool.audit.route_audit import compare_routes
from tradepool.audit.rules import index_rules
from tradepool.audit.rules.index_rules import Claim, Listed
from tradepool.audit.rules.key_rules import key_value
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.model import codec
from tradepool.model.trade import Trade
from tradepool.store.plan import claims_of
from tradepool.store.redis_store import RedisStore

__all__ = ["IndexAudit"]

Answer = TypeVar("Answer")

_USERS_BATCH = 200
_OPEN_AT = 0.0
_INDEX_RULES = (index_rules.index_missing, index_rules.index_extra, index_rules.index_order)
_RECENT = "the recent trades"
_QUARANTINE = "the trades in quarantine"
_OPEN_SET = "the set of open trades"
_USERS_INDEX = "its user's index"


class _Place(NamedTuple):
    """An index, how findings name it, and whether the trade in doubt was in it a moment ago."""

    key: str
    name: str
    was_listed: bool


class IndexAudit:
    """The audit of what stands beside the `records` of one shard.

    `findings`, and `undecided`, what did not stand still; `tainted` are the users who have an unsound record:
    their counters cannot be told right or wrong. `unusable` users have a key that cannot be used. `noted`
    are ids of trades that users' last commits have changed, read before the records.
    """

    def __init__(
        self,
        store: RedisStore,
        shard: int,
        records: ShardRecords,
        unusable: Collection[str],
        noted: Mapping[str, Iterable[str]] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._shard = shard
        self._records = records
        self._noted = noted
        self._users = sorted(records.users - set(unusable))
        self.findings: list[Finding] = []
        self.undecided: list[str] = []
        self.tainted: set[str] = set()

    def run(self, *, known_users: Collection[str], user_id: str | None = None) -> None:
        """Everything of the shard, or of one user; `known_users` are those that the shard has listed."""
        self._check_users(known_users)
        self._check_changed()
        self.findings += compare_routes(self._store, self._records)
        self._check_user_indexes()
        if user_id is None:
            self._check_symbol_indexes()
            self._check_recent()
        self.check_open(user_id)
        self._check_quarantine(user_id)
        self._check_claims()

    def _check_users(self, known_users: Collection[str]) -> None:
        unknown = sorted(self._records.users - set(known_users))
        for user_id, is_listed in zip(unknown, self._store.known_users(self._shard, unknown), strict=True):
            self.findings += index_rules.index_missing(
                Listed(user_id, "the shard's users", is_listed, belongs=True)
            )

    def _check_changed(self) -> None:
        """The ids that are noted as changed are those of records, which stay."""
        known = self._records
        for user_id, noted in self._noted.items():
            unknown = [
                trade_id
                for trade_id in noted
                if trade_id not in known.trades
                and trade_id not in known.archived
                and trade_id not in known.unsound
            ]
            found = self._store.read([(self._shard, trade_id) for trade_id in unknown])
            strange = [trade_id for trade_id, value in zip(unknown, found, strict=True) if value is None]
            if strange:
                name = self._store.keys.changed(self._shard, user_id)
                self.findings += key_value(name, f"{strange[0]!r} is no trade's id")

    def _check_user_indexes(self) -> None:
        mine: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for trade_id, user_id in self._records.trades.items():
            mine[user_id][trade_id] = self._records.created[trade_id]
        unsound = self._records.unsound
        for users in batched(self._users, _USERS_BATCH):
            keys = [self._store.keys.user_index(self._shard, user_id) for user_id in users]
            for user_id, key, listed in zip(users, keys, self._store.members(keys), strict=True):
                if not unsound.isdisjoint(listed) or not unsound.isdisjoint(mine[user_id]):
                    self.tainted.add(user_id)
                for trade_id in _misplaced(listed, mine[user_id]) - unsound:
                    place = _Place(key, _USERS_INDEX, was_listed=trade_id in listed)
                    self._recheck(trade_id, place, partial(_is_of_user, user_id))

    def _check_symbol_indexes(self) -> None:
        by_symbol, created = self._records.symbols, self._records.created
        for symbols in batched(sorted(by_symbol), _USERS_BATCH):
            keys = [self._store.keys.symbol_index(self._shard, symbol) for symbol in symbols]
            for symbol, key, listed in zip(symbols, keys, self._store.members(keys), strict=True):
                here = {trade_id: created[trade_id] for trade_id in by_symbol[symbol]}
                for trade_id in _misplaced(listed, here) - self._records.unsound:
                    place = _Place(key, f"the index of {symbol}", was_listed=trade_id in listed)
                    self._recheck(trade_id, place, partial(_is_of_symbol, symbol))

    def _check_recent(self) -> None:
        """What is there belongs there, and nothing lacks that so few newer ones cannot have pushed out."""
        key = self._store.keys.recent(self._shard)
        (listed,) = self._store.members([key])
        created = self._records.created
        here = {trade_id: created[trade_id] for trade_id in listed.keys() & created.keys()}
        for trade_id in _misplaced(listed, here) - self._records.unsound:
            self._recheck(trade_id, _Place(key, _RECENT, was_listed=True), lambda _: True)
        for trade_id in never_pushed_out(listed, self._records, self._store.recent_max):
            self._recheck_recent(trade_id, key)

    def _recheck_recent(self, trade_id: str, key: str) -> None:
        at, store = self._records.created[trade_id], self._store
        # In this order: who has left since then has left behind as many newer ones as the list keeps.
        found = self._at_rest(trade_id, lambda: (store.score(key, trade_id), store.count_since(key, at)))
        if found is not None:
            trade, (score, newer) = found
            belongs = isinstance(trade, Trade) and newer < store.recent_max
            self.findings += index_rules.recent_missing(Listed(trade_id, _RECENT, score is not None, belongs))

    def _check_quarantine(self, user_id: str | None) -> None:
        key, created = self._store.keys.quarantined(self._shard), self._records.created
        (listed,) = self._store.members([key])
        if user_id is not None:
            listed = {trade_id: at for trade_id, at in listed.items() if trade_id in created}
        expected = {trade_id: created[trade_id] for trade_id in self._records.quarantined}
        for trade_id in _misplaced(listed, expected) - self._records.unsound:
            found = self._at_rest(trade_id, partial(self._store.score, key, trade_id))
            if found is not None:
                trade, at = found
                due = float(trade.created_at) if isinstance(trade, Trade) else None
                is_quarantined = isinstance(trade, Trade) and trade.quarantine is not None
                is_listed = at is not None or (trade is None and trade_id in listed)
                stands = Listed(trade_id, _QUARANTINE, is_listed, is_quarantined, at, due)
                self.findings += index_rules.index_order(stands)
                self.findings += index_rules.quarantine_list(
                    trade_id, is_quarantined=is_quarantined, is_listed=is_listed
                )

    def _recheck(self, trade_id: str, place: _Place, belongs: Callable[[Trade], bool]) -> None:
        found = self._at_rest(trade_id, lambda: self._store.score(place.key, trade_id))
        if found is not None:
            trade, at = found
            due = float(trade.created_at) if isinstance(trade, Trade) else None
            is_member = isinstance(trade, Trade) and belongs(trade)
            # A record stays: what was listed without one was so all the time, even where its name is no text.
            is_listed = at is not None or (trade is None and place.was_listed)
            listed = Listed(trade_id, place.name, is_listed, is_member, at, due)
            for each in _INDEX_RULES:
                self.findings += each(listed)

    def check_open(self, user_id: str | None) -> None:
        """The set of open trades, or the part of it that is one user's."""
        keys, trades = self._store.keys, self._records.trades
        expected = {keys.open_member(trades[trade_id], trade_id): _OPEN_AT for trade_id in self._records.open}
        listed = self._open_members(user_id)
        for member in _misplaced(listed, expected):
            trade_id = keys.trade_of_open_member(member)
            if trade_id not in self._records.unsound:
                self._recheck_open(trade_id, member, was_listed=member in listed)

    def _open_members(self, user_id: str | None) -> Mapping[str, float]:
        """Members and where they stand; those of one user are only found where they should stand."""
        keys = self._store.keys
        if user_id is None:
            return self._store.members([keys.open_trades(self._shard)])[0]
        ids = self._store.open_ids_of_user(user_id)
        return dict.fromkeys((keys.open_member(user_id, trade_id) for trade_id in ids), _OPEN_AT)

    def _recheck_open(self, trade_id: str, member: str, *, was_listed: bool) -> None:
        keys = self._store.keys
        key = keys.open_trades(self._shard)
        found = self._at_rest(trade_id, lambda: self._store.score(key, member))
        if found is None:
            return
        trade, at = found
        if isinstance(trade, Trade) and member == keys.open_member(trade.user_id, trade_id):
            listed = Listed(trade_id, _OPEN_SET, at is not None, trade.is_open, at, _OPEN_AT)
            self.findings += index_rules.index_order(listed)
            self.findings += index_rules.open_set(trade_id, is_open=trade.is_open, is_listed=at is not None)
        else:
            is_listed = at is not None or (was_listed and trade is None)
            self.findings += index_rules.index_extra(Listed(trade_id, _OPEN_SET, is_listed, belongs=False))

    def _check_claims(self) -> None:
        store = self._store
        for users in batched(self._users, _USERS_BATCH):
            for user_id, held in zip(users, store.claims(users), strict=True):
                used = self._records.used[user_id]
                for name, trade_id in _differing(held.idempotency_keys, used.idempotency_keys):
                    ask = partial(store.idempotency_owner, user_id, name)
                    self._recheck_claim(name, trade_id, ask, partial(_has_key, name))
                for name, trade_id in _differing(held.fills, used.fills):
                    ask = partial(store.claim_owner, user_id, name)
                    self._recheck_claim(name, trade_id, ask, partial(_has_fill, name))

    def _recheck_claim(
        self, name: str, trade_id: str, ask: Callable[[], str | None], uses: Callable[[Trade], bool]
    ) -> None:
        if trade_id in self._records.unsound:
            return
        found = self._at_rest(trade_id, ask)
        if found is not None:
            trade, holder = found
            user = trade_id if isinstance(trade, Trade) and uses(trade) else None
            claim = Claim(name, holder, user)
            self.findings += index_rules.claim_missing(claim)
            if holder == trade_id:
                self.findings += index_rules.claim_extra(claim)

    def _at_rest(self, trade_id: str, ask: Callable[[], Answer]) -> tuple[codec.Record | None, Answer] | None:
        found = at_rest(self._store, self._shard, [trade_id], ask)
        if found is None:
            self.undecided.append(f"trade {trade_id}")
            return None
        (record,), answer = found
        return record, answer


def _is_of_user(user_id: str, trade: Trade) -> bool:
    return trade.user_id == user_id


def _is_of_symbol(symbol: str, trade: Trade) -> bool:
    return trade.symbol == symbol


def _has_key(name: str, trade: Trade) -> bool:
    return trade.idempotency_key == name


def _has_fill(name: str, trade: Trade) -> bool:
    return name in claims_of(trade)


def _misplaced(listed: Mapping[str, float], here: Mapping[str, float]) -> set[str]:
    """Ids that stand in one of the two, or elsewhere in the other."""
    if listed == here:
        return set()
    return {trade_id for trade_id, _ in listed.items() ^ here.items()}


def _differing(held: Mapping[str, str], used: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names that are claimed by another trade than uses them, and the trade to look at."""
    if held == used:
        return
    for name in held.keys() | used.keys():
        if held.get(name) != used.get(name):
            yield name, held.get(name) or used[name]
