"""The archive against the store: every trade that the store says is archived must be there, unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tradepool.archive.folder import day_of_part
from tradepool.archive.reading import Archive
from tradepool.audit.file_rules import archive_damaged, archive_different, archive_missing
from tradepool.audit.report import Finding
from tradepool.errors import Corrupt
from tradepool.model.archived import Archived

__all__ = ["check_archive"]


def check_archive(
    archive: Archive, expected: Mapping[str, Archived], *, user_id: str | None = None
) -> Iterator[Finding]:
    """What the archive lacks of the `expected` trades (of one user), or has otherwise, or twice.

    Rows of other trades are no findings: they may belong to trades that are being archived right now. Of a
    day with a damaged file it cannot be told what is missing.
    """
    found: set[str] = set()
    damaged_days: set[str] = set()
    for part in archive.folder.parts():
        try:
            for row in archive.rows(part, user_id=user_id):
                left = expected.get(row.trade_id)
                if left is not None and row.version == left.version - 1:
                    yield from archive_different(row, expected, is_second=row.trade_id in found)
                    found.add(row.trade_id)
        except Corrupt as problem:
            damaged_days.add(day_of_part(part))
            yield from archive_damaged(f"{part.parent.name}/{part.name}", str(problem))
    for trade_id, left in sorted(expected.items()):
        if left.day not in damaged_days:
            yield from archive_missing(left, is_found=trade_id in found)
