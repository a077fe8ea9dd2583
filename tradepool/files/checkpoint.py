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

from tradepool.errors import ChecksumMismatch, SequenceGap
from tradepool.files.durable import replacing
from tradepool.files.point import JournalPoint
from tradepool.files.scanning import line_number
from tradepool.files.segments import active_header, finished_segments, holds, open_segment

__all__ = [
    "CHECKPOINT_NAME",
    "Checkpoint",
    "check_not_lost",
    "check_reached",
    "checkpoint_of",
    "load_checkpoint",
    "save_checkpoint",
    "saved_checkpoint",
]

CHECKPOINT_NAME = "journal.checkpoint"

_FORMAT = 2
_CRC_BYTES = 8


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, rename={"format": "tradepool_checkpoint"}):
    """A place to start reading from, and how far the active segment was committed when it was kept.

    The place is that before the last group, so that whoever starts there proves the group again.
    """

    format: int
    journal: str
    point: JournalPoint
    reached: int


_DECODER = msgspec.json.Decoder(Checkpoint)


def checkpoint_of(log: Path) -> Path:
    """Where the checkpoint of the journal at `log` is."""
    return log.with_name(CHECKPOINT_NAME)


def save_checkpoint(log: Path, journal_id: str, point: JournalPoint, *, reached: int) -> None:
    """Keep `point` as the place to start reading from; durable on return.

    `reached` is the byte of the same segment where the last commit ends. Raises: OSError.
    """
    checkpoint = Checkpoint(format=_FORMAT, journal=journal_id, point=point, reached=reached)
    body = msgspec.json.encode(checkpoint)
    with replacing(checkpoint_of(log)) as file:
        file.write(b"%b %08x\n" % (body, zlib.crc32(body)))


def load_checkpoint(log: Path, journal_id: str) -> JournalPoint | None:
    """The saved point of this very journal; None when there is none, or none that can be trusted.

    None, too, when it lies in a finished segment: the header of the active one is newer.

    Raises: SequenceGap when the log lacks lines that were committed before the checkpoint.
    """
    saved = saved_checkpoint(log, journal_id)
    if saved is None:
        return None
    point = saved.point
    active = active_header(log)[0].segment
    if active < point.segment or (active == point.segment and log.stat().st_size < saved.reached):
        raise SequenceGap(
            f"{log} ends before byte {saved.reached} of segment {point.segment}, up to which it was "
            f"confirmed; restore it from a backup, or remove {CHECKPOINT_NAME} to accept the loss"
        )
    return point if active == point.segment and holds(log, point) else None


def saved_checkpoint(log: Path, journal_id: str) -> Checkpoint | None:
    """What the checkpoint of this very journal says; None when there is none that can be read."""
    return _read(checkpoint_of(log), journal_id)


def check_not_lost(log: Path) -> None:
    """Make sure that a folder without a log is one that never had any. Raises: SequenceGap."""
    if not log.parent.is_dir():
        return
    left = [checkpoint_of(log), *(file for files in finished_segments(log).values() for file in files)]
    if found := [file.name for file in left if file.exists()]:
        raise SequenceGap(
            f"{log} is gone, but {found[0]} is there; put the log back, "
            "or move the whole folder away to begin an empty pool"
        )


def check_reached(log: Path, saved: Checkpoint | None, point: JournalPoint) -> None:
    """Make sure that reading, which ended at `point`, saw all that is committed by the `saved` checkpoint.

    A damaged last commit looks like a torn tail; the checkpoint tells them apart.

    Raises: ChecksumMismatch naming the damaged line.
    """
    if saved is not None and saved.point.segment == point.segment and point.offset < saved.reached:
        with open_segment(log, point.segment) as segment:
            number = line_number(segment, point.offset)
        raise ChecksumMismatch(
            f"{log}:{number}: damaged here or in the lines after it, which were committed; restore the file "
            f"from a backup, or remove {CHECKPOINT_NAME} to accept the loss"
        )


def _read(path: Path, journal_id: str) -> Checkpoint | None:
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        body, _, crc = path.read_bytes().rstrip(b"\n").rpartition(b" ")
        if int(crc, 16) == zlib.crc32(body) and len(crc) == _CRC_BYTES:
            checkpoint = _DECODER.decode(body)
            if checkpoint.format == _FORMAT and checkpoint.journal == journal_id:
                return checkpoint
    return None
