"""Reading on in a journal that grows: what is new since the last look, at hardly any cost if nothing is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, Self

from tradepool.errors import ChecksumMismatch, SequenceGap
from tradepool.files.lines import SUFFIX_BYTES, suffix
from tradepool.files.point import Place
from tradepool.files.reading import holds_place, points_back, read_groups
from tradepool.files.scanning import Group, Scan
from tradepool.files.segments import Segment, active_header, check_present, open_segment, unreadable
from tradepool.model.positions import START_POSITION, parse_position

__all__ = ["PlaceError", "Tail"]

_BATCH_LINES = 10_000
"""A batch ends with the group in which it comes to that many lines: that bounds memory."""
_BUFFER_BYTES = 1 << 18


class PlaceError(Exception):
    """The journal no longer has what was read of it last, so nobody can tell what follows."""


class _Look(NamedTuple):
    """What tells, without opening it, whether a file is as it was."""

    device: int
    inode: int
    size: int
    changed_ns: int


class Tail:
    """Reads the journal `journal_id` at `path` from `place` on, while its owner goes on writing.

    It opens a file for the moment of a read, and only where the log has changed, so it may be forked and
    needs no closing. One thread at a time. `positions` is the outbox position that each shard has reached at
    `place`, of the shards of which it is known.

    What is read is committed and may not be confirmed yet: a group whose fsync fails is cut off again. The
    read after that raises PlaceError.
    """

    def __init__(self, path: Path, journal_id: str, place: Place, positions: Mapping[int, str]) -> None:
        self.path = path
        self.journal_id = journal_id
        self.place = place
        self.positions = dict(positions)
        self._seen: _Look | None = None
        self._active: Segment | None = None
        """The segment of `place` when it was the active one; its file is closed."""

    @classmethod
    def at_end(cls, path: Path) -> Self:
        """A tail that begins behind the last commit; what there was before is read from the checkpoint on.

        Raises: as `read_groups`.
        """
        header, start = active_header(path)
        point = next(points_back(path), start)
        tail = cls(path, header.id, point, point.positions)
        for group in read_groups(path, since=point):
            tail._reach(group)
        return tail

    def read(self, take: Callable[[Sequence[Group]], object]) -> bool:
        """Give `take` the groups committed since the last read, in order, in batches; whether there were any.

        A batch counts as read once `take` has returned; should that raise, the next read begins with it.

        Raises: PlaceError when the log is gone, is another journal, or lacks what was read last or a segment
        from there on; else as `read_groups`.
        """
        look = _look(self.path)
        if look == self._seen:
            return False
        before, batch, lines = self.place, list[Group](), 0
        for group in self._groups():
            batch.append(group)
            lines += len(group.lines)
            if lines >= _BATCH_LINES:
                self._give(take, batch)
                batch, lines = [], 0
        self._give(take, batch)
        # The look is older than what was read: what came in between makes the next one differ.
        self._seen = look
        return self.place != before

    def check(self) -> None:
        """Make sure that reading can go on from the place.

        Raises: PlaceError as `read` would; ChecksumMismatch, JournalUnavailable.
        """
        _look(self.path)
        self._check(self.place)

    def behind(self, positions: Mapping[int, str]) -> list[int]:
        """The shards that have not been read up to their position in `positions`."""
        known = self.positions
        return [
            shard
            for shard, position in positions.items()
            if parse_position(known.get(shard, START_POSITION)) < parse_position(position)
        ]

    def _give(self, take: Callable[[Sequence[Group]], object], batch: Sequence[Group]) -> None:
        if batch:
            take(batch)
        for group in batch:
            self._reach(group)

    def _reach(self, group: Group) -> None:
        self.positions.update(group.commit.positions)
        self.place = group.end

    def _groups(self) -> Iterator[Group]:
        """What follows the place: in the active segment where that is known, else wherever it is by now."""
        place = self.place
        if self._active is not None:
            place, is_whole = yield from self._of_active(self._active)
            if is_whole:
                return
        self._check(place)
        try:
            for group in read_groups(self.path, since=place):
                yield group
                place = group.end
        except ChecksumMismatch:
            # A group that its writer has cut off since the check is no damage.
            self._check(place)
            raise
        with open_segment(self.path, place.segment) as segment:
            self._active = segment if segment.path == self.path else None

    def _of_active(self, known: Segment) -> Generator[Group, None, tuple[Place, bool]]:
        """The new groups of the segment that was active; the place behind them, and whether that was all."""
        place = self.place
        with _opened(self.path) as file:
            # Another segment may have the name by now; what the last line ends in tells them apart.
            if not _ends_a_line(file, place, self.path):
                return place, False
            scan = Scan(known._replace(file=file), place, None)
            yield from scan
        return scan.place, scan.damage is None

    def _check(self, place: Place) -> None:
        try:
            header, _ = active_header(self.path)
            if header.id != self.journal_id:
                raise PlaceError(f"{self.path} is journal {header.id} now, not {self.journal_id}")
            check_present(self.path, place.segment + 1)
            is_there = holds_place(self.path, place)
        except SequenceGap as gap:
            raise PlaceError(str(gap)) from gap
        if not is_there:
            raise PlaceError(
                f"{self.path}: the line that ended at byte {place.offset} of segment {place.segment}, "
                "up to which it was read, is not there any more"
            )


def _look(path: Path) -> _Look:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise PlaceError(f"{path} is gone") from None
    except OSError as problem:
        raise unreadable(path, problem) from problem
    return _Look(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _opened(path: Path) -> BufferedReader:
    try:
        return BufferedReader(path.open("rb", buffering=0), _BUFFER_BYTES)
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _ends_a_line(file: BufferedReader, place: Place, path: Path) -> bool:
    """Whether the line that ended at `place` is in `file`, which is left behind it."""
    try:
        file.seek(place.offset - SUFFIX_BYTES)
        return file.read(SUFFIX_BYTES) == suffix(place.crc)
    except OSError as problem:
        raise unreadable(path, problem) from problem
