"""Parquet files of trades: written whole and durably, or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from tradepool.archive.columns import SELECT, Stored, line_of
from tradepool.archive.database import connected, parts_table, quoted, translated
from tradepool.archive.seals import seal_next, settle_seal
from tradepool.files.durable import replacing
from tradepool.model.digests import digest_of

__all__ = ["Row", "drop_rows", "has_right_digests", "read_rows", "write_part", "write_rows"]

_OPTIONS = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048, USE_TMP_FILE false)"
"""Small groups of rows, so that a user's rows are found without reading the others'."""
_FETCH = 500


class Row(NamedTuple):
    """Which version of which trade a part holds."""

    trade_id: str
    version: int
    digest: str
    user_id: str = ""


def write_part(part: Path, trades: Iterable[Stored]) -> int:
    """Write `trades` to the new `part` of the archive, and its seal; durable on return. How many they were.

    They pass through a file of JSON lines beside it. Each user's rows stand together.

    Raises: ResourceUnavailable when the disk fails, Misconfigured without DuckDB.
    """
    return _write(part, trades, " ORDER BY user_id, created_at, trade_id", is_part=True)


def write_rows(path: Path, trades: Iterable[Stored]) -> int:
    """Write `trades` to a file that is no part of the archive, in their order; otherwise as `write_part`."""
    return _write(path, trades, "", is_part=False)


def read_rows(part: Path) -> list[Row]:
    """What `part` holds, without the trades themselves. Raises: ResourceUnavailable, Corrupt."""
    with translated(str(part)), connected() as database:
        found = database.execute(f"SELECT trade_id, version, digest FROM {parts_table()}", [str(part)])
        return [Row(*row) for row in found.fetchall()]


def drop_rows(part: Path, trade_ids: Collection[str]) -> None:
    """Replace `part` by the same without some trades; durable on return.

    A part that loses all stays, empty: whoever has just listed it still finds it.

    Raises: ResourceUnavailable, Corrupt.
    """
    with translated(str(part)):
        _copy(
            f"SELECT * FROM {parts_table()} WHERE NOT list_contains(?, trade_id)",
            [str(part), list(trade_ids)],
            part,
            is_part=True,
        )


def has_right_digests(part: Path) -> bool:
    """Whether each row's digest is that of its JSON. Raises: ResourceUnavailable, Corrupt."""
    with translated(str(part)), connected() as database:
        found = database.execute(f"SELECT record, digest FROM {parts_table()}", [str(part)])
        while rows := found.fetchmany(_FETCH):
            if any(digest_of(record.encode()) != digest for record, digest in rows):
                return False
    return True


def _write(path: Path, trades: Iterable[Stored], order: str, *, is_part: bool) -> int:
    lines = path.with_suffix(".ndjson.new")
    try:
        with translated(str(path)):
            count = _write_lines(lines, trades)
            _copy(f"SELECT * FROM ({SELECT}){order}", [str(lines)], path, is_part=is_part)
    finally:
        lines.unlink(missing_ok=True)
    return count


def _write_lines(path: Path, trades: Iterable[Stored]) -> int:
    count = 0
    with path.open("wb") as file:
        for found in trades:
            file.write(line_of(found))
            count += 1
    return count


def _copy(query: str, parameters: list[object], target: Path, *, is_part: bool) -> None:
    with connected() as database, replacing(target) as file:
        database.execute(f"COPY ({query}) TO {quoted(file.name)} {_OPTIONS}", parameters)
        # `replacing` fsyncs the file it has opened: DuckDB must have written into that very one.
        assert os.fstat(file.fileno()).st_ino == Path(file.name).stat().st_ino
        if is_part:
            seal_next(target, Path(file.name))
    if is_part:
        settle_seal(target)
