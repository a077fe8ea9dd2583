"""From a stream of trades to a file of the format asked for, durable and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from tradepool.archive.columns import Stored
from tradepool.archive.parts import write_rows
from tradepool.errors import InvalidTrade, ResourceUnavailable
from tradepool.exporters.freqtrade_file import freqtrade_chunks
from tradepool.exporters.lines import csv_lines, json_lines
from tradepool.files.durable import replacing

__all__ = ["ExportFormat", "choose_format", "write_export"]


class ExportFormat(StrEnum):
    """What an exported file is; its suffix is the value, but for freqtrade's, which has to be asked for."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    FREQTRADE = "freqtrade"


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
    columns of the archive; freqtrade's JSON needs 8 bytes of memory for each trade. On an error there is
    no new file, and an old one stays as it was.

    Raises: InvalidTrade when `path` exists and `force` is not given, or no file can be made there;
    ResourceUnavailable when the disk fails.
    """
    _check_place(path, force=force)
    if file_format is ExportFormat.PARQUET:
        return write_rows(path, trades)
    counted = _Counted(trades)
    try:
        with replacing(path) as file:
            for chunk in _CHUNKS[file_format](counted):
                file.write(chunk)
    except OSError as problem:
        raise ResourceUnavailable(f"{path}: {problem.strerror}") from problem
    return counted.count


_CHUNKS: MappingProxyType[ExportFormat, Callable[[Iterable[Stored]], Iterator[bytes]]] = MappingProxyType(
    {
        ExportFormat.JSONL: json_lines,
        ExportFormat.CSV: csv_lines,
        ExportFormat.FREQTRADE: freqtrade_chunks,
    }
)


class _Counted:
    """Trades as they come, and how many came."""

    def __init__(self, trades: Iterable[Stored]) -> None:
        self._trades = trades
        self.count = 0

    def __iter__(self) -> Iterator[Stored]:
        for found in self._trades:
            self.count += 1
            yield found


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
