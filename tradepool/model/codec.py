"""Records as bytes: a fixed header that Lua can cut, then the body, which is JSON, compressed.

The header is 26 ASCII characters: version (8 hex), digest (16 hex, blake2b of the JSON), kind and
status (a letter each). Comparing its first 24 compares version and content. The files hold the JSON
itself; the digest is the same wherever a record is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.archived import Archived
from tradepool.model.digests import digest_of
from tradepool.model.ledger import Ledger
from tradepool.model.packing import packed, unpacked
from tradepool.model.trade import Trade

__all__ = [
    "ARCHIVED_KIND",
    "COMPARED_CHARS",
    "DIGEST",
    "HEADER_CHARS",
    "KIND",
    "LEDGER_KIND",
    "NO_STATUS",
    "STATUS",
    "TRADE_KIND",
    "VERSION",
    "Header",
    "Record",
    "decode",
    "decode_trade",
    "digest_of",
    "encode_ledger",
    "encode_trade",
    "pack",
    "pack_archived",
    "pack_ledger",
    "pack_trade",
    "read_header",
    "split",
    "unknown_kind",
    "unpack",
    "unpack_archived",
    "unpack_ledger",
    "unpack_trade",
]

HEADER_CHARS = 26
COMPARED_CHARS = 24
"""How much of the header a compare-and-set compares: version and digest."""
VERSION, DIGEST, KIND, STATUS = slice(8), slice(8, 24), slice(24, 25), slice(25, HEADER_CHARS)
"""The parts of a header: two in hex, two letters."""
TRADE_KIND = "t"
LEDGER_KIND = "l"
ARCHIVED_KIND = "a"
"""What is left of a trade that has moved to the archive, under the trade's id."""
NO_STATUS = "-"
"""The status letter of a record that has none."""

Record = Trade | Ledger | Archived
"""What a stored value holds."""

_ENCODER = msgspec.json.Encoder()
_TRADE_DECODER = msgspec.json.Decoder(Trade)
_LEDGER_DECODER = msgspec.json.Decoder(Ledger)
_ARCHIVED_DECODER = msgspec.json.Decoder(Archived)
_header = tuple.__new__
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)


class Header(NamedTuple):
    """What the fixed part of a record says."""

    version: int
    digest: str
    kind: str
    status: str


def encode_trade(trade: Trade) -> bytes:
    """The trade as JSON; fields at their default are left out."""
    return _ENCODER.encode(trade)


def decode_trade(body: bytes) -> Trade:
    """The trade in `body`.

    Raises: Corrupt when it is not a trade.
    """
    try:
        return _TRADE_DECODER.decode(body)
    except _UNREADABLE as problem:
        raise Corrupt(f"a stored trade cannot be read: {problem}") from problem


def encode_ledger(ledger: Ledger) -> bytes:
    """The token ledger as JSON."""
    return _ENCODER.encode(ledger)


def _decode_ledger(body: bytes) -> Ledger:
    try:
        return _LEDGER_DECODER.decode(body)
    except _UNREADABLE as problem:
        raise Corrupt(f"a stored token ledger cannot be read: {problem}") from problem


def _decode_archived(body: bytes) -> Archived:
    try:
        return _ARCHIVED_DECODER.decode(body)
    except _UNREADABLE as problem:
        raise Corrupt(f"what is left of an archived trade cannot be read: {problem}") from problem


def decode(kind: str, body: bytes) -> Record:
    """What the JSON of a record of `kind` says, wherever it was kept.

    Raises: Corrupt when it cannot be read, or is of a kind that only a newer release knows.
    """
    if kind == TRADE_KIND:
        return decode_trade(body)
    if kind == LEDGER_KIND:
        return _decode_ledger(body)
    if kind == ARCHIVED_KIND:
        return _decode_archived(body)
    raise unknown_kind(kind)


def unknown_kind(kind: str) -> Corrupt:
    """What to raise for a record that is neither trade nor ledger nor archived."""
    return Corrupt(f"a record of kind {kind!r}; only a newer release can read it")


def pack(version: int, body: bytes, kind: str, status_code: str) -> bytes:
    """The stored value of a record whose JSON is `body`: header and packed body."""
    header = f"{version:08x}{digest_of(body)}{kind}{status_code}".encode()
    assert len(header) == HEADER_CHARS
    return header + packed(body)


def read_header(value: bytes) -> Header:
    """The header of a stored value; its digest is read, not checked.

    Raises: Corrupt when there is none.
    """
    try:
        text = value[:HEADER_CHARS].decode("ascii")
        # A third of the time of naming them, and every record read passes here.
        return _header(
            Header, (int(text[VERSION], 16), text[DIGEST], text[COMPARED_CHARS], text[COMPARED_CHARS + 1])
        )
    except (ValueError, IndexError) as problem:
        raise Corrupt(f"a record's header cannot be read: {value[:HEADER_CHARS]!r}") from problem


def split(value: bytes) -> tuple[Header, bytes]:
    """A stored value as its header and its JSON; the digest is read, not checked.

    Raises: Corrupt when it is no record.
    """
    return read_header(value), unpacked(value, HEADER_CHARS)


def unpack(value: bytes) -> Record:
    """What a stored value holds, whatever its kind.

    Raises: Corrupt when it cannot be read, or is of a kind that only a newer release knows.
    """
    header, body = split(value)
    return decode(header.kind, body)


def pack_trade(trade: Trade) -> bytes:
    """The trade as a stored value."""
    return pack(trade.version, encode_trade(trade), TRADE_KIND, trade.status.code)


def unpack_trade(value: bytes) -> Trade:
    """The trade in a stored value.

    Raises: Corrupt when it cannot be read.
    """
    return decode_trade(unpacked(value, HEADER_CHARS))


def pack_ledger(ledger: Ledger) -> bytes:
    """The ledger as a stored value."""
    return pack(ledger.version, encode_ledger(ledger), LEDGER_KIND, NO_STATUS)


def unpack_ledger(value: bytes) -> Ledger:
    """The ledger in a stored value.

    Raises: Corrupt when it cannot be read.
    """
    return _decode_ledger(unpacked(value, HEADER_CHARS))


def pack_archived(archived: Archived) -> bytes:
    """What is left of a trade, as a stored value."""
    return pack(archived.version, _ENCODER.encode(archived), ARCHIVED_KIND, NO_STATUS)


def unpack_archived(value: bytes) -> Archived:
    """What is left of a trade, in a stored value.

    Raises: Corrupt when it cannot be read.
    """
    return _decode_archived(unpacked(value, HEADER_CHARS))
