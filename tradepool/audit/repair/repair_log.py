"""`audits/repairs.log`: what repairs set out to write, and what came of it, a line of JSON each."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tradepool.audit.repair.fixes import Fix
from tradepool.audit.report import AUDITS_NAME, RepairState
from tradepool.errors import ResourceUnavailable
from tradepool.files.durable import append_lines, prepare_folder

__all__ = ["LOG_NAME", "LogLine", "RepairLog"]

LOG_NAME = "repairs.log"


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`planned` stands before anything is written, `done` or `refused` after it."""

    at: int
    """µs since 1970."""
    repair: str
    """The same for all lines of one repair."""
    state: str
    action: str
    subject: str
    detail: str
    overwrites: str = ""
    """The record that was in the store, as JSON if it could be read, else in hex."""


class RepairLog:
    """The log in the folder `audits` of `data_dir`; several processes may write to it."""

    def __init__(self, data_dir: Path, repair: str) -> None:
        self._path = data_dir / AUDITS_NAME / LOG_NAME
        self._repair = repair

    def tell(self, fix: Fix, state: RepairState, at: int, reason: str | None = None) -> None:
        """Write one line; on return it is on disk. Raises: ResourceUnavailable."""
        step = fix.step(state, reason)
        line = LogLine(
            at=at,
            repair=self._repair,
            state=state,
            action=step.action,
            subject=step.subject,
            detail=step.detail,
            overwrites=fix.overwrites if state is RepairState.PLANNED else "",
        )
        self._append(msgspec.json.encode(line) + b"\n")

    def _append(self, line: bytes) -> None:
        prepare_folder(self._path.parent)
        try:
            append_lines(self._path, line)
        except OSError as problem:
            why = f"{self._path}: {problem.strerror}; repairs tell there first what they write"
            raise ResourceUnavailable(why) from problem
