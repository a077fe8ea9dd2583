"""A book as a file, to start from: its columns, and a note of where in the journal they were taken."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tradepool.errors import Corrupt, PoolLocked, ResourceUnavailable
from tradepool.files.durable import FileLock, prepare_folder, replacing
from tradepool.files.point import Place
from tradepool.files.tailing import Tail
from tradepool.marking.following import Following
from tradepool.marking.positions import ROWS_FORMAT
from tradepool.pnl.book import Book
from tradepool.pnl.book.files import dump, load

__all__ = ["FOLDER_NAME", "Contents", "SavedBook", "UnusableError"]

FOLDER_NAME = "book"
"""The folder of `data_dir` with saved books."""


class UnusableError(Exception):
    """There is no saved book that can be started from; the message says why."""


class Contents(NamedTuple):
    """What a book is of: whose journal it follows, and which of how many shards it has."""

    journal: str
    shard_count: int
    shards: list[int]


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    rows_format: int
    contents: Contents
    place: Place
    positions: dict[int, str]


class _NotNowError(Exception):
    """There is no book that could be saved."""


class SavedBook:
    """The file of the book of part `part` of `parts`, in `data_dir`.

    Several processes may keep the same part: one saves at a time, and what the last one saved is there.
    """

    def __init__(self, data_dir: Path, part: int, parts: int) -> None:
        self._folder = data_dir / FOLDER_NAME
        self.path = self._folder / f"{part}-of-{parts}.columns"

    def load(self, log: Path, contents: Contents) -> tuple[Book, Tail]:
        """The book, and the tail of the journal at `log` from where it was saved.

        Raises: UnusableError when there is none, it is damaged, of other contents or of another release.
        """
        try:
            with self.path.open("rb") as file:
                book, text = load(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            note = msgspec.json.decode(text, type=_Note)
        except FileNotFoundError:
            raise UnusableError("none was saved") from None
        except (OSError, ValueError, Corrupt, msgspec.MsgspecError) as problem:
            raise UnusableError(f"{self.path}: {problem}") from problem
        if (note.rows_format, note.contents) != (ROWS_FORMAT, contents):
            raise UnusableError(f"{self.path} is of {note.contents}, format {note.rows_format}")
        return book, Tail(log, contents.journal, note.place, note.positions)

    def save(
        self,
        current: Callable[[], Following | None],
        contents: Callable[[str], Contents],
        lock: AbstractContextManager[object],
    ) -> bool:
        """Save the `current` book, all of it or nothing; False when there is none or somebody else is saving.

        `contents` makes them of a journal's id. `lock` is held while the book is read, not while the disk is
        waited for.

        Raises: ResourceUnavailable when the disk is full or the folder cannot be written.
        """
        prepare_folder(self._folder)
        try:
            with closing(FileLock(self.path.with_suffix(".lock"))), replacing(self.path) as file, lock:
                _write(file, current(), contents)
        except (PoolLocked, _NotNowError):
            return False
        except OSError as problem:
            raise ResourceUnavailable(f"{self.path} cannot be written: {problem.strerror}") from problem
        return True

    def discard(self) -> None:
        """Have the next book be built from the store. Raises: ResourceUnavailable."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as problem:
            raise ResourceUnavailable(f"{self.path} cannot be removed: {problem.strerror}") from problem


def _write(file: BinaryIO, following: Following | None, contents: Callable[[str], Contents]) -> None:
    if following is None:
        raise _NotNowError
    tail = following.tail
    note = _Note(
        rows_format=ROWS_FORMAT,
        contents=contents(tail.journal_id),
        place=tail.place,
        positions=tail.positions,
    )
    file.writelines(dump(following.book, msgspec.json.encode(note)))
