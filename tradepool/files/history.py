"""Every version of one record, found in the journal without reading all of it.

Who knows the newest version, and about when the record changed, is answered from the segments of those
times, in which bytes are searched and only the record's own lines are decoded. What is found is believed
only if it proves itself: each line by its checksum, and all together by being every version from the first
to the newest. Otherwise the journal is read and checked from its beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from tradepool.errors import Corrupt, Unavailable
from tradepool.files.compression import InflateError
from tradepool.files.lines import COMMIT_PREFIX, SUFFIX_BYTES, JournalLine, decode, next_crc, stored_crc
from tradepool.files.reading import read_groups
from tradepool.files.segments import Segment, active_header, open_segment

__all__ = ["read_history"]

_BLOCK_BYTES = 4 << 20
_COMMIT = b"\n" + COMMIT_PREFIX


def read_history(
    log: Path, record_id: str, *, newest: int | None = None, times: Sequence[int] = ()
) -> list[JournalLine]:
    """Every journaled version of one record, oldest first; none of a record that never was.

    `newest` is a version that must be among them, `times` (µs) when about the record changed: any may be
    wrong, then it takes longer. Memory is bounded by one group, and the versions.

    Raises: as `read_groups`.
    """
    found = None if newest is None else _found(log, record_id, newest, times)
    return _scanned(log, record_id) if found is None else found


def _scanned(log: Path, record_id: str) -> list[JournalLine]:
    """The same from the whole journal, checked."""
    quoted = _quoted(record_id)
    lines = (line for group in read_groups(log) for line in group.lines if quoted in line)
    return [entry for entry in (decode(line, JournalLine) for line in lines) if entry.record_id == record_id]


def _found(log: Path, record_id: str, newest: int, times: Sequence[int]) -> list[JournalLine] | None:
    """All versions from the likely segments; None when what is found there is not proven to be all."""
    versions: dict[int, JournalLine] = {}
    try:
        for number in _likely(log, times):
            with open_segment(log, number) as segment:
                versions |= {line.version: line for line in _lines_in(segment, record_id)}
            if newest in versions and len(versions) == max(versions):
                return [versions[version] for version in sorted(versions)]
    except (Corrupt, Unavailable, InflateError, OSError):
        # Whoever reads from the beginning says what is wrong, and where.
        return None
    return None


def _likely(log: Path, times: Sequence[int]) -> dict[int, None]:
    """Every segment's number once: those begun last before a time, what follows them, the others.

    A change is journaled soon after it is made, as far as clocks agree.
    """
    last = active_header(log)[0].segment

    @cache
    def begun_at(number: int) -> int:
        with open_segment(log, number) as segment:
            return segment.header.created

    numbers = range(1, last + 1)
    at = sorted({max(1, bisect_right(numbers, time, key=begun_at)) for time in times}, reverse=True)
    return dict.fromkeys([*at, *(number + 1 for number in at if number < last), *reversed(numbers)])


def _lines_in(segment: Segment, record_id: str) -> Iterator[JournalLine]:
    """The record's committed lines of one segment, in order. Raises: Corrupt when one is damaged."""
    quoted = _quoted(record_id)
    for block, end in _committed(segment):
        at = block.find(quoted, 0, end)
        while at >= 0:
            begin, after = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at) + 1
            line = block[begin:after]
            if not _follows(line, block[begin - SUFFIX_BYTES : begin]):
                raise Corrupt(f"{segment.path}: a line is damaged")
            entry = decode(line, JournalLine)
            # A caller's own JSON may look like the beginning of a line.
            if entry.record_id == record_id:
                yield entry
            at = block.find(quoted, after, end)


def _committed(segment: Segment) -> Iterator[tuple[bytes, int]]:
    """The segment in blocks that begin with the end of a line, and where the last commit in each ends.

    What follows the last commit of all is the rest of a write that nobody confirmed.
    """
    rest = segment.line[-SUFFIX_BYTES:]
    while part := segment.file.read(_BLOCK_BYTES):
        block = rest + part
        end = _end_of_commit(block)
        yield block, end
        rest = block[end - SUFFIX_BYTES :] if end else block


def _end_of_commit(block: bytes) -> int:
    """Where the last whole commit line of `block` ends; 0 when there is none."""
    begin = len(block)
    while (begin := block.rfind(_COMMIT, 0, begin)) >= 0:
        end = block.find(b"\n", begin + 1) + 1
        if end and _follows(block[begin + 1 : end], block[begin + 1 - SUFFIX_BYTES : begin + 1]):
            return end
    return 0


def _follows(line: bytes, before: bytes) -> bool:
    """Whether `line` has the checksum that follows from what the line that ends in `before` claims."""
    claimed = stored_crc(before)
    return claimed is not None and next_crc(line, claimed) is not None


def _quoted(record_id: str) -> bytes:
    return b'"id":' + msgspec.json.encode(record_id) + b',"e":'
