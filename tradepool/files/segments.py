"""Where the journal's segments are: the active one under its own name, finished ones under their numbers.

`trade_pool.log` is being written. `trade_pool.00000001.log` and so on are finished; the journal's owner
compresses them to `….log.zst`. The first line of a segment says how the one before it ended, so the end
of a finished segment is known without reading it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tradepool.errors import ChecksumMismatch, Corrupt, JournalUnavailable, SequenceGap
from tradepool.files.compression import InflateError, inflating
from tradepool.files.header import Ending, Header, parse_header
from tradepool.files.lines import SUFFIX_BYTES, suffix
from tradepool.files.point import JournalPoint, Place

__all__ = [
    "Segment",
    "active_header",
    "check_present",
    "compressed_path",
    "ending_of",
    "finished_segments",
    "holds",
    "open_segment",
    "sealed_path",
    "unreadable",
]

_BUFFER_BYTES = 1 << 20


class Segment(NamedTuple):
    """A segment open for reading, just behind its header."""

    path: Path
    file: BufferedReader
    header: Header
    start: JournalPoint
    """Where the journal stood after the header."""
    line: bytes
    """The header's line, as it was read."""


def sealed_path(log: Path, number: int) -> Path:
    """The name of finished segment `number` of the journal whose active one is `log`."""
    return log.with_name(f"{log.stem}.{number:08d}{log.suffix}")


def compressed_path(log: Path, number: int) -> Path:
    """The name that finished segment `number` has once it is compressed."""
    return log.with_name(f"{sealed_path(log, number).name}.zst")


def finished_segments(log: Path) -> dict[int, list[Path]]:
    """The files of finished segments by number, as they lie in the folder, uncompressed first."""
    pattern = re.compile(rf"{re.escape(log.stem)}\.(\d{{8,}}){re.escape(log.suffix)}(\.zst)?")
    found: dict[int, list[Path]] = {}
    for path in sorted(log.parent.iterdir()):
        if match := pattern.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)
    return found


def active_header(log: Path) -> tuple[Header, JournalPoint]:
    """The header of the active segment, and where the journal stood after it.

    Raises: ChecksumMismatch when it is damaged, Misconfigured when it is of another format,
    JournalUnavailable when the file cannot be read.
    """
    with _opened(log) as file:
        return parse_header(_first_line(file, log), str(log))


def holds(log: Path, place: Place) -> bool:
    """Whether in the active segment a line ends at `place` and claims its checksum.

    Raises: JournalUnavailable when the file cannot be read.
    """
    with _opened(log) as file:
        file.seek(max(0, place.offset - SUFFIX_BYTES))
        return file.read(SUFFIX_BYTES) == suffix(place.crc)


@contextmanager
def open_segment(log: Path, number: int) -> Iterator[Segment]:
    """Segment `number`, wherever it is by now: active, finished or compressed. Closed at the end.

    Raises: SequenceGap when it is missing, and as `active_header`.
    """
    path = log
    file = _opened(log)
    try:
        line = _first_line(file, log)
        header, start = parse_header(line, str(log))
        if header.segment != number:
            file.close()
            # A finished segment gets its number before it loses the active name, and its compressed
            # file is there before the other one goes: looked for in this order it is always found.
            path, file = _open_finished(log, number, header.segment)
            line = _first_line(file, path)
            found, start = parse_header(line, str(path))
            _check_belongs(path, found, header, number)
            header = found
        yield Segment(path, file, header, start, line)
    finally:
        file.close()


def ending_of(log: Path, number: int) -> tuple[Ending, JournalPoint] | None:
    """How segment `number` ended and where the next one begins; None while it is the active one.

    Raises: as `open_segment` of the next one does.
    """
    header, start = active_header(log)
    if header.segment == number:
        return None
    if header.segment != number + 1:
        with open_segment(log, number + 1) as segment:
            header, start = segment.header, segment.start
    if header.before is None:
        raise Corrupt(f"segment {number + 1} of {log} does not say how segment {number} ended")
    return header.before, start


def check_present(log: Path, first: int) -> None:
    """See that the segments from `first` on are there. Raises: SequenceGap naming those that are not."""
    active = active_header(log)[0].segment
    missing = [number for number in range(first, active) if not _is_present(log, number)]
    if missing:
        raise _missing(log, missing)


def _is_present(log: Path, number: int) -> bool:
    return sealed_path(log, number).exists() or compressed_path(log, number).exists()


def _open_finished(log: Path, number: int, active: int) -> tuple[Path, BufferedReader]:
    if number > active:
        raise SequenceGap(
            f"{log} is segment {active}, but segment {number} was begun: the newest log is missing; "
            "restore it from a backup"
        )
    path = sealed_path(log, number)
    try:
        return path, _buffered(path)
    except FileNotFoundError:
        path = compressed_path(log, number)
    except OSError as problem:
        raise unreadable(path, problem) from problem
    try:
        return path, inflating(path)
    except FileNotFoundError:
        raise _missing(log, [number]) from None
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _missing(log: Path, numbers: list[int]) -> SequenceGap:
    first, last = compressed_path(log, numbers[0]).name, compressed_path(log, numbers[-1]).name
    names = first if len(numbers) == 1 else f"{first} to {last} ({len(numbers)} files)"
    return SequenceGap(f"{log.parent}: {names} missing, which this needs; put back what was moved away")


def _check_belongs(path: Path, found: Header, active: Header, number: int) -> None:
    if (found.id, found.segment) != (active.id, number):
        raise ChecksumMismatch(
            f"{path}:1: is segment {found.segment} of journal {found.id}, not segment {number} of "
            f"journal {active.id}; put the right file back"
        )


def _first_line(file: BufferedReader, path: Path) -> bytes:
    try:
        return file.readline()
    except InflateError as damage:
        raise ChecksumMismatch(f"{path}:1: damaged ({damage}); restore the file from a backup") from damage
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _opened(path: Path) -> BufferedReader:
    try:
        return _buffered(path)
    except OSError as problem:
        raise unreadable(path, problem) from problem


def _buffered(path: Path) -> BufferedReader:
    return BufferedReader(path.open("rb", buffering=0), _BUFFER_BYTES)


def unreadable(path: Path, problem: OSError) -> JournalUnavailable:
    """What `problem` with a file of the journal is to whoever wanted to read it."""
    return JournalUnavailable(f"{path} cannot be read: {problem.strerror}")
