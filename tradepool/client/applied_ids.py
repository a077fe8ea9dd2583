"""Which commands a record in the store names as applied."""

from __future__ import annotations

import msgspec

from tradepool.errors import Corrupt
from tradepool.logger import Logger
from tradepool.model.codec import split
from tradepool.model.ids import SHORT_ID_CHARS

__all__ = ["applied_ids", "names"]

log = Logger(__name__)


class _Remembered(msgspec.Struct):
    """What a look needs of a record's JSON, of whatever kind it is."""

    applied: str = ""
    """The short ids of its newest commands, end to end."""


_REMEMBERED = msgspec.json.Decoder(_Remembered)


def applied_ids(value: bytes | None) -> str:
    """The short ids of the commands that a record remembers, end to end; none of one that cannot be read."""
    if value is None:
        return ""
    try:
        return _REMEMBERED.decode(split(value)[1]).applied
    except (Corrupt, msgspec.MsgspecError, UnicodeDecodeError) as problem:
        log.error("cannot read a record", problem=str(problem))  # noqa: TRY400 - an audit finds the place
        return ""


def names(applied: str, short: str) -> bool:
    """Whether one of the ids in `applied` is `short`."""
    at = applied.find(short)
    while at % SHORT_ID_CHARS and at >= 0:
        at = applied.find(short, at + 1)
    return at >= 0
