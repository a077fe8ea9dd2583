"""Trade ids that carry their user's routing slot, and short ids of commands.

A minted id is an RFC 9562 UUIDv8: 48 bits of milliseconds, the 16-bit slot (12 bits before the
variant, 4 after it), 58 random bits.
"""

from __future__ import annotations

import binascii
import re

from tradepool.model.digests import digest_of

__all__ = [
    "SHORT_ID_CHARS",
    "TRADE_ID_CHARS_MAX",
    "derive_id",
    "mint_id",
    "minted_at",
    "short_id",
    "slot_of_id",
    "slot_of_user",
]

SHORT_ID_CHARS = 16
TRADE_ID_CHARS_MAX = 64
"""Longest trade id that a caller may give."""

_RANDOM_BITS = 58
_VERSION = 8
_VARIANT = 0b10
_UUID8 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def slot_of_user(user_id: str) -> int:
    """The user's 16-bit routing slot: CRC16/XMODEM of the UTF-8 id, as Redis Cluster counts."""
    return binascii.crc_hqx(user_id.encode("utf-8", "surrogatepass"), 0)


def mint_id(user_id: str, *, at_us: int, random_bits: int) -> str:
    """A new trade id of `user_id` at `at_us` (µs since 1970); the low 58 of `random_bits` count."""
    slot = slot_of_user(user_id)
    milliseconds = (at_us // 1000) & (2**48 - 1)
    tail = ((slot & 0xF) << _RANDOM_BITS) | (random_bits & (2**_RANDOM_BITS - 1))
    number = (milliseconds << 80) | (_VERSION << 76) | ((slot >> 4) << 64) | (_VARIANT << 62) | tail
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def derive_id(user_id: str, *, at_us: int, seed: str) -> str:
    """The trade id that `seed` (a command id) always gets, so that a redelivery mints the same one."""
    return mint_id(user_id, at_us=at_us, random_bits=int(short_id(seed), 16))


def slot_of_id(trade_id: str) -> int | None:
    """The routing slot inside a minted id; None for an id that is not a UUIDv8."""
    if _UUID8.fullmatch(trade_id) is None:
        return None
    # Behind the version's digit, and behind the two bits of the variant.
    return int(trade_id[15:18], 16) << 4 | (int(trade_id[19:21], 16) >> 2 & 0xF)


def minted_at(trade_id: str) -> int | None:
    """When a minted id was minted, µs to the millisecond; None for an id that is not a UUIDv8."""
    if _UUID8.fullmatch(trade_id) is None:
        return None
    return int(trade_id[:8] + trade_id[9:13], 16) * 1000


def short_id(command_id: str) -> str:
    """16 hex characters that stand for a command id in records and keys."""
    return digest_of(command_id.encode("utf-8", "surrogatepass"))
