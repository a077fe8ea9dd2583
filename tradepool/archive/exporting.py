"""Trades as a file for others: JSON lines, CSV or Parquet, whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from tradepool.archive.columns import Stored
from tradepool.archive.parts import write_part
from tradepool.errors import InvalidTrade, ResourceUnavailable
from tradepool.files.durable import replacing
from tradepool.model.trade import DERIVED_NAMES, Trade

__all__ = ["ExportFormat", "choose_format", "write_export"]


class ExportFormat(StrEnum):
    """What an exported file is; its suffix is the value."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def choose_format(path: Path, given: str | None = None) -> ExportFormat:
    """The format `given`, or the one that the suffix of `path` names. Raises: InvalidTrade."""
    name = path.suffix.removeprefix(".").lower() if given is None else given
    try:
        return ExportFormat(name)
    except ValueError:
        choices = ", ".join(ExportFormat)
        raise InvalidTrade(
            "no format for an export", field="format", value=name, cure=f"one of {choices}"
        ) from None


def write_export(
    path: Path, trades: Iterable[Stored], file_format: ExportFormat, *, force: bool = False
) -> int:
    """Write `trades` to `path`; how many they were. Durable on return; memory does not grow with them.

    JSON lines hold `Trade.to_dict`, CSV the same in columns (lists and objects as JSON), Parquet the
    columns of the archive. On an error there is no new file, and an old one stays as it was.

    Raises: InvalidTrade when `path` exists and `force` is not given, or no file can be made there;
    ResourceUnavailable when the disk fails.
    """
    _check_place(path, force=force)
    if file_format is ExportFormat.PARQUET:
        return write_part(path, trades, sort=False)
    lines = _json_lines if file_format is ExportFormat.JSONL else _csv_lines
    count = -1 if file_format is ExportFormat.CSV else 0
    try:
        with replacing(path) as file:
            for line in lines(found.trade for found in trades):
                file.write(line)
                count += 1
    except OSError as problem:
        raise ResourceUnavailable(f"{path}: {problem.strerror}") from problem
    return count


def _check_place(path: Path, *, force: bool) -> None:
    """Raises: InvalidTrade unless a file may be put at `path`."""
    folder = path.parent
    if not folder.is_dir():
        problem, cure = "its folder does not exist", "make it, or name a file elsewhere"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem, cure = "its folder cannot be written", "name a file in one of yours"
    # A device or a folder, also at the end of a link; a link to nothing is somebody's as well.
    elif os.path.lexists(path) and not path.is_file():
        problem, cure = "exists and is no regular file", "name another one"
    elif path.is_file() and not force:
        problem, cure = "exists", "name another one, or give --force (force=True)"
    else:
        return
    raise InvalidTrade(problem, field="file", value=str(path), cure=cure)


def _json_lines(trades: Iterable[Trade]) -> Iterator[bytes]:
    for trade in trades:
        yield _json(trade.to_dict()) + b"\n"


def _csv_lines(trades: Iterable[Trade]) -> Iterator[bytes]:
    names = (*Trade.__struct_fields__, *DERIVED_NAMES)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for trade in trades:
        yield _taken(text)
        fields = trade.to_dict()
        writer.writerow([_cell(fields[name]) for name in names])
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    written = text.getvalue()
    text.seek(0)
    text.truncate()
    return written.encode()


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case dict() | list():
            return _json(value).decode()
    return value


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
