"""Where each command of a batch belongs: the shard and the id of its record.

A minted trade id carries its user's slot. Any other id has a route, from the id to the slot of the one
user it belongs to; the routes of a whole batch are read in one round trip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tradepool.errors import IdempotencyConflict, InvalidTrade, Rejected, UnknownTrade
from tradepool.model import ids
from tradepool.model.commands import AddTrade, PoolCommand, UpdateTrade
from tradepool.model.fields import is_name, name
from tradepool.model.ledger import USER_ID_CHARS_MAX, ledger_id
from tradepool.model.token_commands import TokenCommand, owner_of
from tradepool.model.trade_reservations import ledger_beside
from tradepool.store.redis_store import RedisStore

__all__ = ["Placed", "Placement", "known_id", "place"]

COMMAND_ID_CHARS_MAX = 128
_TEXT_CHARS_MAX = 256


class Placed(NamedTuple):
    """A command that has found its record: its place in the batch and the record's id."""

    place: int
    command: PoolCommand
    record_id: str
    is_new: bool
    """Whether the record should not be there yet: it is, where the command or its trade comes again.

    Never with a reservation: the ledger may refuse the repeat of what it has granted.
    """
    ledger_id: str | None = None
    """The ledger that the command changes with its record."""
    related_id: str | None = None
    """The trade that it relates its own to."""

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The records it is about."""
        return (self.record_id,) if self.ledger_id is None else (self.record_id, self.ledger_id)

    def to_read(self, *, is_first: bool) -> Iterator[str]:
        """The records to read for it; a first attempt takes a new one's id for free."""
        if not (is_first and self.is_new):
            yield from self.record_ids
        if self.related_id is not None:
            yield self.related_id


class Placement(NamedTuple):
    """The commands by shard, each in order, and those that have no place, by place in the batch."""

    shards: dict[int, list[Placed]]
    refused: dict[int, Rejected]


def place(store: RedisStore, commands: Mapping[int, PoolCommand]) -> Placement:
    """Find the record of each command (by place in the batch). Writes nothing. Raises: StoreUnavailable."""
    return _Placer(store, commands.values()).place(commands)


class _Placer:
    """Places the commands of one batch, which sees the trades it adds itself."""

    def __init__(self, store: RedisStore, commands: Iterable[PoolCommand]) -> None:
        self._store = store
        self._added: dict[str, int] = {}
        unrouted = sorted({i for i in map(_trade_id, commands) if i is not None and _needs_route(i)})
        self._routes = dict(zip(unrouted, store.routes(unrouted), strict=True)) if unrouted else {}

    def place(self, commands: Mapping[int, PoolCommand]) -> Placement:
        placement = Placement(defaultdict(list), {})
        for number, command in commands.items():
            try:
                shard, record_id = self._locate(command)
                ledger = ledger_beside(command)
            except Rejected as refusal:
                placement.refused[number] = refusal
                continue
            is_new = isinstance(command, AddTrade) and ledger is None
            placed = Placed(number, command, record_id, is_new, ledger, _related(command))
            placement.shards[shard].append(placed)
        return placement

    def _locate(self, command: PoolCommand) -> tuple[int, str]:
        name("command_id", command.command_id, COMMAND_ID_CHARS_MAX)
        if isinstance(command, TokenCommand):
            user_id, account_id = owner_of(command)
            record_id = ledger_id(user_id, account_id)
            return self._store.keys.shard_of_user(user_id), record_id
        if isinstance(command, AddTrade):
            return self._locate_new(command)
        trade_id = name("trade_id", command.trade_id, ids.TRADE_ID_CHARS_MAX)
        return self._shard_of_trade(trade_id), trade_id

    def _locate_new(self, command: AddTrade) -> tuple[int, str]:
        user_id = name("user_id", command.trade.get("user_id"), USER_ID_CHARS_MAX)
        slot = ids.slot_of_user(user_id)
        given = command.trade.get("trade_id")
        if given is None:
            trade_id = ids.derive_id(user_id, at_us=command.as_of, seed=command.command_id)
        else:
            trade_id = name("trade_id", given, ids.TRADE_ID_CHARS_MAX)
            self._check_is_free_for(trade_id, slot)
        self._added[trade_id] = slot
        return self._store.keys.shard(slot), trade_id

    def _check_is_free_for(self, trade_id: str, slot: int) -> None:
        """An id belongs to one user for good: the one whose slot it carries, or who first claimed its route.

        Also where that add was never finished: whether it still will be cannot be known here.
        """
        carried = ids.slot_of_id(trade_id)
        if carried not in (None, slot):
            raise InvalidTrade(
                "the id carries another user's slot", field="trade_id", value=trade_id, cure="leave it out"
            )
        routed = self._routes.get(trade_id)
        taken = (self._added.get(trade_id, slot), slot if routed is None else routed)
        if taken != (slot, slot):
            raise IdempotencyConflict(
                "another user has this id", field="trade_id", value=trade_id, cure="use another id"
            )

    def _shard_of_trade(self, trade_id: str) -> int:
        slot = self._added.get(trade_id, self._routes.get(trade_id))
        shard = self._store.keys.home_shard(trade_id) if slot is None else self._store.keys.shard(slot)
        if shard is None:
            raise UnknownTrade("no such trade", field="trade_id", value=trade_id, cure="add the trade first")
        return shard


def _related(command: PoolCommand) -> str | None:
    """The trade that a command names beside its own, as far as its loose fields tell."""
    match command:
        case AddTrade(trade=fields) | UpdateTrade(changes=fields):
            named = fields.get("related_trade_id")
            return named if is_name(named, ids.TRADE_ID_CHARS_MAX) else None
        case _:
            return None


def _trade_id(command: PoolCommand) -> str | None:
    """The trade id a caller gave, if it can be one at all."""
    if isinstance(command, TokenCommand):
        return None
    given = command.trade.get("trade_id") if isinstance(command, AddTrade) else command.trade_id
    return given if is_name(given, ids.TRADE_ID_CHARS_MAX) else None


def _needs_route(trade_id: str) -> bool:
    return ids.slot_of_id(trade_id) is None


def known_id(field: str, value: object) -> None:
    """Refuse what cannot name anything in the pool. Raises: InvalidTrade naming `field`."""
    name(field, value, _TEXT_CHARS_MAX)
