"""The archive against the store: every trade that the store says is archived must be there, unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tradepool.archive.reading import Archive
from tradepool.audit.report import Finding, Severity
from tradepool.errors import Corrupt
from tradepool.model.archived import Archived

__all__ = ["check_archive"]


def check_archive(
    archive: Archive, expected: Mapping[str, Archived], *, user_id: str | None = None
) -> Iterator[Finding]:
    """What the archive lacks of the `expected` trades (of one user), or has otherwise, or twice.

    Rows of other trades are no findings: they may belong to trades that are being archived right now.
    """
    found: set[str] = set()
    for part in archive.folder.parts():
        try:
            for row in archive.rows(part, user_id=user_id):
                left = expected.get(row.trade_id)
                if left is None or row.version != left.version - 1:
                    continue
                if left.digest not in ("", row.digest):
                    yield _finding("archive_different", row.trade_id, f"version {row.version} is another one")
                elif row.trade_id in found:
                    yield _finding("archive_different", row.trade_id, "it is there twice")
                found.add(row.trade_id)
        except Corrupt as problem:
            yield _finding("archive_different", f"{part.parent.name}/{part.name}", str(problem))
    for trade_id in sorted(expected.keys() - found):
        yield _finding("archive_missing", trade_id, f"not in the archive of {expected[trade_id].day}")


def _finding(rule: str, subject: str, detail: str) -> Finding:
    return Finding(rule=rule, severity=Severity.CRITICAL, subject=subject, detail=detail)
