"""The data folder as whoever watches sees it: how old snapshot and archive are, and what room is left."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tradepool.archive.folder import ARCHIVE_NAME, ArchiveFolder
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.snapshot_info import load_snapshot

__all__ = ["FolderState", "read_folder"]


class FolderState(msgspec.Struct, frozen=True, kw_only=True):
    """A data folder at one moment; times in µs, None for what is not there."""

    snapshot_at: int | None
    archived_at: int | None
    """When the newest part of the archive was written."""
    unsettled_at: int | None
    """Since when a part of the archive waits to be settled: a run is at work, or has ended in the middle."""
    free_bytes: int
    size_bytes: int
    """Of its file system."""


def read_folder(data_dir: Path) -> FolderState | OSError | None:
    """The state of the pool's folder, or why it cannot be read; None where this machine does not have it."""
    try:
        (data_dir / JOURNAL_NAME).stat()
        return _state(data_dir)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        return problem


def _state(data_dir: Path) -> FolderState:
    disk = os.statvfs(data_dir)
    archive = ArchiveFolder(data_dir / ARCHIVE_NAME)
    snapshot = load_snapshot(data_dir)
    return FolderState(
        snapshot_at=None if snapshot is None else snapshot.at,
        archived_at=_archived_at(archive),
        unsettled_at=archive.unsettled_since(),
        free_bytes=disk.f_bavail * disk.f_frsize,
        size_bytes=disk.f_blocks * disk.f_frsize,
    )


def _archived_at(archive: ArchiveFolder) -> int | None:
    """By the newest day alone, which the last run has most likely added to: there may be years of days."""
    days = archive.days()
    parts = archive.parts_of(days[-1]) if days else ()
    return max((part.stat().st_mtime_ns // 1000 for part in parts), default=None)
