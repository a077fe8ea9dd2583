"""Where a run keeps its work files: `audits/work/<run id>/` beside the journal.

A run of one process holds the lock in its folder, so that another one sees that it is alive; a run of the
fleet is alive as long as Redis says so.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tradepool.audit.report import AUDITS_NAME
from tradepool.errors import Misconfigured, PoolLocked
from tradepool.files.durable import FileLock, prepare_folder

__all__ = ["WorkFolder"]

_FOLDER = Path(AUDITS_NAME) / "work"
_LOCK_NAME = "lock"
_DEAD_AFTER_S = 600.0
"""A younger folder is left alone: its run may not have locked or announced it yet."""
_TOKEN_BYTES = 4


class WorkFolder:
    """The work folders of the runs of one pool, whose files are in `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / _FOLDER

    def of_run(self, run_id: str) -> Path:
        """The folder of a run, which may not exist."""
        return self._path / run_id

    def fresh(self, run_id: str, part: str) -> Path:
        """A name for the files of one attempt at a part: two that run at once share none.

        Raises: ResourceUnavailable when the run's folder cannot be created or written, Misconfigured when a
        file stands where it should be.
        """
        self._prepare(run_id)
        return self.of_run(run_id) / f"{part}.{secrets.token_hex(_TOKEN_BYTES)}"

    @contextmanager
    def held(self, run_id: str) -> Iterator[None]:
        """The folder of a run of this process, which goes at the end. Raises: as `fresh`."""
        self._prepare(run_id)
        try:
            with closing(FileLock(self.of_run(run_id) / _LOCK_NAME)):
                yield
        finally:
            self.remove(run_id)

    def _prepare(self, run_id: str) -> None:
        for folder in (self._path.parent, self._path):
            if folder.is_file():
                raise Misconfigured(f"{folder} is a file, and audits need a folder there; move it away")
        prepare_folder(self.of_run(run_id))

    def remove(self, run_id: str) -> None:
        """Remove what a run has left, as far as that can be done."""
        shutil.rmtree(self.of_run(run_id), ignore_errors=True)

    def sweep(self, alive: Collection[str]) -> None:
        """Remove the folders of runs that are dead: not `alive`, not locked, and not young."""
        try:
            folders = list(self._path.iterdir())
        except OSError:
            return
        for folder in folders:
            if folder.name not in alive and _is_dead(folder):
                self.remove(folder.name)


def _is_dead(folder: Path) -> bool:
    with suppress(OSError, PoolLocked):
        if time.time() - folder.stat().st_mtime < _DEAD_AFTER_S:
            return False
        if not (folder / _LOCK_NAME).exists():
            return True
        FileLock(folder / _LOCK_NAME).close()
        return True
    return False
