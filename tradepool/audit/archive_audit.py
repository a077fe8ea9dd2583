"""The archive against the store: every trade that the store says is archived must be there, unchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from tradepool.archive.folder import day_of_part
from tradepool.archive.parts import Row
from tradepool.archive.reading import Archive
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import archive_damaged, archive_different, archive_missing
from tradepool.errors import Corrupt
from tradepool.model.archived import Archived

__all__ = ["ArchiveComparison", "Damaged", "check_archive", "read_archive"]


class Damaged:
    """The files of the archive that cannot be read, as findings, and the days that they are of.

    `undecided` names those that have no checksum.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.days: set[str] = set()
        self.undecided: list[str] = []

    def note(self, part: Path, problem: Corrupt) -> None:
        """`part` cannot be read."""
        self.days.add(day_of_part(part))
        self.findings += archive_damaged(f"{part.parent.name}/{part.name}", str(problem))


class ArchiveComparison:
    """Rows of the archive against the `expected` trades, by id.

    Rows of other trades are no findings: they may belong to trades that are being archived right now.
    """

    def __init__(self, expected: Mapping[str, Archived]) -> None:
        self._expected = expected
        self._found: set[str] = set()

    def look(self, row: Row) -> list[Finding]:
        """What is wrong with the next row."""
        left = self._expected.get(row.trade_id)
        if left is None or row.version != left.version - 1:
            return []
        found = archive_different(row, self._expected, is_second=row.trade_id in self._found)
        self._found.add(row.trade_id)
        return found

    def missing(self, damaged_days: Collection[str]) -> dict[str, Archived]:
        """Those that were in no row; of a day with a damaged file that cannot be told."""
        return {
            trade_id: left
            for trade_id, left in sorted(self._expected.items())
            if trade_id not in self._found and left.day not in damaged_days
        }


def read_archive(
    archive: Archive, parts: Iterable[Path], note: Callable[[Row], object], *, user_id: str | None = None
) -> Damaged:
    """Have every row (of a user) of some parts noted; which of them cannot be read.

    For one user no file is read as a whole, and no checksum compared.
    """
    damaged = Damaged()
    for part in parts:
        try:
            if user_id is None and not archive.check(part):
                damaged.undecided.append(f"archive/{part.parent.name}/{part.name}, which has no checksum yet")
            for row in archive.rows(part, user_id=user_id):
                note(row)
        except Corrupt as problem:
            damaged.note(part, problem)
    return damaged


def check_archive(
    archive: Archive,
    expected: Mapping[str, Archived],
    *,
    user_id: str | None = None,
    days: Collection[str] | None = None,
) -> Iterator[Finding]:
    """What the archive (some `days` of it) lacks of the `expected` trades (of one user), or has otherwise,
    or twice.
    """
    comparison = ArchiveComparison(expected)
    found: list[Finding] = []
    parts = [
        part
        for day in archive.folder.days()
        if days is None or day in days
        for part in archive.folder.parts_of(day)
    ]
    damaged = read_archive(archive, parts, lambda row: found.extend(comparison.look(row)), user_id=user_id)
    yield from found
    yield from damaged.findings
    for left in comparison.missing(damaged.days).values():
        yield from archive_missing(left, is_found=False)
