"""Where the archive keeps what: `archive/day=YYYY-MM-DD/part-<n>.parquet`, and which part is unsettled."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from tradepool.errors import Corrupt
from tradepool.files.durable import FileLock, prepare_folder, replacing

__all__ = ["ARCHIVE_NAME", "ArchiveFolder", "day_of", "day_of_part"]

ARCHIVE_NAME = "archive"

_LOCK_NAME = "archive.lock"
_UNSETTLED_NAME = "unsettled"
_CLOCK_NAME = "clock"
_DAY_PREFIX = "day="
_PART = re.compile(r"part-([0-9]{5,})\.parquet")
_UNSETTLED = re.compile(r"(day=[0-9]{4}-[0-9]{2}-[0-9]{2})/(part-[0-9]{5,}\.parquet)")


def day_of(time_us: int) -> str:
    """The UTC day of a time in µs, `YYYY-MM-DD`."""
    return datetime.fromtimestamp(time_us // 1_000_000, tz=UTC).strftime("%Y-%m-%d")


def day_of_part(part: Path) -> str:
    """The day that a part of the archive is of."""
    return part.parent.name.removeprefix(_DAY_PREFIX)


class ArchiveFolder:
    """The files of one archive; one process at a time writes them (`lock`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether there is an archive on this machine: some day's folder, not just the place for one."""
        return bool(self.days())

    @property
    def clock_mark(self) -> Path:
        """What `steady_clock` keeps between runs of archiving."""
        return self.path / _CLOCK_NAME

    def lock(self) -> FileLock:
        """The writer's lock; creates the folder. Raises: PoolLocked, ResourceUnavailable."""
        prepare_folder(self.path)
        return FileLock(self.path / _LOCK_NAME)

    def days(self, *, since: str = "") -> list[str]:
        """The days that have a folder, from `since` on, in order."""
        try:
            # Names alone: every page of trades asks, and years of days make thousands of paths.
            names = os.listdir(self.path)  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []
        first = _DAY_PREFIX + since
        return sorted(
            name.removeprefix(_DAY_PREFIX) for name in names if name.startswith(_DAY_PREFIX) and name >= first
        )

    def parts(self) -> list[Path]:
        """Every part, in order of the days."""
        return [part for day in self.days() for part in self.parts_of(day)]

    def parts_of(self, day: str) -> list[Path]:
        """The parts of one day, in order."""
        folder = self._folder_of(day)
        if not folder.is_dir():
            return []
        return sorted(entry for entry in folder.iterdir() if _PART.fullmatch(entry.name))

    def next_part(self, day: str) -> Path:
        """The name of the day's next part; creates the day's folder."""
        folder = self._folder_of(day)
        prepare_folder(folder)
        numbers = [int(match[1]) for entry in folder.iterdir() if (match := _PART.fullmatch(entry.name))]
        return folder / f"part-{max(numbers, default=0) + 1:05d}.parquet"

    def mark_unsettled(self, part: Path) -> None:
        """Remember durably that rows of `part` may be of trades that are not archived."""
        with replacing(self.path / _UNSETTLED_NAME) as file:
            file.write(f"{part.relative_to(self.path)}\n".encode())

    def unsettled(self) -> Path | None:
        """The part that was being archived when its writer ended. Raises: Corrupt."""
        try:
            text = (self.path / _UNSETTLED_NAME).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        match = _UNSETTLED.fullmatch(text)
        if match is None:
            raise Corrupt(
                f"{self.path / _UNSETTLED_NAME} names no part of the archive; write into it the path of the "
                "newest one, as day=2026-11-15/part-00003.parquet"
            )
        return self.path / match[1] / match[2]

    def unsettled_since(self) -> int | None:
        """When a part was last marked unsettled, µs; None while all are settled."""
        try:
            return (self.path / _UNSETTLED_NAME).stat().st_mtime_ns // 1000
        except FileNotFoundError:
            return None

    def mark_settled(self) -> None:
        """Every row of every part is of an archived trade."""
        (self.path / _UNSETTLED_NAME).unlink(missing_ok=True)

    def _folder_of(self, day: str) -> Path:
        return self.path / f"{_DAY_PREFIX}{day}"
