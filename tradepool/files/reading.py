"""Reading the journal across its segments: in order, checked, while its owner goes on writing.

Any number of processes read. A segment may be finished or compressed under a reader: it keeps the file
that it has open, and finds the next one by its number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from tradepool.errors import ChecksumMismatch
from tradepool.files.checkpoint import load_checkpoint
from tradepool.files.compression import InflateError
from tradepool.files.header import Ending
from tradepool.files.lines import JournalLine
from tradepool.files.point import JournalPoint, Place
from tradepool.files.scanning import Damage, Group, Scan, damage_error
from tradepool.files.segments import active_header, check_present, ending_of, open_segment

__all__ = [
    "Group",
    "Latest",
    "holds_place",
    "points_back",
    "read_groups",
    "read_lines",
    "read_segment",
    "segment_start",
]


class Latest(NamedTuple):
    """The newest journaled version of a record."""

    version: int
    digest: str
    position: str


def read_groups(path: Path, *, since: Place | None = None) -> Iterator[Group]:
    """Every committed group after `since` (None: from the start), in order, checked, over all segments.

    Ends at the last commit of the active segment. Memory is bounded by one group.

    Raises: ChecksumMismatch and SequenceGap with file and line; SequenceGap when a segment from `since`
    on is missing; JournalUnavailable when unreadable.
    """
    place: Place | None = since
    if since is None:
        place = _beginning(path)
    else:
        check_present(path, since.segment + 1)
    while place is not None:
        place = yield from _rest_of_segment(path, place)


def read_lines(
    path: Path, *, since: Place | None = None, until: Place | None = None
) -> Iterator[JournalLine]:
    """Every committed entry after `since` (None: from the start), in order.

    The log may hold one group more than its owner has confirmed, whose fsync failed or is under way. Who
    means only what is confirmed names the journal's point as `until`.

    Raises: as `read_groups`.
    """
    for group in read_groups(path, since=since):
        if until is not None and group.end.seq > until.seq:
            return
        yield from group.entries()


def segment_start(path: Path, number: int) -> Place:
    """The place behind the header of segment `number`. Raises: as `open_segment`."""
    with open_segment(path, number) as segment:
        return segment.start


def read_segment(path: Path, since: Place) -> Iterator[Group]:
    """Every committed group that follows `since` in its segment, in order, checked.

    Ends at the segment's end, or at the last commit of the active one. Memory is bounded by one group.

    Raises: as `read_groups`, of this segment.
    """
    yield from _rest_of_segment(path, since)


def points_back(path: Path) -> Iterator[JournalPoint]:
    """States of the journal from which reading may begin, newest first: the checkpoint, then the
    beginning of each segment down to the second.

    Raises: SequenceGap where a segment is missing, and as `open_segment`.
    """
    header, start = active_header(path)
    checkpoint = load_checkpoint(path, header.id)
    if checkpoint is not None:
        yield checkpoint
    for number in range(header.segment, 1, -1):
        if number != header.segment:
            with open_segment(path, number) as segment:
                start = segment.start
        yield start


def holds_place(path: Path, place: Place) -> bool:
    """Whether the journal still has the line that ended at `place`, so that reading may go on from there.

    Raises: SequenceGap when the segment or the one after it is missing, and as `open_segment`.
    """
    ending = ending_of(path, place.segment)
    if ending is not None and _is_at_end(place, ending[0]):
        return True
    with open_segment(path, place.segment) as segment:
        try:
            Scan(segment, place, None).seek()
        except ChecksumMismatch:
            return False
        except InflateError:
            # Whoever reads the damaged segment says where.
            return True
    return True


def _beginning(path: Path) -> Place:
    """The place behind the very first header. Raises: SequenceGap unless every segment is there."""
    check_present(path, 1)
    return segment_start(path, 1)


def _rest_of_segment(path: Path, place: Place) -> Generator[Group, None, Place | None]:
    """What follows `place` in its segment; returns where the next segment begins, if there is one."""
    seen: Damage | None = None
    number = place.segment
    ending = ending_of(path, number)
    while ending is None or seen is not None or not _is_at_end(place, ending[0]):
        with open_segment(path, number) as segment:
            scan = Scan(segment, place, ending[0].point if ending else None)
            yield from scan
        place = scan.place
        # Read twice: the writer may have cut a failed write back, and written on, under the first look.
        if scan.damage is not None and scan.damage == seen:
            raise damage_error(path, number, scan.damage)
        seen = scan.damage
        was_active, ending = ending is None, ending_of(path, number)
        if seen is None and was_active and ending is None:
            return None
    return ending[1]


def _is_at_end(place: Place, ending: Ending) -> bool:
    return (place.offset, place.crc) == (ending.point.offset, ending.point.crc)
