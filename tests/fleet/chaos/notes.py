"""What the processes of a run note down for whoever judges them: files that are only ever appended to."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Self

import msgspec

__all__ = ["ClientNotes", "Note", "client_notes", "read_notes", "worker_notes"]


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client has seen happen: `begun`, `handed` and `confirmed` windows, or its own `resumed`."""

    what: str
    window: int = -1
    at: float = 0.0
    """Seconds since 1970."""
    commands: int = 0
    call_s: float = 0.0
    """The longest that one call of the client took."""


class ClientNotes:
    """Written line by line, each in one call to the system: a kill leaves whole lines. A context manager."""

    def __init__(self, path: Path) -> None:
        self.before = read_notes(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, window: int = -1, *, commands: int = 0, call_s: float = 0.0) -> None:
        """Add a note of now."""
        note = Note(what=what, window=window, at=time.time(), commands=commands, call_s=call_s)
        os.write(self._file, msgspec.json.encode(note) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def read_notes(path: Path) -> list[Note]:
    """All notes in the file; none where there is no file yet."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Note) for line in path.read_bytes().splitlines()]


def client_notes(folder: Path, client: int) -> Path:
    """Where a client notes what it has handed in."""
    return folder / f"client-{client}.jsonl"


def worker_notes(folder: Path) -> Counter[str]:
    """How many messages came to workers as `redelivered`, and commands by outcome, but for `applied`."""
    counts: Counter[str] = Counter()
    for path in folder.glob("worker-*.txt"):
        for line in path.read_text(encoding="ascii").splitlines():
            what, _, count = line.partition(" ")
            counts[what] += int(count)
    return counts
