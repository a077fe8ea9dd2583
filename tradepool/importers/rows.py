"""What an importer hands on: trades ready to add, histories to group, rows that it leaves out, and why."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.kinds import Market, Side, Source
from tradepool.model.money import CONTEXT, DECIMALS_MAX, canonical, plain
from tradepool.model.round_trips import Execution

__all__ = [
    "Defaults",
    "Entry",
    "IdleRow",
    "ImportReport",
    "MarketHistory",
    "PnlReport",
    "Refusal",
    "RefusedRow",
    "RepeatedRow",
    "TradeRow",
    "VenueRow",
    "json_value",
    "money_text",
    "round_noise",
    "source_id",
]

_FINEST = Decimal(1).scaleb(-DECIMALS_MAX)
_EXPONENT_MAX = 60


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says where the file says nothing."""

    user: str | None = None
    source: Source | None = None
    exchange: str | None = None
    account: str | None = None
    market: Market | None = None
    """Of symbols that name no settlement: spot unless said otherwise."""
    contract_size: Decimal | None = None
    """Of derivatives whose rows do not tell it."""


class PnlReport(NamedTuple):
    """The state a source reports for a trade: its PnL as text, and its status in the source's words."""

    pnl: str
    status: str


class TradeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One trade as the source has it at its end.

    `trade` is what `AddTrade` takes, with its id and user set; `as_of` the source's own time (µs), None
    where it names none; `merged` counts the further rows of the source that went into it; `report` is
    the state to carry a trade on with, when the pool already has it in an earlier state. A trade whose
    only row is counted with another trade (a fill that closed the one and opened the other) `is_further`.
    """

    position: str
    trade: dict[str, Any]
    as_of: int | None = None
    merged: int = 0
    report: PnlReport | None = None
    is_further: bool = False


class RepeatedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that says what an earlier row said."""

    position: str


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be imported, and why; `merged` counts further rows that belong to it."""

    position: str
    reason: str
    merged: int = 0


class IdleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that tells of nothing to book, and why: an order that never filled."""

    position: str
    reason: str


class VenueRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one row says was executed; several executions where its fee was paid in several coins."""

    position: str
    executions: tuple[Execution, ...]
    about: dict[str, Any] = {}
    """What else the row tells, to be kept with the trade that it opens."""


class MarketHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What was executed on one market of one account, in order: trades once it is known what was held."""

    user: str
    account: str
    exchange: str
    symbol: str
    market: Market
    source: Source
    contract_size: Decimal | None
    """None where the rows do not tell."""
    opens_with: Side | None
    """The side of an account in hedge mode that all rows are of; None where there is one position."""
    rows: tuple[VenueRow, ...]


Entry = TradeRow | RepeatedRow | RefusedRow | IdleRow | MarketHistory


class Refusal(NamedTuple):
    """Where a row that was left out stands in its file, and why."""

    position: str
    reason: str


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every row: `read == applied + merged + duplicate + len(idle) + len(refused)`.

    `applied` rows brought a trade in, or carried one on; `merged` rows are part of the trade of another
    row (an update line, a further fill, the same trade in the second file); `duplicate` rows changed
    nothing; `idle` ones tell of nothing to book.
    """

    format: str
    read: int = 0
    applied: int = 0
    merged: int = 0
    duplicate: int = 0
    refused: tuple[Refusal, ...] = ()
    idle: tuple[Refusal, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no row was refused."""
        return not self.refused

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        rows = {name: [row._asdict() for row in getattr(self, name)] for name in ("refused", "idle")}
        return {**msgspec.structs.asdict(self), **rows, "ok": self.ok}


def source_id(prefix: str, *parts: str) -> str:
    """An id made of what a source calls its trade or its row: the same in every run."""
    text = "\x1f".join(parts).encode("utf-8", "replace")
    return prefix + hashlib.blake2b(text, digest_size=16).hexdigest()


def round_noise(number: Decimal) -> Decimal:
    """`number` at the model's 18 places, half even: what a file has beyond them is binary noise.

    What the model will refuse for its size stays as it is.
    """
    if _is_beyond_money(number):
        return number
    return canonical(number.quantize(_FINEST, context=CONTEXT))


def money_text(number: Decimal) -> str:
    """`number` as text for the model, which refuses by name what is not finite or too large."""
    # In positional notation 1e999999999 would fill the memory.
    return str(number) if _is_beyond_money(number) else plain(round_noise(number))


def _is_beyond_money(number: Decimal) -> bool:
    return not number.is_finite() or number.adjusted() > _EXPONENT_MAX


def json_value(field: str, value: Any) -> Any:
    """`value` with each Decimal inside as the JSON number it was: for what is no money.

    Raises: InvalidTrade naming the place of a NaN or an infinity, which JSON does not have.
    """
    match value:
        case Decimal():
            return _json_number(field, value)
        case dict():
            return {key: json_value(f"{field}.{key}", item) for key, item in value.items()}
        case list():
            return [json_value(f"{field}.{index}", item) for index, item in enumerate(value)]
    return value


def _json_number(field: str, value: Decimal) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise InvalidTrade(
            "not a number", field=field, value=str(value), cure="a finite number, or leave it out"
        )
    return number
