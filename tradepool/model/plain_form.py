"""Records as dictionaries that any JSON library can write."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from tradepool.model.money import plain

__all__ = ["plain_fields", "plain_value"]


def plain_fields(record: msgspec.Struct) -> dict[str, Any]:
    """Every field of `record`, defaults included, decimals as positional text."""
    return {name: plain_value(getattr(record, name)) for name in record.__struct_fields__}


def plain_value(value: Any) -> Any:
    """`value` with decimals as positional text, enums as their text and records as dictionaries."""
    match value:
        case Decimal():
            return plain(value)
        case Enum():
            return value.value
        case msgspec.Struct():
            return plain_fields(value)
        case dict():
            return {key: plain_value(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_value(item) for item in value]
    return value
