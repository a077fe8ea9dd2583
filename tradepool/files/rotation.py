"""From one segment to the next, in steps of which a crash leaves all or nothing.

The next segment is made under another name; the active one gets its number as a second name; then the
next one takes the active name. Until that last step nothing has happened that counts, and what was
begun is taken back. After it the next segment is the active one. There is always an active one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tradepool.errors import Corrupt, SequenceGap
from tradepool.files.durable import FILE_MODE, fsync_folder
from tradepool.files.segments import active_header, finished_segments, sealed_path

__all__ = ["begin_segment", "take_back"]


def begin_segment(log: Path, finished: int, header: bytes) -> None:
    """Give the active segment at `log` its number `finished`; one that begins with `header` takes its place.

    The new names are durable once the folder is fsynced, which is the caller's part. On an error the
    segment stays the active one. Raises: OSError.
    """
    fresh = _fresh(log)
    try:
        _write(fresh, header)
        os.link(log, sealed_path(log, finished))
        # The old name must not be gone on disk before the new one is there.
        fsync_folder(log.parent)
        fresh.rename(log)
    except OSError:
        with contextlib.suppress(OSError):
            _remove_second_name(log, finished)
            fresh.unlink(missing_ok=True)
        raise


def take_back(log: Path) -> None:
    """Undo a rotation that a crash interrupted; after one that was finished there is nothing to undo.

    Raises: SequenceGap when a finished segment is newer than the active one, Corrupt when another file
    has the active one's number, OSError.
    """
    active = active_header(log)[0].segment
    _fresh(log).unlink(missing_ok=True)
    _remove_second_name(log, active)
    newest, paths = max(finished_segments(log).items(), default=(0, []))
    if newest > active or any(_is_newer(path, log) for path in paths if newest == active):
        raise SequenceGap(
            f"{log} is segment {active}, but {paths[0].name} is there: the newest log is missing; "
            "restore it from a backup"
        )
    if newest == active:
        raise Corrupt(
            f"{paths[0]} has the number of {log}; if it is a copy of that file, remove it: "
            "otherwise restore both from one backup"
        )


def _is_newer(finished: Path, log: Path) -> bool:
    """Whether a finished file with the active one's number cannot be a copy made during a rotation."""
    return finished.suffix != log.suffix or finished.stat().st_size > log.stat().st_size


def _fresh(log: Path) -> Path:
    return log.with_name(f"{log.name}.new")


def _write(fresh: Path, header: bytes) -> None:
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(header)
        file.flush()
        os.fsync(file.fileno())


def _remove_second_name(log: Path, number: int) -> None:
    second = sealed_path(log, number)
    if second.exists() and second.samefile(log):
        second.unlink()
