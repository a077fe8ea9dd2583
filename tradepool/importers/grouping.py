"""Histories of markets made trades: grouped to round trips, from where the pool's own trades end.

A history that begins before everything the pool knows of its market, or with the fill that opened an
imported trade, is grouped from flat. Any other goes on from the position that the pool has: what is
known is a repeat, what is newer is added. So the pages of a history can be imported one after the other,
overlap, and be imported again: the trades are those of the whole list. An id follows from the market and
the fill that opens the trade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tradepool.errors import IllegalTransition, InvalidTrade
from tradepool.importers.known_fills import IMPORTED, KnownMarket, not_held
from tradepool.importers.rows import (
    Entry,
    IdleRow,
    MarketHistory,
    RefusedRow,
    RepeatedRow,
    TradeRow,
    VenueRow,
    source_id,
)
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.money import ZERO, plain, plus
from tradepool.model.round_trips import FLIPPED, Execution, RoundTrip, Unheld, round_trips
from tradepool.model.symbols import coins_of
from tradepool.model.times import iso_time
from tradepool.model.trade import Fill, Trade

__all__ = ["MarketKey", "Resolved", "key_of", "resolved"]

_INSTANT_US = 1000
"""Venues tell milliseconds: what shares one with a booked fill may well be newer."""
_HOLDING = frozenset({Market.SPOT, Market.MARGIN})

Resolved = TradeRow | RepeatedRow | RefusedRow | IdleRow
MarketKey = tuple[str, str, str, str]
"""User, exchange, account and symbol."""
Known = Callable[[Sequence[MarketHistory]], Mapping[MarketKey, KnownMarket]]


def resolved(entries: Iterable[Entry], known: Known | None = None) -> Iterator[Resolved]:
    """`entries` with the trades of every history in the place of it, at the end.

    `known` tells what the pool has of the histories' markets; without it nothing is.
    """
    histories: list[MarketHistory] = []
    for entry in entries:
        if isinstance(entry, MarketHistory):
            histories.append(entry)
        else:
            yield entry
    markets = known(histories) if known is not None and histories else {}
    for history in histories:
        known_market = markets.get(key_of(history)) or KnownMarket()
        yield from _grouped(history, known_market.of(history.opens_with))


def key_of(record: MarketHistory | Trade) -> MarketKey:
    """The market and account that a history or a trade is of."""
    if isinstance(record, Trade):
        return record.user_id, record.exchange, record.account_id, record.symbol
    return record.user, record.exchange, record.account, record.symbol


def _grouped(history: MarketHistory, known: KnownMarket) -> Iterator[Resolved]:
    if _begins_flat(history, known):
        yield from _Grouping(history, None, known).entries(history.rows)
        return
    newer = []
    booked = [number for number, row in enumerate(history.rows) if row.executions[0].fill_id in known.fills]
    for number, row in enumerate(history.rows):
        try:
            if all(known.has(execution) for execution in row.executions):
                yield RepeatedRow(position=row.position)
            else:
                _check_newer(row, known, is_followed=bool(booked) and number < booked[-1])
                newer.append(row)
        except (InvalidTrade, IllegalTransition) as refusal:
            yield RefusedRow(position=row.position, reason=str(refusal))
    yield from _Grouping(history, known.begun_with(history.opens_with), known).entries(newer)


def _begins_flat(history: MarketHistory, known: KnownMarket) -> bool:
    first = history.rows[0].executions[0]
    if not known.fills:
        return True
    if any(_is_told_otherwise(execution, known) for row in history.rows for execution in row.executions):
        return False
    if first.fill_id not in known.fills:
        return first.at < known.first_at
    return known.opened_by.get(first.fill_id) == _trade_id(history, first.fill_id)


def _is_told_otherwise(execution: Execution, known: KnownMarket) -> bool:
    try:
        return known.has_otherwise(execution)
    except InvalidTrade:
        return True


def _check_newer(row: VenueRow, known: KnownMarket, *, is_followed: bool) -> None:
    if is_followed or row.executions[0].at // _INSTANT_US < known.last_at // _INSTANT_US:
        raise IllegalTransition(
            "older than fills that are booked of this market",
            field="timestamp",
            value=iso_time(row.executions[0].at),
            cure="import the whole history at once, under another --account",
        )
    if known.stranger is not None:
        raise IllegalTransition(
            "a trade that no import made is open in this market",
            field="trade_id",
            value=known.stranger,
            cure="add the fill to it (add_fill), or import under another --account",
        )


class _Grouping:
    """The rows of one history on their way to trades."""

    def __init__(self, history: MarketHistory, begun: Trade | None, known: KnownMarket) -> None:
        self._history = history
        self._known = known
        self._begun = begun
        self._size = history.contract_size or (None if begun is None else begun.contract_size)
        self._row_of: dict[str, VenueRow] = {}
        self._unheld: dict[str, Decimal] = defaultdict(lambda: ZERO)

    def entries(self, rows: Iterable[VenueRow]) -> Iterator[Resolved]:
        """The trades of `rows`, in order, and the rows that cannot be part of one."""
        sound = []
        for row in rows:
            reason = self._unsound(row)
            if reason is None:
                sound.append(row)
            else:
                yield RefusedRow(position=row.position, reason=str(reason))
        for row in sound:
            for execution in row.executions:
                self._row_of[execution.fill_id] = row
        trips = self._trips(sound)
        for position, amount in self._unheld.items():
            yield RefusedRow(position=position, reason=str(not_held(amount)))
        refused = ""
        for trip, positions in zip(trips, self._owned(trips), strict=True):
            found = self._trade_row(trip, len(positions))
            misfit = self._unfitting(trip, found.trade["trade_id"], refused)
            if misfit is None:
                yield found
            else:
                refused = trip.fills[-1].fill_id
                yield from (RefusedRow(position=p, reason=str(misfit)) for p in positions or [found.position])

    def _unfitting(self, trip: RoundTrip, trade_id: str, refused: str) -> IllegalTransition | None:
        """What is wrong with a trip where a later part of its history was imported before, as from flat.

        `refused` is the last fill of such a trip before: a flip stands or falls as a whole.
        """
        known = self._known
        taken = next((f for f in trip.fills if known.booked_in.get(f.fill_id, trade_id) != trade_id), None)
        is_cut_off = (
            not trip.is_flat
            and trip.fills[0].fill_id not in known.opened_by
            and trip.fills[-1].at // _INSTANT_US < known.imported_until // _INSTANT_US
        )
        is_rest = trip.fills[0].fill_id == refused + FLIPPED
        if taken is None and not is_cut_off and not is_rest:
            return None
        return IllegalTransition(
            "later fills of this market were imported without this history",
            field="fill_id",
            value=(taken or trip.fills[0]).fill_id,
            cure="import the whole history at once, under another --account",
        )

    def _unsound(self, row: VenueRow) -> InvalidTrade | None:
        if self._size is None:
            cure = "name it with --contract-size"
            return InvalidTrade("not told by the rows", field="contract_size", value=None, cure=cure)
        base = coins_of(self._history.symbol).base
        for execution in row.executions:
            is_held = execution.side is Side.BUY and self._history.market in _HOLDING
            if is_held and execution.fee_currency == base and execution.fee >= execution.amount:
                return InvalidTrade(
                    "takes the whole fill", field="fee", value=execution.fee, cure="below the amount"
                )
        return None

    def _trips(self, rows: list[VenueRow]) -> list[RoundTrip]:
        begun = self._begun
        before = None if begun is None else RoundTrip(side=begun.side, fills=begun.fills, is_flat=False)
        trips = []
        for found in round_trips(
            (execution for row in rows for execution in row.executions),
            market=self._history.market,
            symbol=self._history.symbol,
            opens_with=self._history.opens_with,
            begun=before,
        ):
            if isinstance(found, Unheld):
                position = self._row_of[found.execution.fill_id].position
                self._unheld[position] = plus(self._unheld[position], found.amount)
            elif self._told_by(found.fills[-1]) is not None:
                trips.append(found)
        return trips

    def _told_by(self, fill: Fill) -> VenueRow | None:
        """The row that tells of the fill, or of the part of it before a flip; None for a booked one."""
        row = self._row_of.get(fill.fill_id)
        return row if row is not None else self._row_of.get(fill.fill_id.removesuffix(FLIPPED))

    def _owned(self, trips: list[RoundTrip]) -> list[list[str]]:
        """The rows that count with each trip: one that closes a trip and opens another counts with that."""
        owner = dict.fromkeys(self._unheld, -1)
        for number, trip in enumerate(trips):
            for fill in trip.fills:
                row = self._told_by(fill)
                if row is not None and owner.get(row.position) != -1:
                    owner[row.position] = number
        owned: list[list[str]] = [[] for _ in trips]
        for position, number in owner.items():
            if number >= 0:
                owned[number].append(position)
        return owned

    def _trade_row(self, trip: RoundTrip, rows: int) -> TradeRow:
        first = next(row for fill in trip.fills if (row := self._told_by(fill)) is not None)
        return TradeRow(
            position=first.position,
            trade=self._trade(trip, first),
            as_of=trip.fills[-1].at,
            merged=max(rows - 1, 0),
            is_further=not rows,
        )

    def _trade(self, trip: RoundTrip, first: VenueRow) -> dict[str, Any]:
        history, opening = self._history, trip.fills[0]
        amount = ZERO
        for fill in trip.fills:
            amount = plus(amount, fill.amount) if fill.role is Role.ENTRY else amount
        about = {} if self._is_begun(trip) else first.about
        assert self._size is not None
        return {
            "trade_id": _trade_id(history, opening.fill_id),
            "user_id": history.user,
            "account_id": history.account,
            "exchange": history.exchange,
            "symbol": history.symbol,
            "market": history.market.value,
            "side": trip.side.value,
            "amount": plain(amount),
            "price": plain(opening.price),
            "contract_size": plain(self._size),
            "fills": [fill.to_dict() for fill in trip.fills],
            "source": history.source.value,
            "created_at": iso_time(opening.at),
        } | ({"extra": {"ccxt": about}} if about else {})

    def _is_begun(self, trip: RoundTrip) -> bool:
        return self._begun is not None and trip.fills[0].fill_id == self._begun.fills[0].fill_id


def _trade_id(history: MarketHistory, fill_id: str) -> str:
    return source_id(IMPORTED, *key_of(history), fill_id)
