"""Made-up journal entries, and journals written with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.waiting import eventually
from tradepool.files.checkpoint import checkpoint_of
from tradepool.files.journal import Journal
from tradepool.files.lines import NewLine, spelled
from tradepool.files.point import Place
from tradepool.files.segments import finished_segments
from tradepool.model.codec import digest_of

SHARDS = 4
SEGMENT_BYTES = 3000
"""From which size on `write_segments` finishes a segment."""


def entry(record_id: str, version: int, *, shard: int = 1, position: str = "1-1", size: int = 0) -> NewLine:
    """Version `version` of a record; its content follows from its name and version."""
    body = _body(record_id, version, size)
    previous = digest_of(_body(record_id, version - 1, size)) if version > 1 else ""
    return NewLine(
        shard=shard,
        position=position.encode(),
        place=0,
        kind=b"t",
        record_id=spelled(record_id.encode()),
        command_id=b"command-%d" % version,
        task_id=b"",
        version=version,
        digest=digest_of(body).encode(),
        previous=previous.encode(),
        status=b"p",
        record=body,
    )


def group(shard: int) -> list[NewLine]:
    """Two records of `shard`, one commit."""
    return [entry(f"{shard}-{name}", 1, shard=shard, position=f"{shard}-1") for name in "ab"]


def write_groups(log: Path, groups: Iterable[list[NewLine]], *, checkpoint: bool = True) -> None:
    """Append each group with a commit of its own, as a writer that then stops, or is killed."""
    kept = checkpoint_of(log).read_bytes() if checkpoint_of(log).exists() else None
    with Journal(log, SHARDS) as journal:
        for entries in groups:
            journal.append(entries)
            journal.commit({e.shard: f"{journal.point.offset}-0" for e in entries})
    if not checkpoint:
        _restore_checkpoint(log, kept)


def reopened(log: Path, *, checkpoint: bool = True) -> Journal:
    """The journal at `log`, opened again; without `checkpoint` closing it leaves the old one."""
    journal = Journal(log, SHARDS)
    if not checkpoint:
        journal._save_checkpoint = lambda: None
    return journal


def write_segments(log: Path, groups: int, *, compressed: bool = True) -> list[Place]:
    """A journal of `groups` groups of two entries, some to a segment; the place after each.

    On return all finished segments are compressed, or with `compressed=False` none is.
    """
    with Journal(log, SHARDS, segment_bytes=SEGMENT_BYTES) as journal:
        if not compressed:
            journal._sealer._begin = lambda: None
        places = [commit_numbered(journal, number) for number in range(1, groups + 1)]
        if compressed:
            eventually(lambda: all(path.suffix == ".zst" for path in finished_files(log)))
    return places


def commit_numbered(journal: Journal, number: int) -> Place:
    """Commit two entries named after `number`; the place after them."""
    position = f"{number}-0"
    shard = number % SHARDS
    names = (f"{number}-a", f"{number}-b")
    journal.append(entry(name, 1, shard=shard, position=position, size=300) for name in names)
    journal.commit({shard: position})
    return journal.point


def finished_files(log: Path) -> list[Path]:
    """The files of finished segments, in order."""
    return [path for paths in finished_segments(log).values() for path in paths]


def _restore_checkpoint(log: Path, kept: bytes | None) -> None:
    checkpoint_of(log).unlink()
    if kept is not None:
        checkpoint_of(log).write_bytes(kept)


def _body(record_id: str, version: int, size: int) -> bytes:
    return msgspec.json.encode({"trade_id": record_id, "version": version, "pad": "x" * size})
