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
from tradepool.model.commands import AddFill, AddTrade, QuarantineTrade, TradeCommand
from tradepool.model.ids import short_id, slot_of_id, slot_of_user
from tradepool.model.ledger import Ledger, ledger_id, next_expiry
from tradepool.model.receipt import CommandOutcome, Receipt
from tradepool.model.relations import check_relation
from tradepool.model.token_commands import TokenCommand, owner_of
from tradepool.model.trade import Trade
from tradepool.model.trade_reservations import reserve_again, reserve_with
from tradepool.placing import Placed
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange, new_claims
from tradepool.store.redis_store import RedisStore

__all__ = ["Result", "ShardBatch"]

Result = Receipt | Rejected


class ShardBatch:
    """The commands of one shard, decided against one fresh read, to be committed all or nothing.

    With `look_up_owners` the store is asked who owns each new idempotency key and fill id. A first
    attempt leaves that to the commit, which refuses what is taken; the next attempt then asks. `now_us` is
    the time at which reservations count as over; `task_ids` names each command's task, by place in the batch.
    """

    def __init__(
        self, store: RedisStore, shard: int, *, task_ids: Sequence[str], look_up_owners: bool, now_us: int
    ) -> None:
        self._store = store
        self._shard = shard
        self._task_ids = task_ids
        self._look_up_owners = look_up_owners
        self._now_us = now_us
        self._values: dict[str, bytes | None] = {}
        self._states: dict[str, codec.Record] = {}
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
        existing = self._first_added(item, command)
        if isinstance(existing, Archived):
            receipt = _repeated(command, existing)
            return receipt if command.reserve is None else self._with_reservation(receipt, command, existing)
        change = changes.add(command, trade_id=item.record_id, existing=existing)
        if command.reserve is None:
            return self._book_trade(item, change.outcome, existing, change.trade)
        if existing is not None:
            receipt = self._book_trade(item, change.outcome, existing, change.trade)
            return self._with_reservation(receipt, command, existing)
        ledger = self._ledger_of(change.trade.user_id, change.trade.account_id)
        made = reserve_with(ledger, command, change.trade, now_us=self._now_us)
        # Both or neither: what may be refused comes before the first of them is recorded.
        receipt = self._book_trade(item, change.outcome, None, change.trade)
        self._record_ledger(item, made.ledger)
        return msgspec.structs.replace(receipt, reservation=made.reservation, expired=made.expired)

    def _with_reservation(self, receipt: Receipt, command: AddTrade, existing: Trade | Archived) -> Receipt:
        """The receipt of an add that came again, with what has become of its reservation."""
        is_same = changes.is_applied(existing, short_id(command.command_id))
        trade = existing
        if isinstance(trade, Archived):
            trade = changes.add(command, trade_id=existing.trade_id, existing=None).trade
        ledger = self._ledger_of(trade.user_id, trade.account_id)
        found = reserve_again(ledger, command, trade, is_same=is_same)
        return msgspec.structs.replace(receipt, reservation=found.reservation)

    def _first_added(self, item: Placed, command: AddTrade) -> Trade | Archived | None:
        """What this add repeats: the trade of that id, or of that idempotency key."""
        own = self._trade(item.record_id)
        key = command.trade.get("idempotency_key")
        if own is not None or not isinstance(key, str):
            return own
        asks = self._look_up_owners or not item.is_new
        user_id = str(command.trade.get("user_id"))
        owner = self._owner(user_id, key, self._store.idempotency_owner, asks=asks)
        if owner is None:
            return None
        if not asks:
            # The commit makes sure of what is written. A repeat writes nothing, so its own id is looked up.
            self._values[item.record_id] = self._read(item.record_id)
        return self._trade(item.record_id) or self._trade(owner)

    def _decide_change(self, item: Placed, command: TradeCommand | QuarantineTrade) -> Receipt:
        trade = self._trade(item.record_id)
        if isinstance(trade, Archived):
            if changes.is_applied(trade, short_id(command.command_id)):
                return _duplicate(trade)
            raise IllegalTransition(
                "the trade is archived",
                field="trade_id",
                value=item.record_id,
                cure="an archived trade does not change; add a new one",
            )
        if trade is None:
            raise UnknownTrade(
                "no such trade", field="trade_id", value=item.record_id, cure="add the trade first"
            )
        if isinstance(command, AddFill) and command.user_id not in (None, trade.user_id):
            raise InvalidTrade(
                "the trade is another user's", field="user_id", value=command.user_id, cure="leave it out"
            )
        change = changes.change(trade, command)
        return self._book_trade(item, change.outcome, trade, change.trade)

    def _book_trade(
        self, item: Placed, outcome: CommandOutcome, before: Trade | None, after: Trade
    ) -> Receipt:
        if outcome == "applied":
            check_relation(before, after, self._related)
            self._claim_owners(before, after)
            self._record(item, item.record_id, after)
        return Receipt(trade_id=after.trade_id, outcome=outcome, version=after.version, position="")

    def _decide_tokens(self, item: Placed, command: TokenCommand) -> Receipt:
        change = tokens.change(self._ledger_of(*owner_of(command)), command, now_us=self._now_us)
        if change.outcome == "applied":
            self._record_ledger(item, change.ledger)
        return Receipt(
            trade_id=item.record_id,
            outcome=change.outcome,
            version=change.ledger.version,
            position="",
            reservation=change.reservation,
            expired=change.expired,
        )

    def _trade(self, record_id: str) -> Trade | Archived | None:
        """The trade as the batch has left it so far."""
        state = self._state(record_id)
        return None if isinstance(state, Ledger) else state

    def _related(self, trade_id: str) -> Trade | Archived | None:
        """A trade that another one names, wherever it is: it may turn out to be another user's."""
        found = self._trade(trade_id)
        if found is not None or slot_of_id(trade_id) is not None:
            return found
        shard = self._store.shard_of_trade(trade_id)
        if shard in (None, self._shard):
            return None
        value = self._store.read([(shard, trade_id)])[0]
        state = None if value is None else codec.unpack(value)
        return None if isinstance(state, Ledger) else state

    def _ledger_of(self, user_id: str, account_id: str) -> Ledger:
        """The ledger as the batch has left it so far."""
        state = self._state(ledger_id(user_id, account_id))
        return state if isinstance(state, Ledger) else Ledger(user_id=user_id, account_id=account_id)

    def _state(self, record_id: str) -> codec.Record | None:
        if record_id not in self._values:
            self._values[record_id] = self._read(record_id)
        state, value = self._states.get(record_id), self._values[record_id]
        if state is None and value is not None:
            state = self._states[record_id] = codec.unpack(value)
        return state

    def _read(self, record_id: str) -> bytes | None:
        return self._store.read([(self._shard, record_id)])[0]

    def _record_ledger(self, item: Placed, after: Ledger) -> None:
        self._record(item, ledger_id(after.user_id, after.account_id), after)

    def _record(self, item: Placed, record_id: str, after: Trade | Ledger) -> None:
        is_trade = isinstance(after, Trade)
        value = codec.pack_trade(after) if isinstance(after, Trade) else codec.pack_ledger(after)
        before = self._states.get(record_id)
        self.changes.append(
            RecordChange(
                kind=codec.TRADE_KIND if is_trade else codec.LEDGER_KIND,
                record_id=record_id,
                user_id=after.user_id,
                before=self._values[record_id],
                after=value,
                trade_before=before if isinstance(before, Trade) else None,
                trade_after=after if isinstance(after, Trade) else None,
                next_expiry=next_expiry(after) if isinstance(after, Ledger) else None,
                command_id=item.command.command_id,
                task_id=self._task_ids[item.place],
            )
        )
        self._values[record_id] = value
        self._states[record_id] = after

    def _claim_owners(self, before: Trade | None, after: Trade) -> None:
        """Refuse a fill that another trade of the user has booked; remember what is now taken."""
        claims = new_claims(before, after)
        for claim in claims:
            owner = self._owner(after.user_id, claim, self._store.claim_owner, asks=self._look_up_owners)
            if owner not in (None, after.trade_id):
                raise IdempotencyConflict(
                    f"already booked on trade {owner}",
                    field="fill_id",
                    value=Keys.fill_of(claim),
                    cure="a venue's fill belongs to one trade",
                )
        self._owners |= {(after.user_id, claim): after.trade_id for claim in claims}
        if before is None and after.idempotency_key is not None:
            self._owners[after.user_id, after.idempotency_key] = after.trade_id

    def _owner(
        self, user_id: str, name: str, look_up: Callable[[str, str], str | None], *, asks: bool
    ) -> str | None:
        """The trade that has taken a key or a fill: in this batch, or (when it `asks`) in the store."""
        owner = self._owners.get((user_id, name))
        return look_up(user_id, name) if owner is None and asks else owner


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
