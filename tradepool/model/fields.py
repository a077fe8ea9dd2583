"""One caller's value at a time: text, choices, bounded numbers and JSON, each checked and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

import orjson

from tradepool.errors import InvalidTrade, quoted
from tradepool.model.money import parse_decimal, plain

__all__ = [
    "JSON_BYTES_MAX",
    "choice",
    "contract_size",
    "json_group",
    "leverage",
    "non_negative",
    "positive",
    "reject",
    "symbol",
    "text",
]

JSON_BYTES_MAX = 16 * 1024
"""All JSON fields of a trade together."""

Kind = TypeVar("Kind", bound=StrEnum)

_CHARS_MAX = 256
_CONTRACT_SIZE_MAX = 10**12
_LEVERAGE_MAX = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# ccxt's unified symbols: BASE/QUOTE, with :SETTLE and an expiry or a strike behind it for derivatives.
_SYMBOL = re.compile(r"[^/:\s]{1,32}/[^/:\s]{1,32}(:[^/:\s-]{1,32}(-[^/:\s]{1,40})?)?")
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def reject(field: str, problem: str, value: object, cure: str) -> NoReturn:
    """Raise InvalidTrade about `field`."""
    raise InvalidTrade(problem, field=field, value=value, cure=cure)


def text(chars_max: int = _CHARS_MAX) -> Callable[[str, object], str]:
    """A parser of non-empty text of at most `chars_max` characters, without control characters."""

    def parse(field: str, value: object) -> str:
        if not isinstance(value, str):
            reject(field, "not a text", value, "a text")
        if not value.strip() or len(value) > chars_max:
            reject(field, "empty or too long", value, f"1 to {chars_max} characters")
        if _CONTROL.search(value) or not _is_unicode(value):
            reject(field, "has characters that cannot be stored", value, "printable Unicode")
        return str(value)

    return parse


def symbol(field: str, value: object) -> str:
    """A market's symbol in ccxt form.

    Raises: InvalidTrade.
    """
    name = text()(field, value)
    if not _SYMBOL.fullmatch(name):
        reject(field, "not a symbol", value, "ccxt form, such as BTC/USDT or BTC/USDT:USDT")
    return name


def choice(kind: type[Kind], aliases: Mapping[str, Kind]) -> Callable[[str, object], Kind]:
    """A parser of one member of `kind` by its text in any case, or by an alias."""
    members = {member.value: member for member in kind} | dict(aliases)

    def parse(field: str, value: object) -> Kind:
        member = members.get(value.strip().lower()) if isinstance(value, str) else None
        if member is None:
            reject(field, "unknown", value, "one of " + ", ".join(kind))
        return member

    return parse


def positive(field: str, value: object) -> Decimal:
    """A number above 0.

    Raises: InvalidTrade.
    """
    number = parse_decimal(field, value)
    if number <= 0:
        reject(field, "not positive", value, "a number above 0")
    return number


def non_negative(field: str, value: object) -> Decimal:
    """A number of at least 0.

    Raises: InvalidTrade.
    """
    number = parse_decimal(field, value)
    if number < 0:
        reject(field, "negative", value, "0 or more")
    return number


def contract_size(field: str, value: object) -> Decimal:
    """A number above 0 and at most 1e12.

    Raises: InvalidTrade.
    """
    number = positive(field, value)
    if number > _CONTRACT_SIZE_MAX:
        reject(field, "too large", value, "at most 1e12")
    return number


def leverage(field: str, value: object) -> Decimal:
    """A number from 1 to 10,000.

    Raises: InvalidTrade.
    """
    number = parse_decimal(field, value)
    if not 1 <= number <= _LEVERAGE_MAX:
        reject(field, "out of range", value, f"1 to {_LEVERAGE_MAX}")
    return number


def json_group(group: Mapping[str, object]) -> dict[str, Any]:
    """A JSON copy of `group`, detached from the caller's objects; NaN becomes null.

    Raises: InvalidTrade naming the first field that is not JSON with text keys, or the size when
    all together exceed 16 KiB.
    """
    if not group:
        return {}
    encoded = _dumped(group)
    if encoded is None:
        field = next((name for name, value in group.items() if _dumped(value) is None), "extra")
        reject(quoted(field), "not JSON", group.get(field), "JSON values under text keys")
    if len(encoded) > JSON_BYTES_MAX:
        sizes = {name: len(_dumped(value) or b"") for name, value in group.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        cure = f"all JSON fields together at most {JSON_BYTES_MAX} bytes"
        reject(largest, "too large", f"{len(encoded)} bytes", cure)
    copy: dict[str, Any] = orjson.loads(encoded)
    return copy


def _dumped(value: object) -> bytes | None:
    try:
        return orjson.dumps(value, default=_to_text, option=_JSON_OPTIONS)
    except (TypeError, RecursionError):
        return None


def _to_text(value: object) -> str:
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _CHARS_MAX:
        return plain(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
