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
from typing import Any, TextIO

import msgspec

__all__ = ["ArrayItem", "array_items", "decode"]

_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_READ_CHARS = 1 << 20
_ITEM_CHARS_MAX = 16 << 20
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
    try:
        value, end = _DECODER.raw_decode(text, _skip_space(text, 0))
    except (ValueError, RecursionError) as error:
        place = ""
        if isinstance(error, json.JSONDecodeError):
            place = f" at line {error.lineno} column {error.colno}"
        raise ValueError(_problem(error) + place) from None
    if _skip_space(text, end) != len(text):
        raise ValueError("not JSON: there is more behind the value")
    return value


def array_items(stream: TextIO) -> Iterator[ArrayItem]:
    """The items of the JSON array in `stream`, in order; a damaged one is an item with an error.

    Reading goes on behind a damaged item whose end can be found. Where it cannot, the file is torn, and
    that is the last item. Of the text only the item at hand is in memory, and some MiB behind it.
    """
    window = _Window(stream)
    window.skip_to("[")
    row, torn = 1, False
    while not torn and window.next_char() not in ("", "]"):
        line = window.line
        value, error = window.take_item()
        yield ArrayItem(row=row, line=line, value=value, error=error)
        window.skip_comma()
        row += 1
        torn = error.startswith("torn")
    if torn:
        return
    end = window.rest()
    if end != "]":
        problem = "there is more behind the array" if end else "torn: the file ends before its last bracket"
        yield ArrayItem(row=row, line=window.line, error=problem)


class _Window:
    """The part of a long text that is looked at: read on as needed, and dropped behind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._dropped_lines = 0
        self._counted = 0
        self._at_end = False

    @property
    def line(self) -> int:
        """The line of the next character, from 1."""
        self._dropped_lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._dropped_lines + 1

    def skip_to(self, opening: str) -> None:
        """Go behind the first `opening`."""
        while (found := self._text.find(opening, self._at)) < 0 and self._read_on():
            pass
        self._at = found + 1

    def next_char(self) -> str:
        """The next character that is no space, which is where the window then stands; "" at the end."""
        while True:
            self._at = _skip_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def skip_comma(self) -> None:
        """Go behind one comma, if there is one."""
        if self.next_char() == ",":
            self._at += 1

    def take_item(self) -> tuple[Any, str]:
        """The value that begins here, or what is wrong with it; the window stands behind it then."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._holds_enough() or not self._read_on():
                    return None, self._skip_damaged(_problem(error))
            else:
                # A number that ends with the window may go on behind it.
                if end < len(self._text) or not self._read_on():
                    self._at = end
                    return value, ""

    def rest(self) -> str:
        """What is left, without space around it, as far as it takes to see that it is more than "]"."""
        while (left := self._text[self._at :].strip()) in ("", "]") and self._read_on():
            pass
        return left

    def _holds_enough(self) -> bool:
        return len(self._text) - self._at > _ITEM_CHARS_MAX

    def _skip_damaged(self, error: str) -> str:
        end = _damaged_end(self._text, self._at)
        if end is None:
            self._at = len(self._text)
            return "torn: the row does not end, nothing behind it was read"
        self._at = end
        return error

    def _read_on(self) -> bool:
        """Read more, and drop what lies behind; whether there was more."""
        more = self._stream.read(_READ_CHARS)
        if more:
            self._dropped_lines, self._counted = self.line - 1, 0
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    return f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"


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


def _skip_space(text: str, start: int) -> int:
    matched = _SPACE.match(text, start)
    assert matched is not None
    return matched.end()
