"""Reading JSON that other programs left behind: damaged, torn, with `NaN` in it, and full of floats.

Numbers with a point become Decimal, so no digit of the file is lost; `NaN` and the infinities, which
Python writes though JSON has none, become Decimals that are not finite, for the model to refuse by
name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

__all__ = ["ArrayItem", "array_items", "decode"]

_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
# One object for each, so that two rows with the same NaN compare equal.
_CONSTANTS = {"NaN": Decimal("NaN"), "Infinity": Decimal("Infinity"), "-Infinity": Decimal("-Infinity")}


def _exact(text: str) -> Decimal:
    """A number as it stands; one with an exponent beyond all measure counts as none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return _CONSTANTS["NaN"]


_DECODER = json.JSONDecoder(parse_float=_exact, parse_constant=_CONSTANTS.__getitem__)


class ArrayItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a JSON array: its place (from 1), the line it starts on, and its value or its error."""

    row: int
    line: int
    value: Any = None
    error: str = ""


def decode(text: str) -> Any:
    """The one JSON value in `text`.

    Raises: ValueError with one line saying what is wrong and where.
    """
    value, end = _value_at(text, _skip_space(text, 0))
    if _skip_space(text, end) != len(text):
        raise ValueError("not JSON: there is more behind the value")
    return value


def array_items(text: str) -> Iterator[ArrayItem]:
    """The items of the JSON array in `text`, in order; a damaged one is an item with an error.

    Reading goes on behind a damaged item whose end can be found. Where it cannot, the file is torn, and
    that is the last item.
    """
    position = _skip_space(text, text.index("[") + 1)
    row, line, counted = 1, 1, 0
    while position < len(text) and text[position] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, end, error = _item_at(text, position)
        yield ArrayItem(row=row, line=line, value=value, error=error)
        position = _behind_comma(text, end)
        row += 1
        if error.startswith("torn"):
            return
    if text[position:].strip() != "]":
        line += text.count("\n", counted, position)
        torn = (
            "torn: the file ends before its last bracket"
            if position >= len(text)
            else "there is more behind the array"
        )
        yield ArrayItem(row=row, line=line, error=torn)


def _item_at(text: str, start: int) -> tuple[Any, int, str]:
    """The item's value, where it ends, and what is wrong with it."""
    try:
        return *_value_at(text, start), ""
    except ValueError as error:
        end = _damaged_end(text, start)
        if end is None:
            return None, len(text), "torn: the row does not end, nothing behind it was read"
        return None, end, str(error)


def _value_at(text: str, start: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None


def _damaged_end(text: str, start: int) -> int | None:
    """Where the damaged item at `start` ends, by its brackets; None when they never close."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if depth == 0 and token[0] in (",", "]"):
            return token.start()
        if token[0] in ("{", "["):
            depth += 1
        elif token[0] in ("}", "]"):
            depth -= 1
            if depth <= 0:
                return token.end()
    return None


def _behind_comma(text: str, start: int) -> int:
    position = _skip_space(text, start)
    return _skip_space(text, position + 1) if text[position : position + 1] == "," else position


def _skip_space(text: str, start: int) -> int:
    matched = _SPACE.match(text, start)
    assert matched is not None
    return matched.end()
