"""A pool's own exports: JSON lines, CSV and Parquet, each trade as it was written.

A row is taken only if the pool will come to the same trade: its fills are booked again, and every figure
must be the one in the file. What belongs to the pool that the trade was in (`BOOKKEEPING`) begins anew.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tradepool.archive.database import connected, duckdb_module
from tradepool.errors import InvalidTrade, Rejected, quoted
from tradepool.importers.file_text import head_of, open_text
from tradepool.importers.rows import Defaults, Entry, RefusedRow, TradeRow
from tradepool.model.digests import digest_of
from tradepool.model.intake import trade_from_dict, trade_from_record
from tradepool.model.times import iso_time
from tradepool.model.trade import SCHEMA_VERSION, Trade

__all__ = ["BOOKKEEPING", "read_pool_file", "record_row"]

BOOKKEEPING = frozenset({"version", "updated_at", "payload", "applied", "schema_version"})
"""Fields that tell how a trade came to be in one pool, and are that pool's; all others are the trade's."""

_FACTS = tuple(name for name in Trade.__struct_fields__ if name not in BOOKKEEPING)
_TIMES = ("created_at", "opened_at", "closed_at")
_PLAIN_FROM_US = 10**14
_PARQUET = b"PAR1"
_CELL_CHARS_MAX = 16 << 20
_FETCH = 500
_HEAD_BYTES = 1024


def read_pool_file(path: Path, defaults: Defaults) -> Iterator[Entry]:
    """The trades of a pool's export, streamed. It names their users and sources: `defaults` are not used.

    Raises: Rejected when the file cannot be read or is no such export; Misconfigured for Parquet without
    DuckDB.
    """
    del defaults
    head = head_of(path, _HEAD_BYTES)
    if head.startswith(_PARQUET):
        return _parquet_rows(path)
    is_json = head.decode("utf-8-sig", "replace").lstrip().startswith("{")
    return _json_rows(path) if is_json else _csv_rows(path)


def record_row(position: str, fields: Any) -> Entry:
    """The row of a trade as `Trade.to_dict` has it, or its refusal."""
    try:
        if not isinstance(fields, dict) or "schema_version" not in fields:
            raise InvalidTrade("not a trade's record", field="trade", value=fields, cure="export it again")
        record = trade_from_record(fields)
        told = _with_plain_times(fields, record)
        again = trade_from_dict(told, now_us=record.updated_at, trade_id=record.trade_id)
        _check_same(record, again)
    except Rejected as refusal:
        return RefusedRow(position=position, reason=str(refusal))
    return TradeRow(position=position, trade=told, as_of=record.updated_at)


def _with_plain_times(fields: dict[str, Any], record: Trade) -> dict[str, Any]:
    """The fields with early times as text: a small number of µs would be taken for milliseconds."""
    fill_times = [fill.at for fill in record.fills]
    if all(time >= _PLAIN_FROM_US for time in (record.created_at, *fill_times)):
        return fields
    times = {name: iso_time(fields[name]) for name in _TIMES if fields.get(name)}
    fills = [
        fill | {"at": iso_time(at)} for fill, at in zip(fields.get("fills", ()), fill_times, strict=True)
    ]
    return fields | times | {"fills": fills}


def _check_same(record: Trade, again: Trade) -> None:
    """Raises: InvalidTrade when a figure of the record does not follow from what it says happened."""
    for name in _FACTS:
        written, booked = getattr(record, name), getattr(again, name)
        if written != booked:
            problem = f"booked again it is {quoted(booked)}"
            raise InvalidTrade(problem, field=name, value=written, cure="export it again, unchanged")


def _json_rows(path: Path) -> Iterator[Entry]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _json_row(f"line {number}", line)


def _json_row(position: str, text: str) -> Entry:
    try:
        return record_row(position, _json(text))
    except ValueError as problem:
        return RefusedRow(position=position, reason=str(problem))


def _csv_rows(path: Path) -> Iterator[Entry]:
    # A limit of the whole process: a trade of thousands of fills has a longer cell than it allows at first.
    csv.field_size_limit(_CELL_CHARS_MAX)
    with open_text(path) as lines:
        rows = csv.reader(lines, strict=True)
        try:
            names = next(rows, [])
            _check_columns(path, names)
            for cells in rows:
                yield _csv_row(f"line {rows.line_num}", names, cells)
        except csv.Error as problem:
            reason = f"torn, nothing behind it was read: {problem}"
            yield RefusedRow(position=f"line {rows.line_num}", reason=reason)


def _csv_row(position: str, names: list[str], cells: list[str]) -> Entry:
    if len(cells) != len(names):
        return RefusedRow(position=position, reason=f"{len(cells)} cells under {len(names)} columns")
    fields: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            if cell:
                fields[name] = _READERS.get(name, str)(cell)
        except ValueError as problem:
            return RefusedRow(position=position, reason=f"{name}: {problem}")
    return record_row(position, fields)


def _parquet_rows(path: Path) -> Iterator[Entry]:
    duckdb = duckdb_module()
    table = "read_parquet(?, file_row_number = true, hive_partitioning = false)"
    try:
        with connected() as database:
            found = database.execute(f"FROM {table} SELECT file_row_number + 1, record, digest", [str(path)])
            while rows := found.fetchmany(_FETCH):
                for number, record, digest in rows:
                    yield _parquet_row(f"row {number}", str(record), digest)
    except duckdb.Error as problem:
        reason = str(problem).partition("\n")[0]
        cure = "give a Parquet file that a pool wrote"
        raise Rejected(reason, field="file", value=str(path), cure=cure) from problem


def _parquet_row(position: str, body: str, digest: str) -> Entry:
    if digest_of(body.encode()) != digest:
        return RefusedRow(position=position, reason="the record does not match its digest; export it again")
    try:
        # The archive's JSON leaves out what is at its default, and with it the mark of a record.
        record = trade_from_record({"schema_version": SCHEMA_VERSION} | _json(body))
    except (ValueError, Rejected) as problem:
        return RefusedRow(position=position, reason=str(problem))
    return record_row(position, record.to_dict())


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, ValueError, RecursionError) as problem:
        raise ValueError(f"not JSON: {problem}") from problem


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _reader(field: msgspec.structs.FieldInfo) -> Callable[[str], Any]:
    """What reads a cell of the field: its type is lost in CSV."""
    if field.type is bool:
        return _truth
    if field.type in (int, int | None):
        return int
    is_json = field.default == () or field.default_factory is not msgspec.NODEFAULT
    return _json if is_json else str


_READERS = {field.name: _reader(field) for field in msgspec.structs.fields(Trade)}


def _check_columns(path: Path, names: list[str]) -> None:
    missing = next((name for name in ("trade_id", "user_id", "schema_version") if name not in names), None)
    if missing is not None:
        cure = "give a CSV file that a pool wrote"
        raise Rejected(f"has no column {missing}", field="file", value=str(path), cure=cure)
