"""Records as bytes: a fixed header that Lua can cut, then JSON.

The header is 26 ASCII characters: version (8 hex), digest (16 hex, blake2b of the JSON), kind and
status (a letter each). Comparing its first 24 compares version and content.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.tokens import Ledger
from tradepool.model.trade import Trade

__all__ = [
    "COMPARED_CHARS",
    "HEADER_CHARS",
    "LEDGER_KIND",
    "NO_STATUS",
    "TRADE_KIND",
    "Header",
    "decode_ledger",
    "decode_trade",
    "digest_of",
    "encode_ledger",
    "encode_trade",
    "header",
    "pack_ledger",
    "pack_trade",
    "split",
    "unpack_ledger",
    "unpack_trade",
]

HEADER_CHARS = 26
COMPARED_CHARS = 24
"""How much of the header a compare-and-set compares: version and digest."""
TRADE_KIND = "t"
LEDGER_KIND = "l"
NO_STATUS = "-"
"""The status letter of a record that has none."""

_ENCODER = msgspec.json.Encoder()
_TRADE_DECODER = msgspec.json.Decoder(Trade)
_LEDGER_DECODER = msgspec.json.Decoder(Ledger)


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
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a stored trade cannot be read: {problem}") from problem


def encode_ledger(ledger: Ledger) -> bytes:
    """The token ledger as JSON."""
    return _ENCODER.encode(ledger)


def decode_ledger(body: bytes) -> Ledger:
    """The ledger in `body`.

    Raises: Corrupt when it is not a ledger.
    """
    try:
        return _LEDGER_DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a stored token ledger cannot be read: {problem}") from problem


def digest_of(body: bytes) -> str:
    """16 hex characters that change when the JSON does."""
    return blake2b(body, digest_size=8).hexdigest()


def header(version: int, body: bytes, kind: str, status_code: str) -> bytes:
    """The 26 characters that go before `body`."""
    text = f"{version:08x}{digest_of(body)}{kind}{status_code}"
    assert len(text) == HEADER_CHARS
    return text.encode("ascii")


def split(value: bytes) -> tuple[Header, bytes]:
    """A stored value as its header and its JSON; the digest is read, not checked.

    Raises: Corrupt when the header is not one.
    """
    try:
        text = value[:HEADER_CHARS].decode("ascii")
        version = int(text[:8], 16)
        kind, status = text[COMPARED_CHARS], text[COMPARED_CHARS + 1]
    except (ValueError, IndexError) as problem:
        raise Corrupt(f"a record's header cannot be read: {value[:HEADER_CHARS]!r}") from problem
    return Header(version, text[8:COMPARED_CHARS], kind, status), value[HEADER_CHARS:]


def pack_trade(trade: Trade) -> bytes:
    """The trade as a stored value: header and JSON."""
    body = encode_trade(trade)
    return header(trade.version, body, TRADE_KIND, trade.status.code) + body


def unpack_trade(value: bytes) -> Trade:
    """The trade in a stored value.

    Raises: Corrupt when it cannot be read.
    """
    return decode_trade(value[HEADER_CHARS:])


def pack_ledger(ledger: Ledger) -> bytes:
    """The ledger as a stored value: header and JSON."""
    body = encode_ledger(ledger)
    return header(ledger.version, body, LEDGER_KIND, NO_STATUS) + body


def unpack_ledger(value: bytes) -> Ledger:
    """The ledger in a stored value.

    Raises: Corrupt when it cannot be read.
    """
    return decode_ledger(value[HEADER_CHARS:])
