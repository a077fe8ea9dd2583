"""One caller's value at a time: text, choices, bounded numbers and JSON, each checked and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, NoReturn, TypeGuard, TypeVar

import orjson

from tradepool.errors import InvalidTrade, quoted
from tradepool.model.money import ZERO, parse_decimal, plain
from tradepool.model.symbols import SYMBOLS_CACHED

__all__ = [
    "JSON_BYTES_MAX",
    "choice",
    "contract_size",
    "is_name",
    "json_group",
    "leverage",
    "name",
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
        # What prints has neither control characters nor lone surrogates.
        if not value.isprintable() and (_CONTROL.search(value) or not _is_unicode(value)):
            reject(field, "has characters that cannot be stored", value, "printable Unicode")
        return str(value)

    return parse


def name(field: str, value: object, chars_max: int) -> str:
    """A name that can stand in a key.

    Raises: InvalidTrade.
    """
    if is_name(value, chars_max):
        return value
    reject(field, "not a name", value, f"give 1 to {chars_max} printable characters")


def is_name(value: object, chars_max: int) -> TypeGuard[str]:
    """Whether `value` can stand in a key: text without control characters and lone surrogates."""
    return isinstance(value, str) and 0 < len(value) <= chars_max and value.isprintable()


def symbol(field: str, value: object) -> str:
    """A market's symbol in ccxt form.

    Raises: InvalidTrade.
    """
    name = _text(field, value)
    if not _is_symbol(name):
        reject(field, "not a symbol", value, "ccxt form, such as BTC/USDT or BTC/USDT:USDT")
    return name


_text = text()


@lru_cache(maxsize=SYMBOLS_CACHED)
def _is_symbol(name: str) -> bool:
    return _SYMBOL.fullmatch(name) is not None


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
    if number <= ZERO:
        reject(field, "not positive", value, "a number above 0")
    return number


def non_negative(field: str, value: object) -> Decimal:
    """A number of at least 0.

    Raises: InvalidTrade.
    """
    number = parse_decimal(field, value)
    if number < ZERO:
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
    """A JSON copy of `group`, detached from the caller's objects.

    Raises: InvalidTrade naming the first field that is not JSON with text keys or holds a NaN or an
    infinity, or the size when all together exceed 16 KiB.
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
    if b"null" in encoded:
        _refuse_non_finite(group)
    copy: dict[str, Any] = orjson.loads(encoded)
    return copy


def _refuse_non_finite(group: Mapping[str, object]) -> None:
    """The encoder writes null for NaN and the infinities; so only what holds a null is walked."""
    for name, value in group.items():
        for path, number in _lost_numbers(value):
            where = f" at {quoted(path)}" if path else ""
            reject(quoted(name), f"no finite number{where}", number, "a finite number, None, or leave it out")


def _lost_numbers(value: object) -> Iterator[tuple[str, object]]:
    """What JSON has only null for though it is not None, each with its place; `value` can be encoded."""
    rest: list[tuple[str, object]] = [("", value)]
    while rest:
        path, item = rest.pop()
        inner = _inside(item)
        if inner is not None:
            rest += [(f"{path}.{key}" if path else str(key), part) for key, part in inner]
        elif item is not None and not isinstance(item, str | int) and _dumped(item) == b"null":
            yield path, item


def _inside(item: object) -> Iterable[tuple[object, object]] | None:
    if isinstance(item, dict):
        return item.items()
    if isinstance(item, list | tuple):
        return enumerate(item)
    if is_dataclass(item):
        return [(field.name, getattr(item, field.name)) for field in dataclass_fields(item)]
    # An array of numpy, which the encoder takes whole.
    listed = getattr(item, "tolist", None)
    return enumerate(parts) if callable(listed) and isinstance(parts := listed(), list) else None


def _dumped(value: object) -> bytes | None:
    try:
        return orjson.dumps(value, _to_text, _JSON_OPTIONS)
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
