"""One shard's part of a batch: from the stored records it is given to the changes that are to be committed.

Each command sees the ones before it, so an add, its fill and its close may share a batch. Every
version becomes an outbox item of its own; the record is written once, as it stands at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, InvalidTrade, Rejected, UnknownTrade
from tradepool.model import changes, codec, tokens
from tradepool.model.archived import Archived
from tradepool.model.commands import AddFill, AddTrade, TradeCommand
from tradepool.model.ids import short_id, slot_of_id, slot_of_user
from tradepool.model.ledger import Ledger
from tradepool.model.receipt import Outcome, Receipt
from tradepool.model.token_commands import TokenCommand, owner_of
from tradepool.model.trade import Trade
from tradepool.placing import Placed
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange, new_claims
from tradepool.store.redis_store import RedisStore

__all__ = ["Result", "ShardBatch"]

Result = Receipt | Rejected
State = codec.Record


class ShardBatch:
    """The commands of one shard, decided against one fresh read, to be committed all or nothing.

    With `look_up_owners` the store is asked who owns each new idempotency key and fill id. A first
    attempt leaves that to the commit, which refuses what is taken; the next attempt then asks.
    """

    def __init__(self, store: RedisStore, shard: int, *, task_id: str, look_up_owners: bool) -> None:
        self._store = store
        self._shard = shard
        self._task_id = task_id
        self._look_up_owners = look_up_owners
        self._values: dict[str, bytes | None] = {}
        self._states: dict[str, State] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._decided: dict[int, Result] = {}
        self.changes: list[RecordChange] = []
        """What the commit has to write, in order."""

    def decide(self, placed: Sequence[Placed], values: Mapping[str, bytes | None]) -> None:
        """Decide every command, given the stored `values` of their records."""
        self._values.update(values)
        for item in placed:
            self._decided[item.place] = self._decide_or_refuse(item)

    def results(self, position: str, *, durable: bool) -> dict[int, Result]:
        """The results by place in the batch, once the commit stands at `position`."""
        return {
            place: msgspec.structs.replace(result, position=position, durable=durable)
            if isinstance(result, Receipt)
            else result
            for place, result in self._decided.items()
        }

    def routes(self) -> Iterator[tuple[str, int]]:
        """New trades whose ids carry no slot, with their users' slots."""
        for change in self.changes:
            if (
                change.trade_after is not None
                and change.before is None
                and slot_of_id(change.record_id) is None
            ):
                yield change.record_id, slot_of_user(change.user_id)

    def _decide_or_refuse(self, item: Placed) -> Result:
        try:
            if isinstance(item.command, TokenCommand):
                return self._decide_tokens(item, item.command)
            if isinstance(item.command, AddTrade):
                return self._decide_add(item, item.command)
            return self._decide_change(item, item.command)
        except Rejected as refusal:
            return refusal

    def _decide_add(self, item: Placed, command: AddTrade) -> Receipt:
        was = self._state(item.record_id)
        if isinstance(was, Archived):
            return _repeated(command, was)
        existing = self._first_added(item, command)
        change = changes.add(command, trade_id=item.record_id, existing=existing)
        return self._book_trade(item, change.outcome, existing, change.trade)

    def _first_added(self, item: Placed, command: AddTrade) -> Trade | None:
        """The trade this add repeats: the one of that id, or of that idempotency key."""
        existing = self._trade(item.record_id)
        key = command.trade.get("idempotency_key")
        if existing is not None or not isinstance(key, str):
            return existing
        owner = self._owner(str(command.trade.get("user_id")), key, self._store.idempotency_owner)
        if owner is None:
            return None
        if owner not in self._values:
            self._values[owner] = self._store.read([(self._shard, owner)])[0]
        return self._trade(owner)

    def _decide_change(self, item: Placed, command: TradeCommand) -> Receipt:
        trade = self._state(item.record_id)
        if isinstance(trade, Archived):
            if changes.is_applied(trade, short_id(command.command_id)):
                return _duplicate(trade)
            raise IllegalTransition(
                "the trade is archived",
                field="trade_id",
                value=item.record_id,
                cure="an archived trade does not change; add a new one",
            )
        if not isinstance(trade, Trade):
            raise UnknownTrade(
                "no such trade", field="trade_id", value=item.record_id, cure="add the trade first"
            )
        if isinstance(command, AddFill) and command.user_id not in (None, trade.user_id):
            raise InvalidTrade(
                "the trade is another user's", field="user_id", value=command.user_id, cure="leave it out"
            )
        change = changes.change(trade, command)
        return self._book_trade(item, change.outcome, trade, change.trade)

    def _book_trade(self, item: Placed, outcome: Outcome, before: Trade | None, after: Trade) -> Receipt:
        if outcome == "applied":
            self._claim_owners(before, after)
            self._record(item, after.user_id, codec.pack_trade(after), after)
        return Receipt(trade_id=after.trade_id, outcome=outcome, version=after.version, position="")

    def _decide_tokens(self, item: Placed, command: TokenCommand) -> Receipt:
        user_id, account_id = owner_of(command)
        ledger = self._ledger(item.record_id) or Ledger(user_id=user_id, account_id=account_id)
        change = tokens.change(ledger, command)
        if change.outcome == "applied":
            self._record(item, user_id, codec.pack_ledger(change.ledger), change.ledger)
        return Receipt(
            trade_id=item.record_id, outcome=change.outcome, version=change.ledger.version, position=""
        )

    def _trade(self, record_id: str) -> Trade | None:
        """The trade as the batch has left it so far."""
        state = self._state(record_id)
        return state if isinstance(state, Trade) else None

    def _ledger(self, record_id: str) -> Ledger | None:
        state = self._state(record_id)
        return state if isinstance(state, Ledger) else None

    def _state(self, record_id: str) -> State | None:
        state, value = self._states.get(record_id), self._values[record_id]
        if state is None and value is not None:
            state = self._states[record_id] = codec.unpack(value)
        return state

    def _record(self, item: Placed, user_id: str, value: bytes, after: State) -> None:
        before = self._states.get(item.record_id)
        self.changes.append(
            RecordChange(
                kind=codec.TRADE_KIND if isinstance(after, Trade) else codec.LEDGER_KIND,
                record_id=item.record_id,
                user_id=user_id,
                before=self._values[item.record_id],
                after=value,
                trade_before=before if isinstance(before, Trade) else None,
                trade_after=after if isinstance(after, Trade) else None,
                command_id=item.command.command_id,
                task_id=self._task_id,
            )
        )
        self._values[item.record_id] = value
        self._states[item.record_id] = after

    def _claim_owners(self, before: Trade | None, after: Trade) -> None:
        """Refuse a fill that another trade of the user has booked; remember what is now taken."""
        for claim in new_claims(before, after):
            owner = self._owner(after.user_id, claim, self._store.claim_owner)
            if owner not in (None, after.trade_id):
                raise IdempotencyConflict(
                    f"already booked on trade {owner}",
                    field="fill_id",
                    value=Keys.fill_of(claim),
                    cure="a venue's fill belongs to one trade",
                )
            self._owners[after.user_id, claim] = after.trade_id
        if before is None and after.idempotency_key is not None:
            self._owners[after.user_id, after.idempotency_key] = after.trade_id

    def _owner(self, user_id: str, name: str, look_up: Callable[[str, str], str | None]) -> str | None:
        """The trade that has taken a key or a fill: in this batch, or (when asked) in the store."""
        owner = self._owners.get((user_id, name))
        return look_up(user_id, name) if owner is None and self._look_up_owners else owner


def _repeated(command: AddTrade, was: Archived) -> Receipt:
    """The receipt of an add whose trade has been archived. Raises: IdempotencyConflict when it is another."""
    if changes.is_applied(was, short_id(command.command_id)):
        return _duplicate(was)
    asked = changes.add(command, trade_id=was.trade_id, existing=None).trade
    if asked.payload != was.payload:
        raise IdempotencyConflict(
            "another trade, archived since, was added under this id",
            field="trade_id",
            value=was.trade_id,
            cure="send a request again unchanged, or under a new id",
        )
    return _duplicate(was)


def _duplicate(was: Archived) -> Receipt:
    return Receipt(trade_id=was.trade_id, outcome="duplicate", version=was.version, position="")
