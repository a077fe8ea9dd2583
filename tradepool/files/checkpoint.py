"""`journal.checkpoint`: where the journal stood at some commit, so that opening reads only what follows.

The file is a short cut, never a source: it is used only when it is whole and belongs to this very
journal, and a missing or damaged one costs a scan of the active segment. What it may not be is ahead
of the journal: then confirmed lines are missing from the log, and that is not to be passed over.
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import msgspec

from tradepool.errors import SequenceGap
from tradepool.files.durable import replacing
from tradepool.files.point import JournalPoint
from tradepool.files.segments import active_header, holds

__all__ = ["CHECKPOINT_NAME", "checkpoint_of", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_NAME = "journal.checkpoint"

_FORMAT = 1
_CRC_BYTES = 8


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True, rename={"format": "tradepool_checkpoint"}):
    format: int
    journal: str
    point: JournalPoint


_DECODER = msgspec.json.Decoder(_Checkpoint)


def checkpoint_of(log: Path) -> Path:
    """Where the checkpoint of the journal at `log` is."""
    return log.with_name(CHECKPOINT_NAME)


def save_checkpoint(log: Path, journal_id: str, point: JournalPoint) -> None:
    """Keep `point` as the place to start reading from; durable on return. Raises: OSError."""
    checkpoint = _Checkpoint(format=_FORMAT, journal=journal_id, point=point)
    body = msgspec.json.encode(checkpoint)
    with replacing(checkpoint_of(log)) as file:
        file.write(b"%b %08x\n" % (body, zlib.crc32(body)))


def load_checkpoint(log: Path, journal_id: str) -> JournalPoint | None:
    """The saved point of this very journal; None when there is none, or none that can be trusted.

    None, too, when it lies in a finished segment: the header of the active one is newer.

    Raises: SequenceGap when the log lacks lines that were committed before the checkpoint.
    """
    point = _read(checkpoint_of(log), journal_id)
    if point is None:
        return None
    active = active_header(log)[0].segment
    if active < point.segment or (active == point.segment and log.stat().st_size < point.offset):
        raise SequenceGap(
            f"{log} ends before byte {point.offset} of segment {point.segment}, up to which it was "
            f"confirmed; restore it from a backup, or remove {CHECKPOINT_NAME} to accept the loss"
        )
    return point if active == point.segment and holds(log, point) else None


def _read(path: Path, journal_id: str) -> JournalPoint | None:
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        body, _, crc = path.read_bytes().rstrip(b"\n").rpartition(b" ")
        if int(crc, 16) == zlib.crc32(body) and len(crc) == _CRC_BYTES:
            checkpoint = _DECODER.decode(body)
            if checkpoint.format == _FORMAT and checkpoint.journal == journal_id:
                return checkpoint.point
    return None
