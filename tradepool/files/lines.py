"""The lines of the journal: one JSON object each, chained by checksum.

Every line ends in `,"c":"<8 hex>"}`: the CRC-32 of all line bodies from its segment's header up to and
including its own, so a line proves that everything before it is whole. docs/file-formats.md has the
fields.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from tradepool.errors import Corrupt
from tradepool.model import codec

__all__ = [
    "COMMIT_PREFIX",
    "SUFFIX_BYTES",
    "Commit",
    "Digest",
    "JournalLine",
    "NewLine",
    "decode",
    "encode_commit",
    "encode_lines",
    "framed",
    "next_crc",
    "spelled",
    "stored_crc",
    "suffix",
]

COMMIT_PREFIX = b'{"commit":'
"""How every commit line begins, and no other."""
SUFFIX_BYTES = len(b',"c":"00000000"}\n')

_SUFFIX = b',"c":"%08x"}\n'
_CRC = slice(-11, -3)
_LINE_NAMES = {
    "seq": "q",
    "shard": "s",
    "position": "x",
    "index": "i",
    "kind": "k",
    "record_id": "id",
    "command_id": "e",
    "task_id": "w",
    "version": "v",
    "digest": "d",
    "previous": "p",
    "status": "st",
    "record": "r",
}
_LINE = (
    b'{"q":%d,"s":%d,"x":"%b","i":%d,"k":"%b","id":"%b","e":"%b","w":"%b","v":%d,"d":"%b","p":"%b","st":"%b",'
    b'"r":%b'
)


class NewLine(NamedTuple):
    """One version of one record on its way into the journal; text as it stands in JSON (`spelled`).

    `position` is the outbox position of its commit and `place` its index in there; `digest` is the
    record's own and `previous` that of the version before it, empty for a first version.
    """

    shard: int
    position: bytes
    place: int
    kind: bytes
    record_id: bytes
    command_id: bytes
    task_id: bytes
    version: int
    digest: bytes
    previous: bytes
    status: bytes
    record: bytes


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_LINE_NAMES):
    """A journaled `NewLine`, read back; `seq` counts the lines of the journal from 1, without gaps."""

    seq: int
    shard: int
    position: str
    index: int
    kind: str
    record_id: str
    command_id: str
    task_id: str
    version: int
    digest: str
    previous: str
    status: str
    record: msgspec.Raw

    @property
    def value(self) -> bytes:
        """The record as it was stored.

        Raises: Corrupt when the JSON is not what the digest says.
        """
        value = codec.pack(self.version, bytes(self.record), self.kind, self.status)
        if value[codec.DIGEST] != self.digest.encode():
            raise Corrupt(f"record {self.record_id!r} version {self.version}: its digest is another record's")
        return value


class Commit(msgspec.Struct, frozen=True, kw_only=True, rename={"positions": "commit", "seq": "q"}):
    """The end of a group: positions that moved, the last entry's number, the time (µs)."""

    positions: dict[int, str]
    seq: int
    at: int


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """XOR of the 64-bit digests of records at their newest version, and how many records."""

    xor: int = 0
    count: int = 0

    def moved(self, xor: int, added: int) -> Digest:
        """The digest after changes that XOR to `xor` and add `added` records."""
        return Digest(self.xor ^ xor, self.count + added)

    @property
    def text(self) -> str:
        """The XOR as 16 hex characters."""
        return f"{self.xor:016x}"


_ENCODER = msgspec.json.Encoder()
_Line = TypeVar("_Line", JournalLine, Commit)
_DECODERS: dict[type, msgspec.json.Decoder[JournalLine | Commit]] = {
    kind: msgspec.json.Decoder(kind) for kind in (JournalLine, Commit)
}


def spelled(text: bytes) -> bytes:
    """UTF-8 text as it stands between the quotes of a JSON string.

    Raises: UnicodeDecodeError.
    """
    return _ENCODER.encode(text.decode())[1:-1]


def encode_lines(lines: Iterable[NewLine], seq: int, crc: int) -> tuple[list[bytes], int]:
    """The lines numbered after `seq`, after checksum `crc`, and the checksum after them.

    They come in parts, to be joined once: copying a line costs as much as making its checksum.
    """
    parts: list[bytes] = []
    crc32 = zlib.crc32
    for number, line in enumerate(lines, seq + 1):
        body = _LINE % (number, *line)
        crc = crc32(body, crc)
        parts += (body, _SUFFIX % crc)
    return parts, crc


def encode_commit(commit: Commit, crc: int) -> tuple[bytes, int]:
    """The commit's line and the checksum after it."""
    return framed(_ENCODER.encode(commit)[:-1], crc)


def framed(body: bytes, crc: int) -> tuple[bytes, int]:
    """A line of `body` (JSON without its last brace) after checksum `crc`, and the checksum after it."""
    crc = zlib.crc32(body, crc)
    return body + suffix(crc), crc


def next_crc(line: bytes, crc: int) -> int | None:
    """The checksum after `line`, which stands after checksum `crc`; None when the line is damaged."""
    after = zlib.crc32(line[:-SUFFIX_BYTES], crc)
    return after if line[-SUFFIX_BYTES:] == suffix(after) else None


def stored_crc(end: bytes) -> int | None:
    """The checksum that the line ending in `end` claims for itself; None when none can be read."""
    try:
        return int(end[_CRC], 16)
    except ValueError:
        return None


def decode(line: bytes, kind: type[_Line]) -> _Line:
    """A line whose checksum is right, as the `kind` it must be.

    Raises: Corrupt when it is something else.
    """
    try:
        return _DECODERS[kind].decode(line)  # type: ignore[return-value]
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a journal line with a right checksum cannot be read: {problem}") from problem


def suffix(crc: int) -> bytes:
    """How a line ends that claims checksum `crc`."""
    return _SUFFIX % crc
