"""The folder `audits`: each report whole in a file of its own, and the page.

Files are written beside their names and renamed, under other names by each writer: audits that end at once
keep both reports, and nobody reads half a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tradepool.audit.report import AUDITS_NAME
from tradepool.files.durable import FILE_MODE, fsync_folder
from tradepool.store.audit_reports import ReportName

__all__ = ["PAGE_NAME", "ReportFolder"]

PAGE_NAME = "index.html"

_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([a-z]+)-([0-9A-Za-z_-]+)\.json")
_FRESH = ".new"
_FRESH_AGE_MAX_S = 3600.0
"""What a writer that was killed has left is removed after this long."""


class ReportFolder:
    """Reports of the pool whose folder is `data_dir`. All methods raise OSError."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / AUDITS_NAME

    def file_of(self, name: ReportName) -> Path:
        """The file of a report, whether or not it is there."""
        at = datetime.fromtimestamp(name.started_at // 1_000_000, UTC)
        time = at.replace(microsecond=name.started_at % 1_000_000).strftime(_TIME)
        return self.path / f"{time}-{name.level}-{name.run_id}.json"

    def write(self, name: ReportName, value: bytes, *, replace: bool) -> None:
        """Write a report; on return it is on disk. One that is there stays unless it is to `replace` that."""
        self._prepare()
        path = self.file_of(name)
        if replace or not path.exists():
            _put(path, value, durable=True)
            fsync_folder(self.path)

    def write_page(self, page: str, path: Path | None = None) -> Path:
        """Put the page in the place of the last one, here or at `path`; where it is."""
        if path is None:
            self._prepare()
        written = path or self.path / PAGE_NAME
        _put(written, page.encode(errors="backslashreplace"), durable=False)
        return written

    def page_written_at(self) -> int | None:
        """When the page was written, µs since 1970; None when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / PAGE_NAME).stat().st_mtime_ns // 1000
        return None

    def names(self) -> list[ReportName]:
        """The reports that are here, oldest first; none where there is no folder."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for path in self.path.iterdir() if (name := _name_of(path)) is not None)
        return []

    def read(self, name: ReportName) -> bytes | None:
        """A report as JSON; None when it is not here."""
        with contextlib.suppress(FileNotFoundError):
            return self.file_of(name).read_bytes()
        return None

    def drop(self, names: Iterable[ReportName], now_s: float) -> None:
        """Remove these reports, and what killed writers have left behind by `now_s` (since 1970)."""
        for name in names:
            self.file_of(name).unlink(missing_ok=True)
        for path in self.path.glob(f"*{_FRESH}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now_s - _FRESH_AGE_MAX_S:
                    path.unlink()

    def _prepare(self) -> None:
        # Without its parent: that would look like a pool's folder, on a machine that has none.
        self.path.mkdir(exist_ok=True)


def _name_of(path: Path) -> ReportName | None:
    parts = _NAME.fullmatch(path.name)
    if parts is None:
        return None
    at = datetime.strptime(parts[1], _TIME).replace(tzinfo=UTC)
    return ReportName(
        int(at.replace(microsecond=0).timestamp()) * 1_000_000 + at.microsecond, parts[2], parts[3]
    )


def _put(path: Path, value: bytes, *, durable: bool) -> None:
    fresh: Path | None = None
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=_FRESH)
        fresh = Path(name)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, FILE_MODE)
            file.write(value)
            file.flush()
            if durable:
                os.fsync(fd)
        fresh.replace(path)
    except OSError as problem:
        # Without the random name: the same trouble in the same words is told once.
        raise OSError(problem.errno, problem.strerror, str(path.parent)) from problem
    finally:
        if fresh is not None:
            fresh.unlink(missing_ok=True)
