"""A book as one file: its arrays as they are in memory, so that reading it is mapping and checking it.

    8 bytes   "tp-book" and a line feed
    4 × 3     the format, the size of the header, CRC-32 of these sixteen bytes and the header
    header    JSON: name, type, length, room, place and CRC-32s of every part
    parts     arrays, the text of the trade ids, two JSON texts, and the caller's note

All numbers are little-endian. A part has one CRC-32 for each 16 MiB, so that many threads can check it. After
an array that grows with the book there is room, zeros, for an eighth more.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tradepool.errors import ChecksumMismatch, Corrupt
from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import COLUMN_TYPES, Columns
from tradepool.pnl.book.lanes import FeeClasses, Lane, Lanes, Numbered
from tradepool.pnl.book.trade_ids import IdArrays, TradeIds
from tradepool.pnl.book.trade_rows import TradeRows
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.position import Figures

__all__ = ["FORMAT", "dump", "load"]

FORMAT = 1
"""The only format there is so far; a file of another one is refused, as it can be built anew."""

_MAGIC = b"tp-book\n"
_START = struct.Struct("<8sII")
_CRC = struct.Struct("<I")
_HEADER_AT = _START.size + _CRC.size
_ALIGNMENT = 64
_PIECE_BYTES = 1 << 24
_GROWING = frozenset({*COLUMN_TYPES, "row_of_slot", "id_bounds", "id_hashes"})
_ROOM_SHARE = 8
_THREADS_MAX = 8
_CURE = "remove the file: the book is then built from the pool"

Array = npt.NDArray[Any]


class _Part(NamedTuple):
    """Where one part lies, as the header says it; `at` counts from the end of the header."""

    name: str
    type: str
    length: int
    room: int
    """How many cells after these are free to be used: a mapped book grows without being copied."""
    at: int
    crcs: list[int]

    @property
    def size(self) -> int:
        """In bytes, without the room."""
        return self.length * np.dtype(self.type).itemsize

    @property
    def end(self) -> int:
        """Where it ends, with the room."""
        return self.at + (self.length + self.room) * np.dtype(self.type).itemsize


def dump(book: Book, note: bytes) -> Iterator[bytes | memoryview]:
    """The file of `book`, piece by piece, with a `note` that `load` hands back.

    The pieces are views of the book's own arrays: it must not change before the last one is written.
    """
    arrays = {name: _little(array) for name, array in _arrays(book, note).items()}
    parts: list[_Part] = []
    end = 0
    for name, array in arrays.items():
        # The two texts of the ids lie together, and are one when they are read.
        at = end if name == "later_text" else _aligned(end)
        room = len(array) // _ROOM_SHARE if name in _GROWING else 0
        crcs = [crc32(piece) for piece in _pieces(_bytes_of(array))]
        parts.append(_Part(name, array.dtype.str, len(array), room, at, crcs))
        end = parts[-1].end
    header = json.dumps({"parts": parts}).encode()
    header += b" " * (_aligned(_HEADER_AT + len(header)) - _HEADER_AT - len(header))
    start = _START.pack(_MAGIC, FORMAT, len(header))
    yield start + _CRC.pack(crc32(header, crc32(start))) + header
    written = 0
    for part, array in zip(parts, arrays.values(), strict=True):
        yield from _zeros(part.at - written)
        yield _bytes_of(array)
        yield from _zeros(part.end - part.at - part.size)
        written = part.end


def load(buffer: bytes | mmap.mmap) -> tuple[Book, bytes]:
    """The book and the note of a file.

    A mapped file with `ACCESS_COPY` is not copied: the book reads and writes the mapping, and keeps it.
    One that is read only is copied where the book may write.

    Raises: ChecksumMismatch where bytes are damaged; Corrupt for what is not such a file, or is cut short.
    """
    try:
        parts, data = _opened(memoryview(buffer))
        threads = min(_THREADS_MAX, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="book-crc") as pool:
            reader = _Reader(parts, data, pool)
            return _book(reader), bytes(reader.view("note"))
    except (LookupError, TypeError, ValueError, ArithmeticError) as problem:
        raise Corrupt(f"book file: its parts contradict each other: {problem!r}; {_CURE}") from problem


class _Reader:
    """The parts of a file; each is handed out when its checksums are known to hold."""

    def __init__(self, parts: Mapping[str, _Part], data: memoryview, pool: ThreadPoolExecutor) -> None:
        self._parts = parts
        self._data = data
        self._crcs: dict[str, list[Future[int]]] = {
            part.name: [pool.submit(crc32, piece) for piece in _pieces(self._bytes(part))]
            for part in sorted(parts.values(), key=lambda part: part.name != "groups")
        }

    def view(self, name: str) -> memoryview:
        """The bytes of a part."""
        part = self._parts[name]
        for number, (crc, expected) in enumerate(zip(self._crcs[name], part.crcs, strict=True)):
            if crc.result() != expected:
                raise ChecksumMismatch(f"book file: {name}: piece {number} is damaged; {_CURE}")
        return self._bytes(part)

    def array(self, name: str, *, writable: bool = True) -> Array:
        """A part as the array it was."""
        part, view = self._parts[name], self.view(name)
        if not view.readonly:
            view = self._data[part.at : part.end]
        stored = np.frombuffer(view, part.type)
        array = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        return array if array.flags.writeable or not writable else array.copy()

    def json(self, name: str) -> Any:
        """A part that is JSON."""
        return json.loads(bytes(self.view(name)))

    def joined(self, first: str, second: str) -> memoryview:
        """Two parts that lie together."""
        start = self._parts[first].at
        return self._data[start : start + len(self.view(first)) + len(self.view(second))]

    def _bytes(self, part: _Part) -> memoryview:
        return self._data[part.at : part.at + part.size]


def _opened(view: memoryview) -> tuple[dict[str, _Part], memoryview]:
    """The parts that the header names, and the bytes they lie in."""
    if len(view) < _HEADER_AT:
        raise Corrupt(f"book file: cut short at {len(view)} bytes; {_CURE}")
    magic, number, size = _START.unpack_from(view)
    if magic != _MAGIC:
        raise Corrupt(f"book file: it begins with {magic!r} and so is something else; {_CURE}")
    if number != FORMAT:
        raise Corrupt(f"book file: format {number} is not {FORMAT}, which this version reads; {_CURE}")
    header = view[_HEADER_AT : _HEADER_AT + size]
    (crc,) = _CRC.unpack_from(view, _START.size)
    if crc32(header, crc32(view[: _START.size])) != crc:
        raise ChecksumMismatch(f"book file: the header is damaged; {_CURE}")
    parts = {name: _Part(name, *rest) for name, *rest in json.loads(bytes(header))["parts"]}
    data = view[_HEADER_AT + size :]
    end = max(part.end for part in parts.values())
    if len(data) != end:
        raise Corrupt(f"book file: {len(data)} bytes of data where the header says {end}; {_CURE}")
    return parts, data


def _arrays(book: Book, note: bytes) -> dict[str, Array]:
    ids = book.trade_rows.ids.arrays
    users, currencies = zip(*book.groups.keys, strict=True) if book.groups.keys else ((), ())
    state = {
        "size": book.columns.size,
        "ids": len(book.trade_rows.ids),
        "sorted_size": book.columns.sorted_size,
        "cost_max": book.cost_max,
        "lanes": list(zip(book.lanes.keys, book.lanes.counts, book.lanes.lots_max, strict=True)),
        "fee_rates": book.fees.rates,
        "decimal_rows": [_row_state(book, row) for row in book.decimal_rows.values()],
        "removed": book.removed,
    }
    return {
        **book.columns.arrays,
        "row_of_slot": book.trade_rows.rows,
        "id_bounds": ids.bounds,
        "id_hashes": ids.hashes,
        "id_places": ids.places,
        "first_text": ids.first_text,
        "later_text": ids.later_text,
        "groups": _json_bytes({"users": users, "currencies": currencies}),
        "group_counts": np.array(book.groups.counts, np.int64),
        "state": _json_bytes(state),
        "note": np.frombuffer(note, np.uint8),
    }


def _book(reader: _Reader) -> Book:
    names = reader.json("groups")
    groups = list(zip(names["users"], names["currencies"], strict=True))
    state = reader.json("state")
    lanes, counts, lots_max = zip(*state["lanes"], strict=True)
    columns = {name: reader.array(name) for name in COLUMN_TYPES}
    ids = IdArrays(
        np.frombuffer(reader.joined("first_text", "later_text"), np.uint8),
        np.zeros(0, np.uint8),
        reader.array("id_bounds", writable=False),
        reader.array("id_hashes", writable=False),
        reader.array("id_places"),
    )
    book = Book()
    book.columns = Columns(columns, size=state["size"], sorted_size=state["sorted_size"])
    book.groups = Numbered(groups, reader.array("group_counts", writable=False).tolist())
    book.lanes = Lanes([Lane(*lane) for lane in lanes], list(counts), list(lots_max))
    book.fees = FeeClasses(state["fee_rates"])
    book.cost_max = state["cost_max"]
    book.trade_rows = TradeRows(TradeIds(ids, count=state["ids"]), reader.array("row_of_slot"))
    book.removed = state["removed"]
    for version, row, figures in state["decimal_rows"]:
        trade_id, user_id, currency, symbol = row
        book.decimal_rows[trade_id] = DecimalRow(trade_id, user_id, currency, symbol, _figures(*figures))
        book.decimal_versions[trade_id] = version
    return book


def _row_state(book: Book, row: DecimalRow) -> tuple[object, ...]:
    *names, figures = row
    quantity, cost_units, fee_rate, inverse = figures
    return book.decimal_versions[row.trade_id], names, (str(quantity), cost_units, str(fee_rate), inverse)


def _figures(quantity: str, cost_units: int, fee_rate: str, inverse: bool) -> Figures:  # noqa: FBT001 - JSON
    return Figures(Decimal(quantity), cost_units, Decimal(fee_rate), inverse)


def _zeros(count: int) -> Iterator[memoryview]:
    block = memoryview(bytes(min(count, _PIECE_BYTES)))
    for start in range(0, count, _PIECE_BYTES):
        yield block[: count - start]


def _json_bytes(value: object) -> Array:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _bytes_of(array: Array) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).data


def _pieces(data: memoryview) -> list[memoryview]:
    bounds = [*range(0, len(data), _PIECE_BYTES), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds)]


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
