"""Indexes, the open set, routes and claims of a shard against the records that were read.

What differs may have changed between the reads, so each difference is looked at again at one moment before
a rule judges it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TypeVar

from tradepool.audit import index_rules
from tradepool.audit.at_rest import at_rest
from tradepool.audit.index_rules import Claim, Listed
from tradepool.audit.report import Finding
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.model import codec
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.trade import Trade
from tradepool.store.plan import claims_of
from tradepool.store.redis_store import RedisStore

__all__ = ["IndexAudit"]

Answer = TypeVar("Answer")

_USERS_PAGE = 200
_OPEN_SET = "the set of open trades"
_USERS_INDEX = "its user's index"


class IndexAudit:
    """The audit of what stands beside the `records` of one shard.

    `findings`, and `undecided`, what did not stand still; `tainted` are the users who have an unsound record:
    their counters cannot be told right or wrong. `unusable` users have a key of a wrong type.
    """

    def __init__(
        self, store: RedisStore, shard: int, records: ShardRecords, unusable: Collection[str]
    ) -> None:
        self._store = store
        self._shard = shard
        self._records = records
        self._users = sorted(records.users - set(unusable))
        self.findings: list[Finding] = []
        self.undecided: list[str] = []
        self.tainted: set[str] = set()

    def run(self, *, known_users: Collection[str], user_id: str | None = None) -> None:
        """Everything of the shard, or of one user; `known_users` are those that the shard has listed."""
        self._check_users(known_users)
        self._check_routes()
        self._check_user_indexes()
        if user_id is None:
            self._check_symbol_indexes()
            self._check_recent()
        self.check_open(user_id)
        self._check_claims()

    def _check_users(self, known_users: Collection[str]) -> None:
        unknown = sorted(self._records.users - set(known_users))
        for user_id, is_listed in zip(unknown, self._store.known_users(self._shard, unknown), strict=True):
            self.findings += index_rules.index_missing(
                Listed(user_id, "the shard's users", is_listed, belongs=True)
            )

    def _check_routes(self) -> None:
        trades = self._records.trades
        unrouted = sorted(i for i in trades if slot_of_id(i) is None and i not in self._records.unsound)
        for trade_id, slot in zip(unrouted, self._store.routes(unrouted) if unrouted else [], strict=True):
            self.findings += index_rules.route(trade_id, slot_of_user(trades[trade_id]), slot)

    def _check_user_indexes(self) -> None:
        mine: defaultdict[str, set[str]] = defaultdict(set)
        for trade_id, user_id in self._records.trades.items():
            mine[user_id].add(trade_id)
        unsound = self._records.unsound
        for users in batched(self._users, _USERS_PAGE):
            keys = [self._store.keys.user_index(self._shard, user_id) for user_id in users]
            for user_id, key, listed in zip(users, keys, self._store.members(keys), strict=True):
                if not unsound.isdisjoint(listed) or not unsound.isdisjoint(mine[user_id]):
                    self.tainted.add(user_id)
                for trade_id in (listed ^ mine[user_id]) - unsound:
                    self._recheck(trade_id, key, _USERS_INDEX, partial(_is_of_user, user_id))

    def _check_symbol_indexes(self) -> None:
        by_symbol = self._records.symbols
        for symbols in batched(sorted(by_symbol), _USERS_PAGE):
            keys = [self._store.keys.symbol_index(self._shard, symbol) for symbol in symbols]
            for symbol, key, listed in zip(symbols, keys, self._store.members(keys), strict=True):
                for trade_id in (listed ^ by_symbol[symbol]) - self._records.unsound:
                    name = f"the index of {symbol}"
                    self._recheck(trade_id, key, name, partial(_is_of_symbol, symbol))

    def _check_recent(self) -> None:
        """Only that what is there belongs there: an add and a trim decide what is among the newest."""
        key = self._store.keys.recent(self._shard)
        (listed,) = self._store.members([key])
        for trade_id in listed - self._records.trades.keys() - self._records.unsound:
            self._recheck(trade_id, key, "the recent trades", lambda _: True)

    def _recheck(self, trade_id: str, key: str, name: str, belongs: Callable[[Trade], bool]) -> None:
        found = self._at_rest(trade_id, lambda: self._store.are_listed([(key, trade_id)])[0])
        if found is not None:
            trade, is_listed = found
            listed = Listed(trade_id, name, is_listed, isinstance(trade, Trade) and belongs(trade))
            self.findings += index_rules.index_missing(listed) + index_rules.index_extra(listed)

    def check_open(self, user_id: str | None) -> None:
        """The set of open trades, or the part of it that is one user's."""
        members = self._open_members(user_id)
        listed = {self._store.keys.trade_of_open_member(member): member for member in members}
        for trade_id in (self._records.open ^ listed.keys()) - self._records.unsound:
            owner = self._records.trades.get(trade_id, user_id)
            member = listed.get(trade_id) or self._store.keys.open_member(owner or "", trade_id)
            self._recheck_open(trade_id, member)

    def _open_members(self, user_id: str | None) -> Collection[str]:
        keys = self._store.keys
        if user_id is None:
            return self._store.members([keys.open_trades(self._shard)])[0]
        return [keys.open_member(user_id, trade_id) for trade_id in self._store.open_ids_of_user(user_id)]

    def _recheck_open(self, trade_id: str, member: str) -> None:
        key = self._store.keys.open_trades(self._shard)
        found = self._at_rest(trade_id, lambda: self._store.are_listed([(key, member)])[0])
        if found is None:
            return
        trade, is_listed = found
        if isinstance(trade, Trade):
            self.findings += index_rules.open_set(trade_id, is_open=trade.is_open, is_listed=is_listed)
        else:
            self.findings += index_rules.index_extra(Listed(trade_id, _OPEN_SET, is_listed, belongs=False))

    def _check_claims(self) -> None:
        store = self._store
        for users in batched(self._users, _USERS_PAGE):
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


def _differing(held: Mapping[str, str], used: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names that are claimed by another trade than uses them, and the trade to look at."""
    for name in held.keys() | used.keys():
        if held.get(name) != used.get(name):
            yield name, held.get(name) or used[name]
