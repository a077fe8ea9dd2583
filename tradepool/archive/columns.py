"""The columns of the archive: a trade's single values, typed for SQL, beside its exact JSON.

DuckDB takes the stored fields out of the JSON itself; what the model derives is handed to it, so that
no figure is computed in two places.
"""

from __future__ import annotations

from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple

import msgspec

from tradepool.model import codec
from tradepool.model.plain_form import plain_value
from tradepool.model.trade import DERIVED_NAMES, Trade

__all__ = ["COLUMNS", "IN_RECORD_ONLY", "SELECT", "Stored", "line_of", "stored"]

MONEY_TYPE = "DECIMAL(38,18)"
"""Holds every number below 1e20 with 18 places; the JSON in `record` holds all."""

_INTEGER_DIGITS_MAX = 20
_PLACES_MAX = 18

_TEXTS = (
    *("trade_id", "user_id", "account_id", "exchange", "symbol", "market", "side", "status", "outcome"),
    *("close_reason", "source", "strategy", "symbol_group", "success_label", "idempotency_key"),
    *("related_trade_id", "payload"),
)
_MONEY = (
    *("amount", "amount_ordered", "filled", "closed", "price", "contract_size", "leverage", "entry_cost"),
    *("exit_value", "open_cost", "held_fees", "entry_fee", "exit_fee", "open_fee", "funding", "interest"),
    *("pnl_gross", "pnl_net", "pnl_cash_net", "roi_net", "pnl_reported", "roi_reported", "stop_loss"),
    *("take_profit", "liquidation_price", "deposit"),
)
_TIMES = ("created_at", "opened_at", "closed_at", "updated_at", "pnl_as_of")
_FLAGS = ("fee_unpriced",)
_NUMBERS = ("version",)
_DERIVED_TEXTS = ("direction", "base_currency", "quote_currency", "settlement_currency")
_DERIVED_MONEY = tuple(name for name in DERIVED_NAMES if name not in _DERIVED_TEXTS)

IN_RECORD_ONLY = frozenset(
    {
        *("fills", "fees", "signals", "signal_metrics", "market_conditions", "extra", "notes", "applied"),
        *("field_times", "schema_version", "quarantine"),
    }
)
"""Fields without a column of their own: `record->'$.fees'` has them."""


class Stored(NamedTuple):
    """A trade and the JSON that it is stored as, byte for byte."""

    trade: Trade
    body: bytes


def stored(value: bytes) -> Stored:
    """The trade of a stored value. Raises: Corrupt when it is none."""
    _, body = codec.split(value)
    return Stored(codec.decode_trade(body), body)


class _Line(msgspec.Struct, frozen=True, gc=False):
    """One trade on its way into DuckDB: a line of JSON."""

    record: str
    digest: str
    inexact: list[str]
    derived: dict[str, str | None]


_ENCODER = msgspec.json.Encoder()
_money_of = attrgetter(*_MONEY)
_derived_of = attrgetter(*DERIVED_NAMES)


def line_of(found: Stored) -> bytes:
    """The trade as the line of JSON that `SELECT` reads."""
    trade, body = found
    derived = dict(zip(DERIVED_NAMES, _derived_of(trade), strict=True))
    numbers = [
        *zip(_MONEY, _money_of(trade), strict=True),
        *((name, derived[name]) for name in _DERIVED_MONEY),
    ]
    inexact = [name for name, number in numbers if number and not _fits(number)]
    texts = {name: plain_value(value) for name, value in derived.items()}
    return _ENCODER.encode(_Line(body.decode(), codec.digest_of(body), inexact, texts)) + b"\n"


def _fits(number: Decimal) -> bool:
    """Whether the column can hold `number` exactly."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return -exponent <= _PLACES_MAX and number.adjusted() < _INTEGER_DIGITS_MAX


def _field_types() -> dict[str, str]:
    texts = dict.fromkeys((*_TEXTS, *_MONEY), "VARCHAR")
    numbers = dict.fromkeys((*_TIMES, *_NUMBERS), "BIGINT")
    return texts | numbers | dict.fromkeys(_FLAGS, "BOOLEAN")


def _with_default(name: str) -> str:
    """The field, which the JSON leaves out where it is the default."""
    default = _DEFAULTS[name]
    if default is None or default is msgspec.NODEFAULT:
        return f"t.{name}"
    return f"coalesce(t.{name}, {_literal(default)})"


def _literal(default: object) -> str:
    match default:
        case bool() | int():
            return str(default).lower()
        case Decimal():
            return f"'{plain_value(default)}'"
    return f"'{default!s}'"


def _money(expression: str) -> str:
    """Rounded to 18 places; NULL from 1e20 on."""
    return f"TRY_CAST({expression} AS {MONEY_TYPE})"


def _time(name: str) -> str:
    """µs to a timestamp; `pnl_as_of` 0 stands for never."""
    value = _with_default(name)
    return f"make_timestamp({f'nullif({value}, 0)' if name == 'pnl_as_of' else value})"


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Trade)}

_EXPRESSIONS: dict[str, str] = {
    **{name: _with_default(name) for name in (*_TEXTS, *_NUMBERS, *_FLAGS)},
    **{name: _time(name) for name in _TIMES},
    **{name: _money(_with_default(name)) for name in _MONEY},
    **{name: f"derived.{name}" for name in _DERIVED_TEXTS},
    **{name: _money(f"derived.{name}") for name in _DERIVED_MONEY},
    "inexact": "inexact",
    "digest": "digest",
    "record": "record",
}

COLUMNS = tuple(_EXPRESSIONS)
"""The columns, in order. `inexact` names those whose number did not fit: rounded, or NULL from 1e20 on."""

_DERIVED_STRUCT = ", ".join(f"{name} VARCHAR" for name in DERIVED_NAMES)
LINE_COLUMNS = (
    f"{{record: 'VARCHAR', digest: 'VARCHAR', inexact: 'VARCHAR[]', derived: 'STRUCT({_DERIVED_STRUCT})'}}"
)
"""What a line holds, as `read_json` takes it."""

SELECT = (
    "SELECT "
    + ", ".join(f"{expression} AS {name}" for name, expression in _EXPRESSIONS.items())
    + f" FROM (SELECT *, from_json(record, '{msgspec.json.encode(_field_types()).decode()}') AS t"
    + f" FROM read_json(?, format = 'newline_delimited', columns = {LINE_COLUMNS}))"
)
"""Reads a file of lines (its parameter) into the columns."""
