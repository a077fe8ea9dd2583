"""What an importer hands on: trades ready to add, rows that repeat others, rows that it refuses."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.kinds import Source
from tradepool.model.money import CONTEXT, DECIMALS_MAX, canonical, plain

__all__ = [
    "Defaults",
    "Entry",
    "ImportReport",
    "PnlReport",
    "Refusal",
    "RefusedRow",
    "RepeatedRow",
    "TradeRow",
    "json_value",
    "money_text",
    "round_noise",
]

_FINEST = Decimal(1).scaleb(-DECIMALS_MAX)
_EXPONENT_MAX = 60


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says where the file says nothing."""

    user: str | None = None
    source: Source | None = None


class PnlReport(NamedTuple):
    """The state a source reports for a trade: its PnL as text, and its status in the source's words."""

    pnl: str
    status: str


class TradeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One trade as the source has it at its end.

    `trade` is what `AddTrade` takes, with its id and user set; `as_of` the source's own time (µs), None
    where it names none; `merged` counts the further rows of the source that went into it; `report` is
    the state to carry a trade on with, when the pool already has it in an earlier state.
    """

    position: str
    trade: dict[str, Any]
    as_of: int | None = None
    merged: int = 0
    report: PnlReport | None = None


class RepeatedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that says what an earlier row said."""

    position: str


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be imported, and why; `merged` counts further rows that belong to it."""

    position: str
    reason: str
    merged: int = 0


Entry = TradeRow | RepeatedRow | RefusedRow


class Refusal(NamedTuple):
    """Where a refused row stands in its file, and why it was refused."""

    position: str
    reason: str


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every row: `read == applied + merged + duplicate + len(refused)`.

    `applied` rows brought a trade in, or carried one on; `merged` rows are part of the trade of another
    row (an update line, the same trade in the second file); `duplicate` rows changed nothing.
    """

    format: str
    read: int = 0
    applied: int = 0
    merged: int = 0
    duplicate: int = 0
    refused: tuple[Refusal, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no row was refused."""
        return not self.refused

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        refused = [refusal._asdict() for refusal in self.refused]
        return {**msgspec.structs.asdict(self), "refused": refused, "ok": self.ok}


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
