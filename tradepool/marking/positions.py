"""An open trade as a row of the book."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import msgspec

from tradepool.batching import batched
from tradepool.errors import Corrupt, InvalidTrade
from tradepool.logger import Logger
from tradepool.model import codec
from tradepool.model.money import CONTEXT, ONE, ZERO
from tradepool.model.trade import OPEN_STATUSES, Market, Side, Status, Trade
from tradepool.model.valuation import settlement
from tradepool.pnl.book import Book
from tradepool.pnl.position import Position
from tradepool.store.redis_store import RedisStore

__all__ = ["ROWS_FORMAT", "open_positions", "position_in", "position_of", "put", "put_open"]

ROWS_FORMAT = 1
"""Another number whenever `position_of` makes something else of the same trade: saved books are then void."""

_BATCH = 10_000
"""Trades put into the book at once."""

_log = Logger(__name__)
# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_BUY, _INVERSE = Side.BUY, Market.INVERSE
_add, _minus, _multiply = CONTEXT.add, CONTEXT.minus, CONTEXT.multiply


class _Outline(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fields of a trade that its row is made of: half the time of decoding all of them."""

    trade_id: str
    user_id: str
    symbol: str
    side: Side
    market: Market = Market.SPOT
    status: Status = Status.PENDING
    filled: Decimal = ZERO
    closed: Decimal = ZERO
    held_fees: Decimal = ZERO
    contract_size: Decimal = ONE
    open_cost: Decimal = ZERO
    open_fee: Decimal = ZERO


_DECODER = msgspec.json.Decoder(_Outline)
# The rule is the trade's own; what it reads is in the outline.
_open_amount: Callable[[Trade | _Outline], Decimal] = vars(Trade)["open_amount"].fget


def position_in(body: bytes | msgspec.Raw) -> Position | None:
    """`position_of` the trade whose JSON is `body`. Raises: Corrupt when it is none."""
    try:
        found = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a stored trade cannot be read: {problem}") from problem
    return position_of(found)


def position_of(trade: Trade | _Outline) -> Position | None:
    """The open part of `trade` as a row of the book; None when it is not open or nothing is held or owed.

    The row's cost includes the entry fees not yet matched.
    """
    if trade.status not in OPEN_STATUSES or not (amount := _open_amount(trade)):
        return None
    is_long, market, size = trade.side is _BUY, trade.market, trade.contract_size
    # An inverse long is worth minus its contracts over the price, a linear one plus its amount times it.
    is_positive = is_long != (market is _INVERSE)
    entry = trade.open_cost if size is ONE else _multiply(trade.open_cost, size)
    return Position(
        trade_id=trade.trade_id,
        user_id=trade.user_id,
        currency=settlement(market, trade.symbol),
        symbol=trade.symbol,
        market=market.value,
        amount=amount if is_long else _minus(amount),
        cost=_add(entry if is_positive else _minus(entry), trade.open_fee),
        contract_size=size,
    )


def open_positions(store: RedisStore, shard: int) -> Iterator[tuple[Position, int]]:
    """The position of each open trade of a shard, and the trade's version, read in pages.

    Raises: StoreUnavailable; Corrupt when a record cannot be read.
    """
    for value in store.read_all(shard, store.open_ids(shard)):
        header, body = codec.split(value)
        position = position_in(body) if header.kind == codec.TRADE_KIND else None
        if position is not None:
            yield position, header.version


def put_open(book: Book, store: RedisStore, shard: int) -> None:
    """Put the open trades of a shard into the book. Raises: as `open_positions`."""
    for batch in batched(open_positions(store, shard), _BATCH):
        put(book, [position for position, _ in batch], [version for _, version in batch])


def put(book: Book, positions: Sequence[Position], versions: Sequence[int]) -> None:
    """Add or replace rows, each at its trade's version.

    A position whose figures are beyond any book (see `pnl.position`) is left out and logged: it must not keep
    all others from being marked.
    """
    if not positions:
        return
    try:
        book.upsert(positions, versions)
    except InvalidTrade as problem:
        if len(positions) == 1:
            book.remove([positions[0].trade_id])
            _log.error("trade_not_in_the_book", problem=str(problem))
            return
        # What was taken already is skipped: a few bad ones cost little more than looking for them.
        half = len(positions) // 2
        put(book, positions[:half], versions[:half])
        put(book, positions[half:], versions[half:])
