"""The first line of every segment: which journal it belongs to, and how the segment before it ended."""

from __future__ import annotations

import msgspec

from tradepool.errors import ChecksumMismatch, Corrupt, Misconfigured
from tradepool.files.lines import framed, next_crc
from tradepool.files.point import JournalPoint

__all__ = ["FORMAT", "Ending", "Header", "encode_header", "parse_header"]

FORMAT = 1


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a finished segment ended: where the journal stood, and the SHA-256 (hex) of all its bytes.

    The hash is of the bytes before compression. As it stands in the next segment's header, which the
    hash after that covers, no finished segment can be changed without changing all that follow.
    """

    sha256: str
    point: JournalPoint


class Header(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"format": "tradepool_journal"}
):
    """Which journal this is, its shard count, the segment's number and when it was begun (µs).

    `before` is how the segment before ended; the first one has none.
    """

    format: int
    id: str
    shards: int
    created: int
    segment: int = 1
    before: Ending | None = None

    def start(self, offset: int, crc: int) -> JournalPoint:
        """Where the journal stands after this header's line, which ends at byte `offset` with `crc`."""
        before = JournalPoint(offset=0, crc=0) if self.before is None else self.before.point
        return msgspec.structs.replace(before, segment=self.segment, offset=offset, crc=crc)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Header)


def encode_header(header: Header) -> tuple[bytes, int]:
    """The header's line and the checksum after it: each segment's chain of checksums begins anew."""
    return framed(_ENCODER.encode(header)[:-1], 0)


def parse_header(line: bytes, name: str) -> tuple[Header, JournalPoint]:
    """The header that `line`, the first one of the file called `name`, holds; and the state after it.

    Raises: ChecksumMismatch when it is damaged, Misconfigured when it is of another format.
    """
    crc = next_crc(line, 0)
    if crc is None:
        raise ChecksumMismatch(f"{name}:1: the header is damaged; restore the file from a backup")
    try:
        header = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"{name}:1: a header with a right checksum cannot be read: {problem}") from problem
    if header.format != FORMAT:
        raise Misconfigured(
            f"{name} has format {header.format}, this release reads {FORMAT}; upgrade tradepool"
        )
    return header, header.start(len(line), crc)
