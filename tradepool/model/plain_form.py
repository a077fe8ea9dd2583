"""Records as dictionaries that any JSON library can write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import astuple

from tradepool.model.money import plain

__all__ = ["plain_fields", "plain_value"]

_AS_IT_IS = frozenset({str, int, bool, float, type(None)})
"""Most of what a record holds, told by one look at its type."""


def plain_fields(record: msgspec.Struct) -> dict[str, Any]:
    """Every field of `record`, defaults included, decimals as positional text."""
    return dict(zip(record.__struct_fields__, _plain_values(astuple(record)), strict=True))


def plain_value(value: Any) -> Any:
    """`value` with decimals as positional text, enums as their text and records as dictionaries."""
    return _FORMS[type(value)](value)


def _plain_values(values: Iterable[Any]) -> list[Any]:
    return [
        value
        if (kind := type(value)) in _AS_IT_IS
        else plain(value)
        if kind is Decimal
        else _FORMS[kind](value)
        for value in values
    ]


def _form_of(kind: type[Any]) -> Callable[[Any], Any]:
    """What makes values of that type plain."""
    if issubclass(kind, Decimal):
        return plain
    if issubclass(kind, Enum):
        # A text's own `str` is its value, and told much faster than by the enum.
        return str.__str__ if issubclass(kind, str) else _member
    if issubclass(kind, dict):
        return _object
    if issubclass(kind, list | tuple):
        return _plain_values
    return plain_fields if issubclass(kind, msgspec.Struct) else _itself


def _member(value: Enum) -> Any:
    return value.value


def _object(value: dict[Any, Any]) -> dict[Any, Any]:
    return dict(zip(value, _plain_values(value.values()), strict=True)) if value else {}


def _itself(value: Any) -> Any:
    return value


class _Forms(dict[type[Any], Callable[[Any], Any]]):
    """Filled as types are met: asking for each kind in turn, every time, takes longer than all the rest."""

    def __missing__(self, kind: type[Any]) -> Callable[[Any], Any]:
        form = self[kind] = _form_of(kind)
        return form


_FORMS = _Forms()
